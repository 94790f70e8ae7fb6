#!/usr/bin/env node
// The command `embgemma`: `npx embgemma bench MODEL`.

import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import { bench } from "./bench.js";
import { EmbeddingModel } from "./index.js";

const USAGE = `usage: embgemma bench MODEL [--threads N] [--isa NAME] [--seconds S]

Measures a model file in node: time by length of a text, load, memory.
  --threads N   1 to 64 (default: as many as there are fast cores)
  --isa NAME    wasmrelaxed or wasm (default: the best that runs here)
  --seconds S   that all lengths take together, about (default 20)
`;

const OPTIONS = { threads: { type: "string" }, isa: { type: "string" }, seconds: { type: "string" }, help: { type: "boolean" } };

/** A positive number of an option, or undefined where it is not given. */
function number(values, name) {
  if (values[name] === undefined) return undefined;
  const found = Number(values[name]);
  if (!(found > 0)) throw new TypeError(`--${name} is ${values[name]}; give a number above 0`);
  return found;
}

/** Memory of this process, in bytes; what is private to it is known on Linux alone. */
async function processMemory() {
  const resident = process.memoryUsage.rss();
  try {
    const lines = await readFile("/proc/self/smaps_rollup", "utf8");
    const kib = [...lines.matchAll(/^Private_\w+: +(\d+) kB$/gm)].map(([, amount]) => Number(amount));
    return { resident, private: 1024 * kib.reduce((sum, one) => sum + one, 0) };
  } catch {
    return { resident };
  }
}

/** Loads a model file; errors name it. */
async function load(model, options) {
  try {
    return await EmbeddingModel.load(model, options);
  } catch (error) {
    if (!error.message.startsWith(model)) error.message = `${model}: ${error.message}`;
    throw error;
  }
}

async function main() {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  const [command, model, ...rest] = positionals;
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (command !== "bench" || model === undefined || rest.length > 0) {
    process.stderr.write(USAGE);
    return 2;
  }
  const options = { threads: number(values, "threads"), isa: values.isa };
  await bench({
    load: () => load(model, options),
    memory: processMemory,
    name: model,
    seconds: number(values, "seconds"),
    print: (line) => process.stdout.write(`${line}\n`),
  });
  return 0;
}

process.stdout.on("error", (error) => process.exit(error.code === "EPIPE" ? 0 : 1)); // who reads it has enough

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`embgemma: ${error.message}\n`);
  process.exitCode = error instanceof TypeError ? 2 : 1;
}
