// The runtimes that are compared, in node and in pages: token ids of one text in, its unit vector out.

const OPEN = { embgemma, "onnxruntime-web": onnxruntime, "transformers.js": transformers };
const CACHE = "embgemma-bench";
const inPage = typeof caches !== "undefined" && typeof document !== "undefined";

let encode = null;

/** Opens a runtime. Returns the seconds from the import of its library to a model that is ready.
 *
 * library: the module's URL; model: the path or URL of its file, or for transformers.js a folder; wasm: for
 * transformers.js, the URL of onnxruntime-web's folder */
export async function load({ runtime, ...options }) {
  const begin = performance.now();
  encode = await OPEN[runtime](options);
  return (performance.now() - begin) / 1e3;
}

/** Seconds of each of so many calls. */
export async function timeCalls(ids, calls) {
  const seconds = [];
  for (let i = 0; i < calls; i++) {
    const begin = performance.now();
    await encode(ids);
    seconds.push((performance.now() - begin) / 1e3);
  }
  return seconds;
}

export async function vectorOf(ids) {
  return [...(await encode(ids))];
}

async function embgemma({ library, model, threads }) {
  const { EmbeddingModel } = await import(library);
  const opened = await EmbeddingModel.load(model, { threads });
  return async (ids) => (await opened.embedIds([ids]))[0];
}

async function onnxruntime({ library, model, threads }) {
  const ort = await import(library);
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await whole(model), { executionProviders: ["wasm"] });
  return async (ids) => {
    const output = await session.run(inputs(ort.Tensor, ids));
    return output.sentence_embedding.data;
  };
}

/** The bytes of a file; in a page, those of its cache at the second time. */
async function whole(model) {
  if (!inPage) {
    const { readFile } = await import("node:fs/promises");
    return readFile(model);
  }
  const cache = await caches.open(CACHE);
  if (!(await cache.match(model))) await cache.add(model);
  const kept = await cache.match(model);
  return new Uint8Array(await kept.arrayBuffer());
}

async function transformers({ library, model, threads, wasm }) {
  if (!inPage) {
    // It would take its native runtime in node. This is its way to be given another.
    globalThis[Symbol.for("onnxruntime")] = await import(`${wasm}/ort.node.min.mjs`);
  }
  const { AutoModel, Tensor, env } = await import(library);
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.useWasmCache = inPage; // node has no such cache
  env.localModelPath = model.slice(0, model.lastIndexOf("/") + 1);
  env.backends.onnx.wasm.numThreads = threads;
  // Its own files, not those of a host; of several kinds it takes that one in pages.
  const name = `${wasm}/ort-wasm-simd-threaded${inPage ? ".asyncify" : ""}`;
  env.backends.onnx.wasm.wasmPaths = { mjs: `${name}.mjs`, wasm: `${name}.wasm` };
  const folder = model.slice(model.lastIndexOf("/") + 1);
  const opened = await AutoModel.from_pretrained(folder, {
    dtype: "fp32", // which is the name of the file alone
    device: inPage ? "wasm" : "auto", // "wasm" is no device in node
    session_options: { executionProviders: ["wasm"] },
  });
  return async (ids) => {
    const output = await opened(inputs(Tensor, ids));
    return output.sentence_embedding.data;
  };
}

function inputs(Tensor, ids) {
  const shape = [1, ids.length];
  return {
    input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), shape),
    attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), shape),
  };
}
