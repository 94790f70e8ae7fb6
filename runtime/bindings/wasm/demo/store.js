/* The index, kept in this browser's IndexedDB, so that files need not be embedded again at the next visit.
 *
 * A record is a file: { name, passages: [{ text, line, lastLine }], vectors: Float32Array (passages × dim), fingerprint }.
 * The fingerprint names the model that made the vectors; it is "" as long as there are none. */

const DATABASE = "embgemma-demo";
const FILES = "files";

export class Store {
  /** Opens the index; one that cannot be kept (as in some private windows) lasts as long as the page. */
  static async open() {
    try {
      const opening = indexedDB.open(DATABASE, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(FILES, { keyPath: "name" });
      return new Store(await result(opening));
    } catch {
      return new Store(null);
    }
  }

  constructor(database) {
    this.database = database;
  }

  /** Whether the index is there at the next visit. */
  get lasts() {
    return this.database !== null;
  }

  async all() {
    return (await this.#ask("readonly", (files) => files.getAll())) ?? [];
  }

  async put(file) {
    await this.#ask("readwrite", (files) => files.put(file));
  }

  async delete(name) {
    await this.#ask("readwrite", (files) => files.delete(name));
  }

  /** The result of a request, or undefined: once one is refused, as where the disk is full, nothing more is kept. */
  async #ask(mode, request) {
    try {
      return this.lasts ? await result(request(this.database.transaction(FILES, mode).objectStore(FILES))) : undefined;
    } catch {
      this.database = null;
      return undefined;
    }
  }
}

function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
