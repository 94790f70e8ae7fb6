// Workers of browsers, Deno and Bun, and those of node, behind one interface.

/** Its Workers have no global name. */
export const inNode = typeof Worker === "undefined" && typeof process !== "undefined";
const threads = inNode ? await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:worker_threads") : null;

/** Has post(message, transfer) and end(); `onMessage` gets what it posts, `onFailure` an Error if it cannot start or
 * dies. `make` must call `new Worker(new URL(…), …)` itself: bundlers look for those words; execArgv: [] keeps
 * node's own options from it, some of which, such as --input-type, no Worker takes. */
export function startWorker(make, onMessage, onFailure) {
  const worker = make(inNode ? threads.Worker : Worker);
  const failed = (event) => onFailure(new Error(event.message || "a Worker failed to start"));
  if (inNode) {
    worker.on("message", onMessage);
    worker.on("error", failed);
  } else {
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = failed;
    worker.onmessageerror = () => onFailure(new Error("a message to a Worker was lost"));
  }
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    end: () => worker.terminate(),
    /** In node, keeps the process running only while a call is in progress. */
    keepRunning: (needed) => inNode && (needed ? worker.ref() : worker.unref()),
  };
}

const parent = threads?.parentPort ?? globalThis;

/** In a Worker: calls back with each message of the one that made it. */
export function listen(onMessage) {
  if (inNode) {
    parent.on("message", onMessage);
  } else {
    parent.onmessage = ({ data }) => onMessage(data);
  }
}

export function postBack(message, transfer) {
  parent.postMessage(message, transfer);
}
