/* The files that are searched: their passages and vectors. */

import { passages } from "./passages.js";

const BATCH_SECONDS = 0.15; // of embedding at a time: a query waits no longer
const MOST_BATCH = 64; // passages

export class Library {
  /** @param store a Store, or what has its methods. */
  constructor(store) {
    this.store = store;
    this.files = new Map(); // name -> record of the store
    this.tokens = 0; // embedded since the page was opened, and the seconds that this took
    this.seconds = 0;
  }

  async open() {
    for (const file of await this.store.all()) this.files.set(file.name, file);
  }

  /** Takes a file in, in place of one of the same name; its passages are embedded by `embed`. */
  async add(name, text) {
    const found = passages(text);
    if (found.length === 0) throw new Error("it has no text");
    const before = this.files.get(name);
    if (before && JSON.stringify(before.passages) === JSON.stringify(found)) return;
    await this.#keep({ name, passages: found, vectors: new Float32Array(0), fingerprint: "" });
  }

  async remove(name) {
    this.files.delete(name);
    await this.store.delete(name);
  }

  /** Files that have no vectors of this model. */
  waiting(fingerprint) {
    return [...this.files.values()].filter((file) => file.fingerprint !== fingerprint);
  }

  countPassages(files = [...this.files.values()]) {
    return files.reduce((count, file) => count + file.passages.length, 0);
  }

  /** Embeds the files that have no vectors of this model, also those that are added meanwhile.
   *
   * @param embedder { fingerprint, dim, embed(texts) -> { vectors: Float32Array (texts × dim), tokens } }
   * @param onProgress called with the number of passages that are done and that are to be done, and the file's name
   * @param signal an AbortSignal, which ends the work after the current batch
   */
  async embed(embedder, onProgress, signal) {
    let done = 0;
    for (let file; (file = this.waiting(embedder.fingerprint)[0]) && !signal.aborted; ) {
      const begin = done;
      const vectors = await this.#vectors(embedder, file, signal, (count) => {
        done = begin + count;
        onProgress(done, begin + this.countPassages(this.waiting(embedder.fingerprint)), file.name);
      });
      // It may have been removed or replaced meanwhile.
      if (vectors && this.files.get(file.name) === file) {
        await this.#keep({ ...file, vectors, fingerprint: embedder.fingerprint });
      }
    }
  }

  async #vectors(embedder, file, signal, onProgress) {
    const vectors = new Float32Array(file.passages.length * embedder.dim);
    let size = 1;
    for (let begin = 0; begin < file.passages.length; ) {
      if (signal.aborted || this.files.get(file.name) !== file) return null;
      const texts = file.passages.slice(begin, begin + size).map((passage) => passage.text);
      const start = performance.now();
      const batch = await embedder.embed(texts);
      const seconds = (performance.now() - start) / 1e3;
      vectors.set(batch.vectors, begin * embedder.dim);
      begin += texts.length;
      this.tokens += batch.tokens;
      this.seconds += seconds;
      size = Math.min(MOST_BATCH, Math.max(1, Math.floor((texts.length * BATCH_SECONDS) / seconds)));
      onProgress(begin);
    }
    return vectors;
  }

  /** The passages that are nearest to a query's unit vector, best first, with their cosines. */
  search(query, fingerprint, count) {
    const best = []; // of all files, best first
    for (const file of this.files.values()) {
      if (file.fingerprint !== fingerprint) continue;
      for (let i = 0; i < file.passages.length; i++) {
        const score = dot(query, file.vectors, i * query.length);
        if (best.length === count && score <= best[count - 1].score) continue;
        const place = best.findIndex((other) => other.score < score);
        best.splice(place < 0 ? best.length : place, 0, { file: file.name, score, ...file.passages[i] });
        best.length = Math.min(best.length, count);
      }
    }
    return best;
  }

  async #keep(file) {
    this.files.set(file.name, file);
    await this.store.put(file);
  }
}

function dot(vector, vectors, offset) {
  let sum = 0;
  for (let i = 0; i < vector.length; i++) sum += vector[i] * vectors[offset + i];
  return sum;
}
