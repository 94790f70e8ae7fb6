// How the demo cuts texts.

import assert from "node:assert/strict";
import { test } from "node:test";

import { passages } from "../../../../runtime/bindings/wasm/demo/passages.js";

const MOST_CHARACTERS = 4 * 128; // of ASCII; others count as four

test("paragraphs are passages, with their lines", () => {
  const paragraph = "One sentence of some words, to fill the passage. And another one, which is longer than the first.\n";
  const text = `\n\n${paragraph}Its last line, with some more words to fill it up.\n\n${paragraph}`;
  const found = passages(text);
  assert.deepEqual(
    found.map(({ line, lastLine }) => [line, lastLine]),
    [
      [3, 4],
      [6, 6],
    ],
  );
  assert.equal(found[1].text, paragraph.trim());
});

test("a passage is where its lines say", () => {
  for (const lineBreak of ["\n", "\r\n"]) {
    const lines = Array.from({ length: 300 }, (_, i) => (i % 7 === 3 ? "" : `- point ${i}, said in a few words. So it is.`));
    for (const { text, line, lastLine } of passages(lines.join(lineBreak))) {
      assert.equal(text, lines.slice(line - 1, lastLine).join(lineBreak).trim());
    }
  }
});

const LONG = {
  "words without a full stop": "word ".repeat(2000),
  "one word": "x".repeat(5_000_000),
  "ideographs without a space": "山".repeat(3000),
  "characters of two halves": `x${"😀".repeat(3000)}`,
  "a table": "| a | b |\n".repeat(500),
  "a sentence of every kind": "Short. ".repeat(500) + "この文は短い。".repeat(200),
};

for (const [name, text] of Object.entries(LONG)) {
  test(`what is too long is cut, and nothing is lost: ${name}`, () => {
    const found = passages(text);
    const withoutSpace = (all) => all.replace(/\s/g, "");
    assert.equal(withoutSpace(found.map((one) => one.text).join("")), withoutSpace(text));
    for (const one of found) {
      assert.ok(one.text.length <= MOST_CHARACTERS && one.text.isWellFormed(), one.text);
    }
  });
}

test("what has no text has no passage", () => {
  for (const text of ["", " ", "\n\n \t\n"]) assert.deepEqual(passages(text), []);
});

test("looks at each character a few times, however many sentences there are", (t) => {
  const { charCodeAt } = String.prototype;
  let looks = 0;
  String.prototype.charCodeAt = function (index) {
    looks++;
    return charCodeAt.call(this, index);
  };
  t.after(() => (String.prototype.charCodeAt = charCodeAt));
  for (const unit of ["A. ", "。", "- a\n", "x.\n", "word ".repeat(200)]) {
    const text = unit.repeat(60_000 / unit.length);
    looks = 0;
    passages(text);
    assert.ok(looks <= 3 * text.length, `${unit}: ${looks} looks at ${text.length} characters`);
  }
});
