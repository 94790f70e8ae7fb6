// The demo's index, with a model of letters: a vector counts those of a text.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Library } from "../../../../runtime/bindings/wasm/demo/library.js";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

function vectorOf(text) {
  const counts = Float32Array.from(LETTERS, (letter) => text.split(letter).length - 1);
  const length = Math.hypot(...counts) || 1;
  return counts.map((value) => value / length);
}

function letters({ fingerprint = "letters", onCall = () => {} } = {}) {
  const embed = async (texts) => {
    await onCall(texts);
    const vectors = new Float32Array(texts.length * LETTERS.length);
    texts.forEach((text, i) => vectors.set(vectorOf(text), i * LETTERS.length));
    return { vectors, tokens: texts.length };
  };
  return { fingerprint, dim: LETTERS.length, embed };
}

function memoryStore() {
  const kept = new Map();
  return {
    kept,
    all: async () => [...kept.values()],
    put: async (file) => void kept.set(file.name, file),
    delete: async (name) => void kept.delete(name),
  };
}

const never = new AbortController().signal;
const found = (library, query, count = 3) => library.search(vectorOf(query), "letters", count).map((one) => one.text);

async function withFiles(files, store = memoryStore()) {
  const library = new Library(store);
  for (const [name, text] of Object.entries(files)) await library.add(name, text);
  return library;
}

test("the best passages come first, with their files and lines", async () => {
  const library = await withFiles({ "a.txt": "aaa\n\nbbb", "b.txt": "\nabb", "c.txt": "ccc" });
  await library.embed(letters(), () => {}, never);
  const results = library.search(vectorOf("abb"), "letters", 2);
  assert.deepEqual(
    results.map(({ file, line, text }) => [file, line, text]),
    [
      ["b.txt", 2, "abb"],
      ["a.txt", 1, "aaa\n\nbbb"],
    ],
  );
  assert.ok(Math.abs(results[0].score - 1) < 1e-6);
  for (const count of [1, 2, 3, 9]) assert.equal(found(library, "abc", count).length, Math.min(count, 3));
});

test("the index is there at the next visit, and no text is embedded twice", async () => {
  const store = memoryStore();
  await (await withFiles({ "a.txt": "aaa", "b.txt": "bbb" }, store)).embed(letters(), () => {}, never);
  const next = new Library(store);
  await next.open();
  await next.add("a.txt", "aaa");
  const onCall = () => assert.fail("nothing has changed");
  await next.embed(letters({ onCall }), () => {}, never);
  assert.deepEqual(found(next, "b", 1), ["bbb"]);
});

test("another model's vectors are made anew, a changed file's as well", async () => {
  const store = memoryStore();
  const library = await withFiles({ "a.txt": "aaa", "b.txt": "bbb" }, store);
  await library.embed(letters({ fingerprint: "another" }), () => {}, never);
  assert.deepEqual(found(library, "a"), []);
  await library.embed(letters(), () => {}, never);
  await library.add("a.txt", "ccc");
  assert.deepEqual(found(library, "c"), ["bbb"]);
  await library.embed(letters(), () => {}, never);
  assert.deepEqual(found(library, "c", 1), ["ccc"]);
  assert.ok([...store.kept.values()].every(({ fingerprint }) => fingerprint === "letters"));
});

test("files may come, change and go while others are embedded", async () => {
  const library = await withFiles({ "a.txt": "aaa", "b.txt": "bbb", "c.txt": "ccc" });
  const changes = {
    aaa: () => library.add("d.txt", "ddd"),
    bbb: () => library.remove("b.txt"),
    ccc: () => library.add("c.txt", "cde"),
  };
  await library.embed(letters({ onCall: ([text]) => changes[text]?.() }), () => {}, never);
  assert.deepEqual(found(library, "abcde", 9).sort(), ["aaa", "cde", "ddd"]);
  assert.deepEqual(library.waiting("letters"), []);
});

test("work that is ended keeps what is done", async () => {
  const library = await withFiles({ "a.txt": "aaa", "b.txt": "bbb", "c.txt": "ccc" });
  const work = new AbortController();
  await library.embed(letters({ onCall: ([text]) => text === "bbb" && work.abort() }), () => {}, work.signal);
  assert.deepEqual(
    library.waiting("letters").map((file) => file.name),
    ["c.txt"],
  );
});

test("a file without text is refused", async () => {
  await assert.rejects(withFiles({ "a.txt": " \n" }), /it has no text/);
});
