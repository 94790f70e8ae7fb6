// The command of the npm package.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { MODEL, PACKAGE, withPackage } from "./needs.mjs";

const run = (...options) => spawnSync(process.execPath, [join(PACKAGE, "cli.js"), ...options], { encoding: "utf8" });

test("it measures a model", withPackage, () => {
  const { status, stdout, stderr } = run("bench", MODEL, "--threads", "1", "--isa", "wasm", "--seconds", "0.5");
  assert.equal(stderr, "");
  assert.equal(status, 0);
  assert.match(stdout, /ISA wasm, 1 threads\nload +[\d.]+ ms/);
  assert.match(stdout, /tokens +median ms +p95 ms +calls +tokens\/s\n +8 +[\d.]+ +[\d.]+ +\d+ +\d+\n/);
  assert.match(stdout, /loaded +\d+/);
});

test("it ends without a word when nobody reads on", withPackage, () => {
  const shell = '"$@" bench "$MODEL" --threads 1 --seconds 0.2 | head -n 1; echo ${PIPESTATUS[0]}';
  const program = ["bash", process.execPath, join(PACKAGE, "cli.js")];
  const done = spawnSync("bash", ["-c", shell, ...program], { encoding: "utf8", env: { ...process.env, MODEL } });
  assert.deepEqual([done.stdout.split("\n")[1], done.stderr], ["0", ""]);
});

test("it has the instruction sets that its help names", withPackage, () => {
  const names = run("--help").stdout.match(/--isa NAME +(.+) \(/)[1].split(/, | or /);
  for (const isa of names) {
    assert.match(run("bench", MODEL, "--threads", "1", "--isa", isa, "--seconds", "0.1").stdout, new RegExp(`ISA ${isa},`));
  }
});

const WRONG = {
  "no command": [[], 2, /^usage: embgemma bench MODEL/],
  "no model": [["bench"], 2, /^usage: embgemma bench MODEL/],
  "another command": [["embed", MODEL], 2, /^usage: embgemma bench MODEL/],
  "an unknown option": [["bench", MODEL, "--fast"], 2, /--fast/],
  "no number": [["bench", MODEL, "--seconds", "soon"], 2, /--seconds is soon; give a number above 0/],
  "a file that is not there": [["bench", "nowhere.safetensors"], 1, /nowhere\.safetensors/],
  "a file that is no model": [["bench", fileURLToPath(import.meta.url)], 1, /^embgemma: .*command\.test\.mjs: this is not a model file/],
};

for (const [name, [options, status, words]] of Object.entries(WRONG)) {
  test(`what is wrong is said: ${name}`, withPackage, () => {
    const done = run(...options);
    assert.deepEqual([done.status, done.stdout], [status, ""]);
    assert.match(done.stderr, words);
    assert.ok(!done.stderr.includes("    at "), done.stderr);
  });
}
