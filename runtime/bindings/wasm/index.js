// What a page or a program imports. It keeps the engine's Worker busy and never waits for it itself: see index.d.ts.

import { isCopied, removeCopies } from "./copies.js";
import { EmbgemmaError, fromMessage } from "./errors.js";
import { inNode, startWorker } from "./workers.js";

export { EmbgemmaError };

const MOST_THREADS = 64;
const ALL_FAST = 4; // up to so many hardware threads all are taken, else half: cores have two, or half are slow
const MOST_BY_DEFAULT = 8;
const THREADS_IN_NODE = 22; // its version: node 20 compiles calls by pointer in a shared memory wrongly
const PART_CHARACTERS = 20_000; // of a long list: short enough for other calls to come between
const CHARACTERS_OF_TOKEN = 4; // about
const PIECE = 4 << 20; // bytes

/** A Worker with the engine and those of its helper threads. What they are asked to do are promises. */
class Remote {
  #calls = new Map();
  #count = 0;
  #onProgress;
  #engine;
  #workers = []; // the engine's and the helpers'
  #ended = null; // why it takes no more calls

  constructor(onProgress) {
    this.#onProgress = onProgress;
    this.#engine = this.#start(
      (Kind, name) => new Kind(new URL("./worker.js", import.meta.url), { type: "module", execArgv: [], name }),
    );
  }

  #start(make) {
    const failed = (error) => this.end(new EmbgemmaError("system", `the engine failed: ${error.message}; load the model again`));
    const worker = startWorker(make, (message) => this.#hear(message), failed);
    worker.keepRunning(false);
    this.#workers.push(worker);
    return worker;
  }

  #hear({ id, result, error, trap, progress }) {
    if (this.#ended) {
      return; // an answer that was on its way
    }
    if (progress) {
      try {
        this.#onProgress?.(progress);
      } catch (error) {
        this.end(error); // the caller's own
      }
      return;
    }
    if (trap) {
      this.end(fromMessage(error));
      return;
    }
    const { resolve, reject } = this.#calls.get(id);
    this.#calls.delete(id);
    this.#engine.keepRunning(this.#calls.size > 0);
    error ? reject(fromMessage(error)) : resolve(result);
  }

  #ask(worker, message, transfer) {
    if (this.#ended) {
      return Promise.reject(this.#ended);
    }
    return new Promise((resolve, reject) => {
      const id = this.#count++;
      worker.post({ id, ...message }, transfer); // throws what cannot be sent
      this.#calls.set(id, { resolve, reject });
      this.#engine.keepRunning(true);
    });
  }

  call(call, options, transfer) {
    return this.#ask(this.#engine, { call, options }, transfer);
  }

  /** Starts the engine, and its helpers over its memory. They are Workers of the caller: the engine's Worker hears
   * nothing while it waits for them, so it could not tell that one is gone. */
  async begin(choices) {
    const helpers = Array.from({ length: choices.threads - 1 }, () =>
      this.#start(
        (Kind, name) => new Kind(new URL("./helper.js", import.meta.url), { type: "module", execArgv: [], name }),
      ),
    );
    const places = await this.call("begin", choices);
    await Promise.all(helpers.map((helper, index) => this.#ask(helper, { index, ...places[index] })));
  }

  /** Rejects all calls, those in progress and later ones. */
  async end(reason) {
    this.#ended ??= reason;
    for (const { reject } of this.#calls.values()) {
      reject(this.#ended);
    }
    this.#calls.clear();
    await Promise.all(this.#workers.map((worker) => worker.end()));
  }
}

// ---- sources -------------------------------------------------------------------------------------------------------

const isUrl = (text) => /^[a-z][a-z0-9+.-]+:/i.test(text); // not C:\

function absolute(url) {
  try {
    return new URL(url, globalThis.location?.href).href;
  } catch {
    throw new EmbgemmaError("argument", `${url} is no URL; expected such as https://… or file:///…`);
  }
}

/** Gives the Worker the bytes of a source. */
async function send(source, cache, remote, signal) {
  if (typeof source === "string" || source instanceof URL) {
    const text = String(source);
    if (text.startsWith("file:") || (inNode && !isUrl(text))) {
      return remote.call("readFile", { path: text });
    }
    return remote.call("fetchUrl", { url: absolute(text), cache });
  }
  if (source instanceof Blob) {
    return remote.call("readBlob", { blob: source });
  }
  for await (const bytes of pieces(source, signal)) {
    await remote.call("add", { bytes }, [bytes.buffer]); // one at a time: none waits in memory
  }
}

async function* pieces(source, signal) {
  if (source instanceof Response && !source.ok) {
    throw new EmbgemmaError("network", `${source.url}: the server answers ${source.status}`);
  }
  const stream = source instanceof Response ? (source.body ?? new ArrayBuffer(0)) : source;
  if (!(stream instanceof ReadableStream)) {
    yield* copies(stream);
    return;
  }
  if (stream.locked) {
    throw new EmbgemmaError("argument", "the source was read before; give a new one");
  }
  const reader = stream.getReader();
  const cancel = () => reader.cancel(signal?.reason).catch(() => {}); // ends a read that waits
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (let part; !(part = await reader.read()).done; ) {
      yield* copies(part.value);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
    cancel();
  }
}

/** Parts of bytes, in memory of their own: that of the caller may be shared, or hold other things. */
function* copies(source) {
  const bytes = ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : isBuffer(source) && new Uint8Array(source);
  if (!bytes) {
    throw new EmbgemmaError("argument", "the source is none of: URL, path (in node), bytes, Blob, Response, stream of bytes");
  }
  for (let at = 0; at < bytes.length; at += PIECE) {
    yield Uint8Array.from(bytes.subarray(at, at + PIECE));
  }
}

const isBuffer = (source) =>
  source instanceof ArrayBuffer || (typeof SharedArrayBuffer !== "undefined" && source instanceof SharedArrayBuffer);

// ---- the model -------------------------------------------------------------------------------------------------------

function chosenThreads(threads) {
  const canShare = inNode ? parseInt(process.versions.node) >= THREADS_IN_NODE : globalThis.crossOriginIsolated !== false;
  if (threads === undefined) {
    const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
    const fast = cores <= ALL_FAST ? cores : Math.ceil(cores / 2);
    return canShare ? Math.min(fast, MOST_BY_DEFAULT) : 1;
  }
  if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
    throw new EmbgemmaError("argument", `threads is ${threads}: expected a whole number from 1 to ${MOST_THREADS}`);
  }
  return canShare ? threads : 1;
}

function checkTexts(texts) {
  if (!Array.isArray(texts) || [...texts].some((text) => typeof text !== "string")) {
    throw new EmbgemmaError("argument", "expected an array of strings");
  }
}

/** Token ids of texts, as the engine takes them, which would round others. */
function checkedIds(ids, most) {
  const text = (one, i) => {
    if (one?.length < 1 || one?.length > most) {
      throw new EmbgemmaError("argument", `text ${i} has ${one.length} tokens: expected 1 … ${most}`);
    }
    const whole = typeof one === "object" && one?.length !== undefined ? Int32Array.from(one, Number) : null;
    if (whole === null || whole.some((id, at) => id !== one[at])) {
      throw new EmbgemmaError("argument", `text ${i}: expected an array of token ids, which are whole numbers`);
    }
    return whole;
  };
  if (!Array.isArray(ids)) {
    throw new EmbgemmaError("argument", "expected an array of arrays of token ids");
  }
  return Array.from(ids, text);
}

function dot(a, b) {
  if (a?.length === undefined || a.length !== b?.length) {
    const found = `${a?.length ?? typeof a} and ${b?.length ?? typeof b}`;
    throw new EmbgemmaError("argument", `expected vectors of one size, not of ${found} numbers`);
  }
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

export class EmbeddingModel {
  #remote;
  #truncateDim;
  lastMilliseconds = 0;

  constructor(remote, facts, truncateDim) {
    this.#remote = remote;
    Object.assign(this, facts);
    this.#truncateDim = truncateDim ?? this.dim;
    this.#size({});
  }

  static async load(source, { threads, onProgress, cache = true, signal, truncateDim, isa } = {}) {
    signal?.throwIfAborted();
    const choices = { isa, threads: chosenThreads(threads) };
    const remote = new Remote(onProgress);
    const abort = () => remote.end(signal.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      await remote.begin(choices);
      await send(source, cache, remote, signal);
      return new EmbeddingModel(remote, await remote.call("finish", choices), truncateDim);
    } catch (error) {
      await remote.end(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  static async isCached(url) {
    return isCopied(absolute(url));
  }

  static async removeCached(url) {
    return removeCopies(url === undefined ? undefined : absolute(url));
  }

  #size({ truncateDim }) {
    const size = truncateDim ?? this.#truncateDim;
    if (!Number.isInteger(size) || size < 1 || size > this.dim) {
      throw new EmbgemmaError("argument", `truncateDim is ${size}: expected a whole number from 1 to ${this.dim}`);
    }
    return size;
  }

  async #vectors(count, size, call, options) {
    const { vectors, milliseconds } = await this.#remote.call(call, { ...options, size });
    this.lastMilliseconds += milliseconds;
    return Array.from({ length: count }, (_, i) => vectors.slice(i * size, (i + 1) * size));
  }

  async embedQuery(text, options = {}) {
    const [vector] = await this.embed([text], { ...options, promptName: "query" });
    return vector;
  }

  async embedDocuments(texts, options = {}) {
    return this.embed(texts, { ...options, promptName: "document" });
  }

  /** Embeds a list in parts. length(text) tells how much of a part a text fills, embedPart(its texts, size,
   * place of the first) embeds it. */
  async #inParts(texts, { onProgress, signal, ...options }, length, embedPart) {
    const size = this.#size(options);
    const all = [];
    this.lastMilliseconds = 0;
    while (all.length < texts.length) {
      signal?.throwIfAborted();
      let end = all.length;
      for (let filled = 0; end < texts.length && (filled === 0 || filled < PART_CHARACTERS); end++) {
        filled += length(texts[end]) + 1;
      }
      all.push(...(await embedPart(texts.slice(all.length, end), size, all.length)));
      onProgress?.({ done: all.length, total: texts.length });
    }
    return all;
  }

  async embed(texts, { promptName = null, ...options } = {}) {
    checkTexts(texts);
    return this.#inParts(texts, options, (text) => text.length, (part, size) =>
      this.#vectors(part.length, size, "embed", { texts: part, promptName }),
    );
  }

  async embedIds(ids, options = {}) {
    const checked = checkedIds(ids, this.maxTokens);
    return this.#inParts(checked, options, (text) => CHARACTERS_OF_TOKEN * text.length, (part, size, first) =>
      this.#vectors(part.length, size, "embedIds", { ids: part }).catch((error) => {
        error.message = error.message.replace(/ in text (\d+) /, (_, i) => ` in text ${first + Number(i)} `);
        throw error;
      }),
    );
  }

  async tokenize(text, { promptName = "" } = {}) {
    checkTexts([text]);
    const known = Object.keys(this.prompts);
    if (promptName !== "" && !known.includes(promptName)) {
      throw new EmbgemmaError("argument", `${promptName} is no prompt of this model, which has ${known.join(", ")}`);
    }
    return this.#remote.call("tokenize", { text: (this.prompts[promptName] ?? "") + text });
  }

  similarity(a, b) {
    if (Array.isArray(a)) {
      return a.map((each) => this.similarity(each, b));
    }
    return Array.isArray(b) ? Float32Array.from(b, (each) => this.similarity(a, each)) : Math.fround(dot(a, b));
  }

  async fingerprint({ promptName = "document", truncateDim } = {}) {
    return this.#remote.call("fingerprint", { promptName, size: this.#size({ truncateDim }) });
  }

  memoryBytes() {
    return this.#remote.call("memoryBytes");
  }

  close() {
    return this.#remote.end(new EmbgemmaError("closed", "the model was closed"));
  }
}
