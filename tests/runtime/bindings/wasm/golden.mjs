// What golden.c is, for the npm package: embeds the texts of a file, each by itself.
//
//     node golden.mjs MODEL_FILE TEXTS VECTORS
//
// EMBGEMMA_PACKAGE names the package's folder, EMBGEMMA_ISA the instruction set, EMBGEMMA_THREADS how many threads.

import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const { EmbeddingModel } = await import(pathToFileURL(resolve(process.env.EMBGEMMA_PACKAGE, "index.js")).href);
const [path, texts, vectors] = process.argv.slice(2);
const model = await EmbeddingModel.load(path, {
  isa: process.env.EMBGEMMA_ISA,
  threads: Number(process.env.EMBGEMMA_THREADS ?? 1),
});
const bytes = await readFile(texts);
const all = [];
for (let at = 0; at < bytes.length; ) {
  const end = bytes.indexOf("\n", at);
  const [nameBytes, textBytes] = bytes.toString("utf8", at, end).split(" ").map(Number);
  const text = end + 1 + nameBytes + 1;
  const promptName = bytes.toString("utf8", end + 1, end + 1 + nameBytes);
  all.push(...(await model.embed([bytes.toString("utf8", text, text + textBytes)], { promptName })));
  at = text + textBytes;
}
await writeFile(vectors, Buffer.concat(all.map((vector) => Buffer.from(vector.buffer))));
await model.close();
