// The npm package in Chromium: threads, the copy of a downloaded file, and pages that may have neither.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { pathToFileURL } from "node:url";

import { launch } from "../../../../runtime/bindings/wasm/bench/chromium.mjs";
import { PACKAGE, withBrowser } from "./needs.mjs";

const TYPES = { ".js": "text/javascript", ".wasm": "application/wasm" };
const ISOLATING = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const PAUSE = 300; // ms, after which the browser has passed on what has come
const SERVE = "exports.eg_wasm_serve(index)"; // what a thread of the engine does
const ENDS = { failing: "throw new WebAssembly.RuntimeError('unreachable')", closing: "self.close()" };
const TEXTS = ["Venus is Earth's twin.", "Mars is red.", "Saturn has rings."];

let bytes, expected, server, origin, browser, context, page;
let requests, most; // ranges of the model that were asked for; how many bytes an answer has before the connection ends

function answer(request, response) {
  const path = new URL(request.url, "http://host").pathname;
  if (path === "/model") {
    const begin = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "bytes=0-")[1]);
    requests.push(begin);
    const range = { "Content-Range": `bytes ${begin}-${bytes.length - 1}/${bytes.length}` };
    response.writeHead(begin > 0 ? 206 : 200, { "Content-Length": bytes.length - begin, ...(begin > 0 && range) });
    response.write(bytes.subarray(begin, begin + most));
    begin + most < bytes.length ? setTimeout(() => response.destroy(), PAUSE) : response.end();
  } else if (path.startsWith("/isolated/") || path.startsWith("/plain/")) {
    const headers = path.startsWith("/isolated/") ? ISOLATING : {};
    const name = path.split("/").at(-1);
    const end = name === "helper.js" && ENDS[path.split("/").at(-2)];
    const changed = (content) => (end ? String(content).replace(SERVE, end) : content);
    readFile(join(PACKAGE, name)).then(changed).then(
      (content) => response.writeHead(200, { "Content-Type": TYPES[extname(name)], ...headers }).end(content),
      () => response.writeHead(200, { "Content-Type": "text/html", ...headers }).end("<!doctype html>"),
    );
  } else {
    response.writeHead(404).end();
  }
}

before(async () => {
  if (withBrowser.skip) return;
  bytes = await readFile(process.env.EMBGEMMA_MODEL);
  const { EmbeddingModel } = await import(pathToFileURL(resolve(PACKAGE, "index.js")).href);
  const model = await EmbeddingModel.load(bytes, { threads: 1 });
  expected = (await model.embedDocuments(TEXTS)).map((vector) => [...vector]);
  await model.close();
  server = createServer(answer);
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  origin = `http://127.0.0.1:${server.address().port}`;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
});

beforeEach(async () => {
  if (withBrowser.skip) return;
  await context?.close();
  context = await browser.createBrowserContext(); // without copies
  await open("isolated");
  [requests, most] = [[], Infinity];
});

async function open(kind) {
  page = await context.newPage();
  await page.goto(`${origin}/${kind}/`);
}

/** Loads the model in the page: vectors of the texts and facts, or the error. */
const load = (options = {}) =>
  page.evaluate(
    async (url, texts, options) => {
      const { EmbeddingModel } = await import("./index.js");
      const from = new Set();
      const onProgress = (progress) => from.add(progress.from);
      try {
        const model = await EmbeddingModel.load(url, { ...options, onProgress });
        const vectors = (await model.embedDocuments(texts)).map((vector) => [...vector]);
        const { isa, threads } = model;
        await model.close();
        return { vectors, isa, threads, from: [...from], cached: await EmbeddingModel.isCached(url) };
      } catch ({ code, message }) {
        return { code, message };
      }
    },
    `${origin}/model`,
    TEXTS,
    options,
  );

test("gives the bits of node, on one thread and on two", withBrowser, async () => {
  for (const threads of [1, 2]) {
    for (const isa of ["wasm", undefined]) {
      const loaded = await load({ threads, isa });
      assert.deepEqual([loaded.threads, loaded.vectors], [threads, expected], loaded.message);
    }
  }
});

test("has one thread in a page that is not isolated", withBrowser, async () => {
  await open("plain");
  const loaded = await load({ threads: 2 });
  assert.deepEqual([loaded.threads, loaded.vectors], [1, expected], loaded.message);
});

test("rejects calls when a thread of the engine fails, or is gone", withBrowser, async () => {
  for (const [end, words] of [["failing", "unreachable"], ["closing", "a Worker was ended from outside"]]) {
    await open(`isolated/${end}`);
    const { code, message } = await load({ threads: 2 });
    assert.deepEqual([code, message], ["system", `the engine failed: ${words}; load the model again`]);
  }
});

test("keeps a copy, and needs no network after that", withBrowser, async () => {
  const first = await load();
  assert.deepEqual([first.from, first.cached], [["network"], true], first.message);
  server.removeAllListeners("request");
  server.on("request", (request, response) => (request.url === "/model" ? response.destroy() : answer(request, response)));
  await open("isolated");
  const second = await load();
  server.removeAllListeners("request");
  server.on("request", answer);
  assert.deepEqual([second.from, second.vectors], [["cache"], expected], second.message);
  const { removed } = await page.evaluate(async (url) => {
    const { EmbeddingModel } = await import("./index.js");
    await EmbeddingModel.removeCached(url);
    return { removed: !(await EmbeddingModel.isCached(url)) };
  }, `${origin}/model`);
  assert.ok(removed);
  assert.deepEqual((await load({ cache: false })).cached, false);
});

test("goes on in the next visit where a download was left", withBrowser, async () => {
  most = 1_000_000;
  await page.evaluate((url) => {
    globalThis.loading = import("./index.js").then(({ EmbeddingModel }) => EmbeddingModel.load(url));
    globalThis.loading.catch(() => {});
  }, `${origin}/model`);
  while (requests.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
  await page.close();
  const reached = requests[1];
  [requests, most] = [[], Infinity];
  await open("isolated");
  const loaded = await load();
  assert.deepEqual(loaded.vectors, expected, loaded.message);
  assert.ok(reached > 0 && requests.length === 1 && requests[0] >= reached, `${reached}, then ${requests}`);
});

test("reads a file anew whose copy is damaged", withBrowser, async () => {
  await load();
  await page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("embgemma");
    for await (const file of folder.values()) {
      const writable = await file.createWritable({ keepExistingData: true });
      await writable.write({ type: "write", position: 200, data: new Uint8Array(3000) });
      await writable.close();
    }
  });
  const loaded = await load();
  assert.deepEqual([loaded.vectors, loaded.cached], [expected, true], loaded.message);
});
