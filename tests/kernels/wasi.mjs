// Runs a C test that was compiled for WebAssembly: node wasi.mjs TEST.wasm [ARGUMENT …]

import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { WASI } from "node:wasi";

const [program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...rest], env: process.env });
const module = await WebAssembly.compile(await readFile(program));
const embgemma = { now: () => performance.now() / 1000, cores: availableParallelism };
process.exitCode = wasi.start(await WebAssembly.instantiate(module, { ...wasi.getImportObject(), embgemma }));
