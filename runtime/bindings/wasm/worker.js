// The Worker that has the engine: opens the model, and answers calls one after another.

import { download } from "./download.js";
import { Engine } from "./engine.js";
import { EmbgemmaError, isTrap, toMessage } from "./errors.js";
import { Intake } from "./intake.js";
import { listen, postBack } from "./workers.js";

const PIECE = 4 << 20; // bytes of a file read at once
const BEGINNING = 256 << 10; // the same before its size is known, since those are copied
const PROGRESS_MS = 100; // at most so often

let engine, intake, model, context, dim;

// ---- opening a model -----------------------------------------------------------------------------------------------

let from = "memory";

function reporter() {
  let last = 0;
  return (loaded, total) => {
    const now = performance.now();
    if (loaded === total || now - last >= PROGRESS_MS) {
      last = now;
      postBack({ progress: { loaded, total, from } });
    }
  };
}

/** Returns what each helper needs to begin. */
async function begin({ isa, threads }) {
  engine = await Engine.create(isa, threads);
  intake = new Intake(engine, reporter());
  const { module, memory } = engine;
  return Array.from({ length: threads - 1 }, () => ({ module, memory, ...engine.helperMemory() }));
}

let downloadAgain = null; // what a model was opened from, if that may be an old copy

async function fetchUrl({ url, cache, fresh }) {
  const check = () => engine.check(engine.exports.eg_model_check_memory(intake.address, intake.total));
  await download(url, intake, { cache, fresh, check, from: (place) => (from = place) });
  downloadAgain = intake.copied ? () => fetchUrl({ url, cache, fresh: true }) : null;
}

async function readFile({ path }) {
  const { open } = await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:fs/promises");
  const refuse = (error) => {
    throw new EmbgemmaError("model", `${path}: cannot open the file: ${error.message}`);
  };
  from = "file";
  const file = await open(path.startsWith("file:") ? new URL(path) : path).catch(refuse);
  try {
    for (;;) {
      const room = intake.room(PIECE) ?? new Uint8Array(BEGINNING);
      const beyond = room.length === 0;
      const buffer = beyond ? new Uint8Array(1) : room;
      const { bytesRead } = await file.read(buffer, 0, buffer.length, intake.received).catch(refuse);
      if (bytesRead === 0) {
        break;
      }
      if (intake.total === undefined || beyond) {
        intake.add(buffer.subarray(0, bytesRead));
      } else {
        intake.filled(bytesRead);
      }
    }
  } finally {
    await file.close();
  }
}

async function readBlob({ blob }) {
  from = "file";
  while (intake.received < blob.size) {
    const [at, piece] = [intake.received, intake.total === undefined ? BEGINNING : PIECE];
    intake.add(new Uint8Array(await blob.slice(at, at + piece).arrayBuffer()));
  }
}

const openModel = () =>
  engine.made((place) => engine.exports.eg_model_open_memory(intake.address, intake.total, 0, place));

async function finish({ isa, threads }) {
  intake.finish();
  const { exports } = engine;
  try {
    model = openModel();
  } catch (error) {
    if (error.code !== "model" || downloadAgain === null) {
      throw error;
    }
    await downloadAgain(); // a copy of a format that an older release read
    model = openModel();
  }
  exports.eg_wasm_await(threads - 1);
  context = engine.withText(isa ?? null, (name) =>
    engine.made((place) => exports.eg_context_create(model, threads, name, place)),
  );
  dim = exports.eg_model_dim(model);
  const prompts = {};
  for (let i = 0; i < exports.eg_model_prompt_count(model); i++) {
    const name = exports.eg_model_prompt_name(model, i);
    prompts[engine.text(name)] = engine.text(exports.eg_model_prompt(model, name));
  }
  return {
    dim,
    maxTokens: exports.eg_model_max_tokens(model),
    prompts,
    threads: exports.eg_context_threads(context),
    isa: engine.text(exports.eg_context_isa(context)),
    version: engine.text(exports.eg_version()),
  };
}

// ---- calls -----------------------------------------------------------------------------------------------------------

/** Vectors of `count` texts, end to end, of which encode(address) computes them; and how long that took. */
function vectors(count, size, encode) {
  return engine.withBytes(new Uint8Array(count * size * Float32Array.BYTES_PER_ELEMENT), (address) => {
    const begin = performance.now();
    engine.check(encode(address));
    const milliseconds = performance.now() - begin;
    return { vectors: new Float32Array(engine.memory.buffer, address, count * size).slice(), milliseconds };
  });
}

function embed({ texts, promptName, size }) {
  const encoded = texts.map((text) => new TextEncoder().encode(text));
  const ends = [];
  encoded.reduce((end, text) => ends[ends.push(end + text.length) - 1], 0);
  const joined = new Uint8Array(ends.at(-1) ?? 0);
  encoded.forEach((text, i) => joined.set(text, ends[i] - text.length));
  return engine.withText(promptName, (prompt) =>
    engine.withBytes(joined, (address) =>
      engine.withBytes(Uint32Array.from(encoded, (text, i) => address + ends[i] - text.length), (pointers) =>
        engine.withBytes(Uint32Array.from(encoded, (text) => text.length), (lengths) =>
          vectors(texts.length, size, (out) =>
            engine.exports.eg_embed(context, pointers, lengths, texts.length, prompt, size, out),
          ),
        ),
      ),
    ),
  );
}

function embedIds({ ids, size }) {
  const offsets = new BigUint64Array(ids.length + 1);
  ids.forEach((text, i) => (offsets[i + 1] = offsets[i] + BigInt(text.length)));
  return engine.withBytes(Int32Array.from(ids.flatMap((text) => [...text])), (all) =>
    engine.withBytes(offsets, (places) =>
      vectors(ids.length, size, (out) => engine.exports.eg_encode(context, all, places, ids.length, size, 1, out)),
    ),
  );
}

function tokenize({ text }) {
  const tokenizer = engine.exports.eg_model_tokenizer(model);
  if (tokenizer === 0) {
    throw new EmbgemmaError("model", "the model file has no tokenizer, so it takes token ids only (embedIds)");
  }
  const most = engine.exports.eg_model_max_tokens(model);
  return engine.withText(text, (address, bytes) =>
    engine.withBytes(new Int32Array(most + 2), (ids) => {
      const count = ids + most * Int32Array.BYTES_PER_ELEMENT;
      engine.check(engine.exports.eg_tokenize(tokenizer, address, bytes, most, ids, count, count + 4));
      const length = new DataView(engine.memory.buffer).getUint32(count, true);
      return new Int32Array(engine.memory.buffer, ids, length).slice();
    }),
  );
}

const FINGERPRINT_BYTES = 64;

function fingerprint({ promptName, size }) {
  return engine.withText(promptName, (prompt) =>
    engine.withBytes(new Uint8Array(FINGERPRINT_BYTES), (out) => {
      engine.check(engine.exports.eg_model_fingerprint(model, prompt, size, out));
      return engine.text(out);
    }),
  );
}

const calls = {
  begin,
  fetchUrl,
  readFile,
  readBlob,
  add: ({ bytes }) => intake.add(bytes),
  finish,
  embed,
  embedIds,
  tokenize,
  fingerprint,
  memoryBytes: () => engine.totalBytes,
};

let last = Promise.resolve();

listen(({ id, call, options }) => {
  last = last.then(async () => {
    try {
      const result = await calls[call](options ?? {});
      postBack({ id, result }, result?.vectors ? [result.vectors.buffer] : []);
    } catch (error) {
      postBack({ id, error: toMessage(error), trap: isTrap(error) });
    }
  });
});
