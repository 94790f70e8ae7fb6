/** Text embeddings by EmbeddingGemma, on the device. The engine runs in Workers, so no call blocks the page. */

/** A model file that `embgemma convert` made: where it is, or what is in it. In node, a string may also be a path. */
export type ModelSource = string | URL | ArrayBuffer | SharedArrayBuffer | Uint8Array | Blob | Response | ReadableStream<Uint8Array>;

export interface Progress {
  /** Bytes that are in memory so far. */
  loaded: number;
  /** Bytes of the whole file; undefined until its beginning was read. */
  total: number | undefined;
  /** Where the bytes come from. "cache": the copy that this browser keeps. */
  from: "network" | "cache" | "file" | "memory";
}

export interface LoadOptions {
  /** 1 … 64. By default as many as the device has fast cores, and 1 in a page that is not cross-origin isolated. */
  threads?: number;
  onProgress?: (progress: Progress) => void;
  /** Keep a downloaded file in the browser (its origin private file system), and take it from there the next time,
   * also offline. Default true; it has no effect where there is no such file system, as in node. */
  cache?: boolean;
  /** Ends the loading; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Size of all vectors, unless a call says another. Default: the model's. */
  truncateDim?: number;
  /** "wasm" or "wasmrelaxed". Default: the better one that runs here. Vectors are the same on both. */
  isa?: string;
}

export interface EmbedOptions {
  /** Size of the vectors: EmbeddingGemma was trained for 768, 512, 256 and 128. */
  truncateDim?: number;
  /** Called after each part of a long list. */
  onProgress?: (progress: { done: number; total: number }) => void;
  /** Ends the call after the part in progress. */
  signal?: AbortSignal;
}

/** Why a call failed; `message` says what was found and what to do.
 * - "argument": the call asks for what cannot be
 * - "model": the file is no model file, damaged, or of another version
 * - "memory": the device or the browser refused memory
 * - "unsupported": this browser lacks what is needed
 * - "system": a Worker failed
 * - "network": the file could not be downloaded; what has come is kept, and the next try goes on from there
 * - "closed": the model was closed */
export type ErrorCode = "argument" | "model" | "memory" | "unsupported" | "system" | "network" | "closed";

export class EmbgemmaError extends Error {
  private constructor();
  readonly code: ErrorCode;
}

export class EmbeddingModel {
  private constructor();

  /** Opens a model. Nothing is sent anywhere; the file goes straight into the engine's memory as it comes. */
  static load(source: ModelSource, options?: LoadOptions): Promise<EmbeddingModel>;

  /** Whether a whole copy of this file is kept in the browser. */
  static isCached(url: string | URL): Promise<boolean>;
  /** Removes the copy of a file, or of all files. */
  static removeCached(url?: string | URL): Promise<void>;

  /** Size of a full vector. */
  readonly dim: number;
  /** Most tokens of a text, its prompt included; longer texts are cut. */
  readonly maxTokens: number;
  /** The prompts of the model by name: "query", "document", … */
  readonly prompts: Readonly<Record<string, string>>;
  readonly threads: number;
  readonly isa: string;
  /** Of the release, such as "0.1.0". */
  readonly version: string;

  /** A vector of length 1, float32 (dim,). Half of a surrogate pair, as of a text that is cut amid a character, is taken
   * for U+FFFD, as everywhere in browsers; Python and Java refuse it. */
  embedQuery(text: string, options?: EmbedOptions): Promise<Float32Array>;
  /** One vector for each text. Texts are embedded together, which changes no bit of any vector. */
  embedDocuments(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array[]>;
  /** The same with any of the model's prompts; "" for none. */
  embed(texts: readonly string[], options?: EmbedOptions & { promptName?: string }): Promise<Float32Array[]>;
  /** The same for token ids, <bos> and <eos> included. */
  embedIds(ids: readonly ArrayLike<number>[], options?: EmbedOptions): Promise<Float32Array[]>;
  /** The token ids of one text, after a prompt; "" for none. */
  tokenize(text: string, options?: { promptName?: string }): Promise<Int32Array>;

  /** Cosines, which for these vectors are dot products: a number for two vectors, else one for each of b, or for each
   * of a and each of b. */
  similarity(a: Float32Array, b: Float32Array): number;
  similarity(a: Float32Array, b: readonly Float32Array[]): Float32Array;
  similarity(a: readonly Float32Array[], b: readonly Float32Array[]): Float32Array[];

  /** Names the vectors of a prompt and size: what an index must store to know whether its vectors are still valid.
   * Equal before the last "-": vectors that may be compared. The same as in Python and C. promptName: "document" by
   * default. */
  fingerprint(options?: { promptName?: string; truncateDim?: number }): Promise<string>;

  /** Bytes of the engine's memory: the model and what calls work in. */
  memoryBytes(): Promise<number>;
  /** Milliseconds that the last call to embed anything spent in the engine, without messages between Workers. */
  readonly lastMilliseconds: number;

  /** Ends the Workers and gives back the memory. Calls in progress are rejected. */
  close(): Promise<void>;
}
