// The comparison with other runtimes: ours alone in both worlds, and the table of made-up numbers.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { report } from "../../../../runtime/bindings/wasm/bench/report.mjs";
import { MODEL, PACKAGE, withBrowser } from "./needs.mjs";

const COMPARE = fileURLToPath(new URL("../../../../runtime/bindings/wasm/bench/compare.mjs", import.meta.url));

const measured = (runtime, seconds, rest) => ({
  runtime,
  format: "int8",
  times: [8, 2048].map((tokens, i) => ({ tokens, seconds: seconds[i] })),
  load: 1,
  memory: 100e6,
  code: 300e3,
  vector: [1, 0],
  ...rest,
});

test("a ratio is that of the best other runtime", () => {
  const ours = measured("embgemma", [0.01, 1]);
  const one = measured("one", [0.05, null], { load: 6, memory: 150e6, code: 28e6, vector: [0.6, 0.8] });
  const two = measured("two", [0.04, 2], { load: 4, memory: 900e6, code: 14e6 });
  const text = report({ world: "node", threads: 2, measured: [ours, one, two] }, [8, 2048]);
  assert.match(text, /\*\*node, 2 threads: milliseconds by tokens\*\*/);
  assert.match(text, /\| one \| int8 \| 50\.0 \| - \| 6000 \| 150 \| 28 \| 0\.600 \|/);
  assert.match(text, /\| 8 tokens \| 4\.00 \| 3\.0 \| met \|/);
  assert.match(text, /\| 2048 tokens \| 2\.00 \| 2\.5 \| missed \|/);
  assert.match(text, /\| load from cache \| 4\.00 \| 3\.0 \| met \|/);
  assert.match(text, /\| peak memory \| 1\.50 \| 2\.0 \| missed \|/);
});

test("a length that no other runtime was measured at has no ratio", () => {
  const found = [measured("embgemma", [0.01, 1]), measured("one", [0.05, null])];
  assert.doesNotMatch(report({ world: "node", threads: 1, measured: found }, [8, 2048]), /2048 tokens \|/);
});

test("ours is measured in node and in Chromium", withBrowser, () => {
  const lengths = ["--lengths", "8,32", "--threads", "2", "--seconds", "1", "--loads", "1", "--processor"];
  const options = [COMPARE, "--package", PACKAGE, "--model", MODEL, ...lengths];
  const { status, stdout, stderr } = spawnSync(process.execPath, options, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
  for (const world of ["node", "chromium"]) {
    assert.match(stdout, new RegExp(`${world}, 2 threads: milliseconds of processor time`));
  }
  assert.equal(stdout.match(/\| embgemma \| +\| [\d.]+ \| [\d.]+ \| [\d.]+ \| \d+ \| 0\.\d \| 1\.000 \|/g)?.length, 2, stdout);
});
