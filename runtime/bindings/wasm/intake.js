// Takes the bytes of a model file as they come, straight into the engine's memory.

import { EmbgemmaError } from "./errors.js";

const MOST_HEADER = 100_000_000; // bytes: the limit of the safetensors format
const LENGTH_BYTES = 8;

const notAModel = (found) =>
  new EmbgemmaError("model", `this is not a model file: ${found}; make one with \`embgemma convert\``);

export class Intake {
  #engine;
  #beginning = new Uint8Array(0); // until the size of the file is known
  #report;
  #room = 0; // bytes at the address

  constructor(engine, report) {
    this.#engine = engine;
    this.#report = report;
    this.total = undefined; // bytes of the whole file, which its header tells
    this.address = 0;
    this.restart();
  }

  /** Where the next bytes go, at most `most` of them: a view to read into, followed by filled(). Null before the size
   * is known; then add() them. */
  room(most) {
    if (this.total === undefined) {
      return null;
    }
    return this.#engine.bytes(this.address + this.loaded, Math.min(most, this.total - this.loaded));
  }

  filled(count) {
    this.loaded += count;
    this.#report(this.loaded, this.total);
  }

  add(bytes) {
    if (this.total === undefined) {
      const joined = new Uint8Array(this.#beginning.length + bytes.length);
      joined.set(this.#beginning);
      joined.set(bytes, this.#beginning.length);
      this.#beginning = joined;
      this.total = sizeOf(joined);
      if (this.total === undefined) {
        this.#report(joined.length, undefined);
        return;
      }
      if (this.#room < this.total) {
        this.address = this.#engine.setAside(this.total);
        this.#room = this.total;
      }
      bytes = joined;
      this.#beginning = null;
    }
    if (this.loaded + bytes.length > this.total) {
      throw new EmbgemmaError("model", `the file has more than the ${this.total} bytes that it states: get it again`);
    }
    this.room(bytes.length).set(bytes);
    this.filled(bytes.length);
  }

  /** Bytes that have come, stored or not. */
  get received() {
    return this.total === undefined ? this.#beginning.length : this.loaded;
  }

  /** Forgets all that has come. */
  restart() {
    this.#beginning = new Uint8Array(0);
    this.total = undefined;
    this.loaded = 0;
    this.copied = false; // some bytes come from a copy
    this.parts = 0; // answers of a server that bytes come from
    this.validator = undefined; // what tells the server's file from another one
  }

  finish() {
    if (this.total === undefined) {
      throw notAModel(`it ends after ${this.received} bytes`);
    }
    if (this.loaded < this.total) {
      throw new EmbgemmaError("model", `the file is cut: it has ${this.loaded} of ${this.total} bytes; get it again`);
    }
  }
}

/** The size that the beginning of a file tells; undefined if there is too little of it. A file is the length of its
 * header, the header, which is JSON, and data. */
function sizeOf(beginning) {
  if (beginning.length < LENGTH_BYTES) {
    return undefined;
  }
  const view = new DataView(beginning.buffer, beginning.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  if (length > MOST_HEADER) {
    throw notAModel("it does not begin as a safetensors file does");
  }
  if (beginning.length < LENGTH_BYTES + length) {
    return undefined;
  }
  let ends;
  try {
    const { __metadata__: metadata, ...tensors } = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(beginning.subarray(LENGTH_BYTES, LENGTH_BYTES + length)),
    );
    if (metadata?.format !== "embgemma") {
      throw new Error("it is of another format");
    }
    ends = Object.values(tensors).map((tensor) => tensor.data_offsets[1]);
  } catch (error) {
    throw notAModel(`its header is damaged, or not of this format (${error.message})`);
  }
  const total = LENGTH_BYTES + length + Math.max(0, ...ends);
  if (!Number.isSafeInteger(total)) {
    throw notAModel("its header is damaged");
  }
  return total;
}

/** The same of a blob. */
export async function sizeOfBlob(blob) {
  const length = new DataView(await blob.slice(0, LENGTH_BYTES).arrayBuffer()).getBigUint64(0, true);
  const most = Math.min(Number(length), MOST_HEADER);
  return sizeOf(new Uint8Array(await blob.slice(0, LENGTH_BYTES + most).arrayBuffer()));
}
