// The npm package in node. EMBGEMMA_PACKAGE names its folder, EMBGEMMA_MODEL a model file.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

const { EmbeddingModel, EmbgemmaError } = await import(
  pathToFileURL(resolve(process.env.EMBGEMMA_PACKAGE, "index.js")).href
);
const path = process.env.EMBGEMMA_MODEL;
const bytes = await readFile(path);
const TEXTS = ["Venus is Earth's twin.", "Mars is red.", "Saturn has rings. 😀"];

const failsWith = (code, words) => (error) => error instanceof EmbgemmaError && error.code === code && words.test(error.message);

async function vectorsOf(source, options) {
  const model = await EmbeddingModel.load(source, options);
  try {
    return await model.embedDocuments(TEXTS);
  } finally {
    await model.close();
  }
}

describe("a model", () => {
  let model;
  before(async () => (model = await EmbeddingModel.load(path, { threads: 1 })));
  after(() => model.close());

  test("says what it is", async () => {
    assert.ok(model.dim > 0 && model.maxTokens > 0);
    assert.ok("query" in model.prompts && "document" in model.prompts);
    assert.match(await model.fingerprint(), new RegExp(`^[0-9a-f]+-${model.dim}-[0-9a-f]+$`));
    assert.notEqual(await model.fingerprint({ promptName: "query" }), await model.fingerprint());
    assert.ok((await model.memoryBytes()) >= bytes.length);
  });

  test("gives unit vectors, which do not depend on the batch", async () => {
    const together = await model.embedDocuments(TEXTS);
    for (const [i, text] of TEXTS.entries()) {
      assert.ok(Math.abs(model.similarity(together[i], together[i]) - 1) < 1e-5);
      assert.deepEqual((await model.embedDocuments([text]))[0], together[i]);
    }
    assert.deepEqual(await model.embedDocuments([]), []);
  });

  test("embeds token ids as it does their text", async () => {
    const ids = await model.tokenize(TEXTS[2], { promptName: "document" });
    assert.deepEqual(await model.embedIds([ids]), await model.embedDocuments([TEXTS[2]]));
    assert.deepEqual(await model.embedIds([{ ...ids, length: ids.length }]), await model.embedIds([[...ids]]));
  });

  test("takes half of a surrogate pair for U+FFFD", async () => {
    assert.deepEqual(await model.embedQuery("a\ud800b"), await model.embedQuery("a\ufffdb"));
  });

  test("truncates", async () => {
    const [vector] = await model.embedDocuments([TEXTS[0]], { truncateDim: 64 });
    assert.equal(vector.length, 64);
    for (const truncateDim of [0, model.dim + 1, 1.5, "64"]) {
      await assert.rejects(model.embedQuery("x", { truncateDim }), failsWith("argument", /truncateDim/));
    }
  });

  test("compares one or many", async () => {
    const query = await model.embedQuery("Which planet is red?");
    const documents = await model.embedDocuments(TEXTS);
    const scores = model.similarity(query, documents);
    assert.equal(scores.length, TEXTS.length);
    assert.deepEqual(model.similarity([query], documents), [scores]);
    assert.equal(model.similarity(query, documents[1]), scores[1]);
  });

  test("refuses what it cannot do", async () => {
    await assert.rejects(model.embed(["x"], { promptName: "none" }), failsWith("argument", /prompt/));
    await assert.rejects(model.embedDocuments("no array"), failsWith("argument", /array of strings/));
    await assert.rejects(model.embedDocuments(new Array(2)), failsWith("argument", /array of strings/));
    await assert.rejects(model.tokenize(undefined), failsWith("argument", /strings/));
    for (const promptName of ["none", "toString", null]) {
      await assert.rejects(model.tokenize("x", { promptName }), failsWith("argument", /prompt/));
    }
    for (const ids of [5, "12", [5], [null], ["12"], [[1.5]], [[2 ** 32 + 5]], [["5"]], [[NaN]], [new Array(1)]]) {
      await assert.rejects(model.embedIds(ids), failsWith("argument", /token ids/));
    }
    for (const ids of [[], new Int32Array(1e8)]) {
      await assert.rejects(model.embedIds([[2, 1], ids]), failsWith("argument", /text 1 has \d+ tokens: expected 1 …/));
    }
    const many = [...Array(100).fill(Array(model.maxTokens).fill(5)), [1e9]];
    await assert.rejects(model.embedIds(many.slice(-30)), failsWith("argument", /1000000000 in text 29 is out of range/));
  });

  test("compares no vectors of different sizes", () => {
    const [short, long] = [new Float32Array(2), new Float32Array(3)];
    for (const [a, b] of [[short, long], [long, short], [[short], [long]], [short, undefined]]) {
      assert.throws(() => model.similarity(a, b), failsWith("argument", /one size/));
    }
  });

  test("embeds ids in parts, which can be aborted", async () => {
    const ids = Array(50).fill(await model.tokenize("word ".repeat(400)));
    const abort = new AbortController();
    const seen = [];
    const onProgress = (progress) => seen.push(progress) && abort.abort();
    await assert.rejects(model.embedIds(ids, { onProgress, signal: abort.signal }), { name: "AbortError" });
    assert.ok(seen.length === 1 && seen[0].done < 50 && seen[0].total === 50);
  });

  test("answers a query between the parts of a long list", async () => {
    const order = [];
    const long = Array(200).fill("word ".repeat(100));
    const signal = new AbortController();
    const list = model.embedDocuments(long, { signal: signal.signal }).catch((error) => order.push(error.name));
    await model.embedQuery("x").then(() => order.push("query"));
    signal.abort();
    await list;
    assert.deepEqual(order, ["query", "AbortError"]);
  });
});

describe("loading", () => {
  let expected;
  before(async () => (expected = await vectorsOf(path, { threads: 1 })));

  const sources = {
    bytes: () => new Uint8Array(bytes),
    buffer: () => new Uint8Array(bytes).buffer,
    blob: () => new Blob([bytes]),
    response: () => new Response(bytes),
    "file URL": () => pathToFileURL(resolve(path)),
  };
  for (const [name, source] of Object.entries(sources)) {
    test(`takes a ${name}`, async () => {
      const seen = [];
      const given = source();
      assert.deepEqual(await vectorsOf(given, { threads: 1, onProgress: (progress) => seen.push(progress) }), expected);
      assert.deepEqual([seen.at(-1).loaded, seen.at(-1).total], [bytes.length, bytes.length]);
      assert.ok(!(given instanceof Uint8Array) || given.length === bytes.length); // it is still the caller's
    });
  }

  for (const threads of [2, 3]) {
    test(`gives the same bits with ${threads} threads`, async () => {
      assert.deepEqual(await vectorsOf(path, { threads }), expected);
    });
  }

  test("gives the same bits without relaxed SIMD", async () => {
    assert.deepEqual(await vectorsOf(path, { isa: "wasm", threads: 1 }), expected);
  });

  const damaged = {
    empty: [new Uint8Array(0), /ends after 0 bytes/],
    cut: [bytes.subarray(0, bytes.length - 1000), /cut/],
    longer: [Buffer.concat([bytes, bytes.subarray(0, 10)]), /more than/],
    "another file": [Buffer.from("<!doctype html><title>404</title>".repeat(100)), /not a model file/],
    "another safetensors file": [Buffer.from("\u0002\0\0\0\0\0\0\0{}"), /not a model file/],
    "damaged metadata": [Buffer.from(bytes.toString("latin1").replace('"scheme"', '"schema"'), "latin1"), /scheme|corrupt/],
  };
  for (const [name, [source, words]] of Object.entries(damaged)) {
    test(`refuses a file that is ${name}`, async () => {
      await assert.rejects(EmbeddingModel.load(source, { threads: 1 }), failsWith("model", words));
    });
  }

  const streamOf = (pull) => new ReadableStream({ pull });

  test("takes a stream of parts of a larger buffer", async () => {
    const pool = Buffer.from(bytes); // as node's pool of buffers
    const parts = Array.from({ length: Math.ceil(bytes.length / 1e6) }, (_, i) => pool.subarray(i * 1e6, (i + 1) * 1e6));
    assert.deepEqual(await vectorsOf(ReadableStream.from(parts), { threads: 1 }), expected);
    assert.equal(pool.compare(bytes), 0);
  });

  test("ends when onProgress throws", async () => {
    const onProgress = () => {
      throw new RangeError("enough");
    };
    await assert.rejects(EmbeddingModel.load(path, { threads: 1, onProgress }), { name: "RangeError", message: "enough" });
  });

  test("ends when it is aborted while a stream waits", async () => {
    const abort = new AbortController();
    const waits = streamOf(() => new Promise(() => setTimeout(() => abort.abort(), 100)));
    await assert.rejects(EmbeddingModel.load(waits, { threads: 1, signal: abort.signal }), { name: "AbortError" });
  });

  test("refuses sources that cannot be read", async () => {
    const folder = await mkdtemp(join(tmpdir(), "embgemma-"));
    const longer = join(folder, "longer 100%.safetensors");
    await writeFile(longer, Buffer.concat([bytes, Buffer.alloc(1)]));
    const read = new Response(bytes);
    await read.arrayBuffer();
    const refused = [
      [longer, "model", /more than/],
      [pathToFileURL(longer), "model", /more than/],
      [folder, "model", /EISDIR/],
      ["http://[", "argument", /no URL/],
      ["file:///100%", "model", /100%/],
      [new Response(null), "model", /ends after 0 bytes/],
      [read, "argument", /read before/],
      [streamOf((stream) => stream.enqueue("text")), "argument", /stream of bytes/],
    ];
    for (const [source, code, words] of refused) {
      await assert.rejects(EmbeddingModel.load(source, { threads: 1 }), failsWith(code, words));
    }
    await assert.rejects(EmbeddingModel.isCached("http://["), failsWith("argument", /no URL/));
    await rm(folder, { recursive: true });
  });

  test("refuses what is no source, or no choice", async () => {
    await assert.rejects(EmbeddingModel.load(42), failsWith("argument", /source/));
    await assert.rejects(EmbeddingModel.load("/no/such/file"), failsWith("model", /no such file/i));
    await assert.rejects(EmbeddingModel.load(path, { isa: "avx2" }), failsWith("unsupported", /avx2/));
    for (const threads of [0, 65, 1.5, "two"]) {
      await assert.rejects(EmbeddingModel.load(path, { threads }), failsWith("argument", /threads/));
    }
  });

  test("ends calls when it is closed", async () => {
    const model = await EmbeddingModel.load(path, { threads: 2 });
    const call = assert.rejects(model.embedDocuments(TEXTS), failsWith("closed", /closed/));
    await model.close();
    await call;
    await assert.rejects(model.embedQuery("x"), failsWith("closed", /closed/));
  });

  /** The package with other words in one of its files. */
  async function changed(t, name, words, others) {
    const folder = await mkdtemp(join(tmpdir(), "embgemma-"));
    t.after(() => rm(folder, { recursive: true }));
    await cp(process.env.EMBGEMMA_PACKAGE, folder, { recursive: true });
    const code = await readFile(join(folder, name), "utf8");
    assert.ok(code.includes(words), words);
    await writeFile(join(folder, name), code.replace(words, others));
    return (await import(pathToFileURL(join(folder, "index.js")).href)).EmbeddingModel;
  }

  const [SERVE, ENCODE] = ["exports.eg_wasm_serve(index)", "engine.check(encode(address))"];
  const ends = [
    ["fails", "throw new WebAssembly.RuntimeError('unreachable')", /engine failed: unreachable; load/],
    ["ends without a word", "process.exit(3)", /engine failed: a Worker was ended from outside \(exit code 3\); load/],
  ];
  for (const [how, words, message] of ends) {
    test(`rejects calls when the engine or a thread of it ${how}`, async (t) => {
      const failed = { code: "system", message };
      await assert.rejects((await changed(t, "helper.js", SERVE, words)).load(path, { threads: 2 }), failed);
      const model = await (await changed(t, "worker.js", ENCODE, words)).load(path, { threads: 2 });
      await Promise.all(["one", "two"].map((text) => assert.rejects(model.embedQuery(text), failed)));
      await assert.rejects(model.fingerprint(), failed);
    });
  }

  test("rejects calls when any thread is killed while it works", async (t) => {
    const START = "const watching = new AbortController()";
    const model = await changed(t, "workers.js", START, `globalThis.started.push(worker); ${START}`);
    for (const killed of [0, 1, 2]) {
      globalThis.started = [];
      const opened = await model.load(path, { threads: 3 });
      const call = opened.embedDocuments(Array(50).fill("word ".repeat(400)));
      setTimeout(() => globalThis.started[killed].terminate(), 100);
      await assert.rejects(call, { code: "system", message: /ended from outside/ });
      await assert.rejects(opened.embedQuery("x"), { code: "system" });
    }
  });

  test("takes as much memory as it asks for, and takes what was freed", async () => {
    const { Engine } = await import(pathToFileURL(resolve(process.env.EMBGEMMA_PACKAGE, "engine.js")).href);
    const engine = await Engine.create("wasm", 1);
    const before = engine.totalBytes;
    const taken = () => (engine.totalBytes - before) / 65536; // pages
    const sizes = [33, 5, 40, 17, 9, 70];
    const held = sizes.map((pages) => engine.allocate(pages * 65536 - 64));
    assert.equal(taken(), 174);
    held.forEach((address, i) => engine.bytes(address, sizes[i] * 65536 - 64).fill(i + 1));
    for (const i of [2, 0, 4, 1]) engine.free(held[i]); // the first three, which are one then, and another
    const anew = [9, 78, 5, 120].map((pages) => [engine.allocate(pages * 65536), pages * 65536]);
    assert.equal(taken(), 174 + 5 + 120);
    anew.forEach(([address, size], i) => engine.bytes(address, size).fill(100 + i));
    for (const i of [3, 5]) assert.ok(engine.bytes(held[i], sizes[i] * 65536 - 64).every((byte) => byte === i + 1));
    anew.forEach(([address, size], i) => assert.ok(engine.bytes(address, size).every((byte) => byte === 100 + i)));
    engine.free(anew[3][0]); // the last, which grows
    engine.allocate(130 * 65536);
    assert.equal(taken(), 174 + 5 + 130);
  });

  test("drops an answer that comes when it was closed", async () => {
    const model = await EmbeddingModel.load(path, { threads: 1 });
    const call = assert.rejects(model.embedQuery("x"), failsWith("closed", /closed/));
    await new Promise((resolve) => setImmediate(resolve)); // the call is sent
    for (const end = performance.now() + 500; performance.now() < end; ); // its answer comes and waits
    await model.close();
    await call;
  });

  test("keeps no program running for a call that could not be sent", async () => {
    const program = `const { EmbeddingModel } = await import(process.argv[1]);
      const model = await EmbeddingModel.load(process.argv[2], { threads: 1 });
      await model.fingerprint({ promptName: () => 1 }).catch((error) => console.log(error.name));`;
    const index = pathToFileURL(resolve(process.env.EMBGEMMA_PACKAGE, "index.js")).href;
    const options = ["--input-type=module", "-e", program, index, resolve(path)];
    const { stdout } = await promisify(execFile)(process.execPath, options, { timeout: 20_000 });
    assert.equal(stdout, "DataCloneError\n");
  });
});

describe("downloading", () => {
  let server, url, requests, answer;
  before(async () => {
    server = createServer((request, response) => {
      requests.push(request.headers.range);
      answer(request, response);
    });
    await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
    url = `http://127.0.0.1:${server.address().port}/model.safetensors`;
  });
  after(() => server.close());

  const beginOf = (request) => Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "bytes=0-")[1]);

  /** Sends what was asked for, but ends the connection after `most` bytes. */
  const send = (most, { ranges = true, file = bytes, tag } = {}) => (request, response) => {
    const begin = ranges ? beginOf(request) : 0;
    const headers = { "Content-Length": file.length - begin, ...(tag && { ETag: tag }) };
    if (ranges && request.headers.range) {
      headers["Content-Range"] = `bytes ${begin}-${file.length - 1}/${file.length}`;
    }
    response.writeHead(ranges && request.headers.range ? 206 : 200, headers);
    response.write(file.subarray(begin, begin + most), () => {
      begin + most < file.length ? response.destroy() : response.end();
    });
  };

  async function load(how) {
    requests = [];
    answer = how;
    return vectorsOf(url, { threads: 1 });
  }

  test("goes on where the connection broke", async () => {
    const third = Math.ceil(bytes.length / 3);
    assert.deepEqual(await load(send(third)), await vectorsOf(path, { threads: 1 }));
    assert.ok(requests.length >= 3 && requests[0] === undefined && requests[1].startsWith("bytes="), requests);
  });

  test("begins anew where a server has no ranges", async () => {
    let times = 0;
    const once = (request, response) => send(times++ === 0 ? 1e5 : Infinity, { ranges: false })(request, response);
    assert.deepEqual(await load(once), await vectorsOf(path, { threads: 1 }));
    assert.equal(requests.length, 2);
  });

  for (const tag of [undefined, '"new"']) {
    test(`begins anew where the file has changed, ${tag ? "as its tag says" : "which nothing says"}`, async () => {
      const other = Buffer.from(bytes.map((byte, i) => (i > bytes.length - 1e5 ? byte ^ 1 : byte)));
      let times = 0;
      const changing = (request, response) =>
        times++ === 0
          ? send(1e6, { file: other, tag: tag && '"old"' })(request, response)
          : send(Infinity, { tag })(request, response);
      const swapped = (request, response) =>
        times++ === 0 ? send(1e6)(request, response) : send(Infinity, { file: times === 2 ? other : bytes, tag })(request, response);
      assert.deepEqual(await load(tag ? changing : swapped), await vectorsOf(path, { threads: 1 }));
      assert.equal(requests.at(-1), undefined); // all of it
    });
  }

  test("says what the server answers", async () => {
    const missing = (request, response) => response.writeHead(404).end("none");
    await assert.rejects(load(missing), failsWith("network", /404/));
    assert.equal(requests.length, 1);
  });
});
