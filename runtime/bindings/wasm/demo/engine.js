/* The model, as the page uses it. */

import { EmbeddingModel } from "./embgemma/index.js";

/** Loads a model.
 *
 * @param source a URL, or a File that was chosen
 * @param onProgress called with the bytes that are loaded and those of the file, which are 0 as long as they are unknown
 */
export async function openModel(source, onProgress) {
  const begin = performance.now();
  const model = await EmbeddingModel.load(source, {
    onProgress: ({ loaded, total }) => onProgress(loaded, total ?? 0),
  });
  return {
    name: typeof source === "string" ? source.split("/").pop() : source.name,
    loadSeconds: (performance.now() - begin) / 1e3,
    dim: model.dim,
    threads: model.threads,
    isa: model.isa,
    fingerprint: await model.fingerprint(),
    /** Vectors of passages, end to end, and how many tokens these have. */
    async embed(texts) {
      const vectors = new Float32Array(texts.length * model.dim);
      (await model.embedDocuments(texts)).forEach((vector, i) => vectors.set(vector, i * model.dim));
      const ids = await Promise.all(texts.map((text) => model.tokenize(text, { promptName: "document" })));
      return { vectors, tokens: ids.reduce((sum, some) => sum + some.length, 0) };
    },
    embedQuery: (text) => model.embedQuery(text),
    memoryBytes: () => model.memoryBytes(),
    close: () => model.close(),
  };
}
