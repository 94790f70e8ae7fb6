// The engine: its module, its memory, and calls of embgemma.h with JavaScript's values.

import { EmbgemmaError } from "./errors.js";
import { inNode } from "./workers.js";

const PAGE = 65536;
const MOST_PAGES = [65535, 32768, 16384]; // about 4, 2 and 1 GiB: some phones refuse to set aside more
const FIRST_PAGES = 64;
const STACK_BYTES = 1 << 20; // of a helper: its largest frames are tiles of sums, 64 KB
const ALIGNMENT = 64;

// Modules of one function each: one with an instruction of SIMD128, one with one of relaxed SIMD.
const HEADER = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10];
const SIMD = Uint8Array.of(...HEADER, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);
const RELAXED = Uint8Array.of(...HEADER, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11);

const ERRORS = { 1: "argument", 2: "model", 3: "memory", 4: "unsupported", 5: "system" };

/** One of the two modules. */
async function compile(relaxed) {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
    throw new EmbgemmaError(
      "unsupported",
      "this browser has no WebAssembly with SIMD; use Chrome 91, Firefox 89, Safari 16.4 or newer",
    );
  }
  const url = relaxed ? new URL("./embgemma-relaxed.wasm", import.meta.url) : new URL("./embgemma.wasm", import.meta.url);
  if (inNode) {
    const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:fs/promises");
    return WebAssembly.compile(await readFile(url));
  }
  const response = await fetch(url);
  if (!response.ok) {
    throw new EmbgemmaError("network", `${url}: the server answers ${response.status}; serve the whole package`);
  }
  return WebAssembly.compile(await response.arrayBuffer());
}

/** Memory that helpers can share. */
export function newMemory() {
  for (const maximum of MOST_PAGES) {
    try {
      return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared: true });
    } catch {
      // A smaller one may do.
    }
  }
  throw new EmbgemmaError("memory", "this browser refuses 1 GB of addresses; close other pages or restart it");
}

/** An instance over the memory. Only the first one may be used to make others' stacks. */
export async function instantiate(module, memory, cores = 1) {
  const refused = () => 52; // ENOSYS: there are no files and no environment
  const wasi = new Proxy({}, { get: (_, name) => (name === "environ_sizes_get" ? noEnvironment(memory) : refused) });
  const embgemma = { now: () => performance.now() / 1000, cores: () => cores };
  const imports = { env: { memory }, embgemma, wasi_snapshot_preview1: {} };
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    if (from === "wasi_snapshot_preview1") {
      imports[from][name] = wasi[name];
    }
  }
  return (await WebAssembly.instantiate(module, imports)).exports;
}

function noEnvironment(memory) {
  return (count, bytes) => {
    new DataView(memory.buffer).setUint32(count, 0, true);
    new DataView(memory.buffer).setUint32(bytes, 0, true);
    return 0;
  };
}

const noMemory = (bytes) =>
  new EmbgemmaError("memory", `no memory for ${Math.ceil(bytes / 1e6)} MB; close other pages, or take a smaller model file`);

/** One instance, with its memory. */
export class Engine {
  constructor(module, memory, exports) {
    Object.assign(this, { module, memory, exports });
  }

  /** isa: "wasm", "wasmrelaxed", or undefined for the better one that runs here. */
  static async create(isa, cores) {
    const relaxed = isa !== "wasm" && WebAssembly.validate?.(RELAXED);
    const module = await compile(relaxed);
    const memory = newMemory();
    const exports = await instantiate(module, memory, cores);
    exports._initialize?.();
    if (relaxed && exports.eg_isa_supported(0) === 0) {
      return Engine.create("wasm", cores); // its multiply-add rounds twice
    }
    return new Engine(module, memory, exports);
  }

  /** A new view each time: the memory's buffer changes when it grows. */
  bytes(address, count) {
    return new Uint8Array(this.memory.buffer, address, count);
  }

  allocate(bytes) {
    const address = this.exports.eg_aligned_new(ALIGNMENT, Math.max(1, Math.ceil(bytes / ALIGNMENT)) * ALIGNMENT) >>> 0;
    if (address === 0) {
      throw noMemory(bytes);
    }
    return address;
  }

  /** Memory for a model file, to the byte, which stays until the Worker ends: an allocator would round it up. */
  setAside(bytes) {
    try {
      return this.memory.grow(Math.ceil(bytes / PAGE)) * PAGE;
    } catch {
      throw noMemory(bytes);
    }
  }

  free(address) {
    this.exports.eg_aligned_free(address);
  }

  /** use(address of a copy, count of bytes) of some memory that is freed after it. */
  withBytes(source, use) {
    const address = this.allocate(source.byteLength + 1);
    try {
      const copy = this.bytes(address, source.byteLength + 1);
      copy.set(new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
      copy[source.byteLength] = 0;
      return use(address, source.byteLength);
    } finally {
      this.free(address);
    }
  }

  /** The same of a string; null stays NULL. */
  withText(text, use) {
    return text === null ? use(0, 0) : this.withBytes(new TextEncoder().encode(text), use);
  }

  /** The string at an address, up to its 0; null for NULL. */
  text(address) {
    if (address === 0) {
      return null;
    }
    const rest = new Uint8Array(this.memory.buffer, address >>> 0);
    return new TextDecoder().decode(rest.slice(0, rest.indexOf(0)));
  }

  check(status) {
    if (status !== 0) {
      throw new EmbgemmaError(ERRORS[status] ?? "system", this.text(this.exports.eg_error_message()));
    }
  }

  /** What a function stores behind its last argument, a pointer to a pointer. */
  made(create) {
    return this.withBytes(new Uint8Array(4), (place) => {
      this.check(create(place));
      return new DataView(this.memory.buffer).getUint32(place, true);
    });
  }

  /** Places for a helper to begin: its stack's end and its thread-local memory. */
  helperMemory() {
    const tls = this.allocate(this.exports.eg_wasm_tls_bytes());
    return { stack: this.allocate(STACK_BYTES) + STACK_BYTES, tls };
  }

  get totalBytes() {
    return this.memory.buffer.byteLength;
  }
}
