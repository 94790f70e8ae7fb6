// Workers of browsers, Deno and Bun, and those of node, behind one interface.

/** Its Workers have no global name. */
export const inNode = typeof Worker === "undefined" && typeof process !== "undefined";
const threads = inNode ? await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:worker_threads") : null;

/** Has post(message, transfer) and end(); `onMessage` gets what it posts, `onFailure` an Error if it cannot start, or if
 * it ends before end() is called. `make` must call `new Worker(new URL(…), …)` itself with the name: bundlers look for
 * those words; execArgv: [] keeps node's own options from it, some of which, such as --input-type, no Worker takes. */
export function startWorker(make, onMessage, onFailure) {
  const name = `embgemma-${crypto.randomUUID?.() ?? Math.random()}`;
  const worker = make(inNode ? threads.Worker : Worker, name);
  const watching = new AbortController();
  const gone = (how) => watching.signal.aborted || onFailure(new Error(`a Worker was ended from outside${how}`));
  const failed = (event) => onFailure(new Error(event.message || "a Worker failed to start"));
  if (inNode) {
    worker.on("message", onMessage);
    worker.on("error", failed);
    worker.on("exit", (code) => gone(` (exit code ${code})`));
  } else {
    let watched = false;
    worker.onmessage = ({ data }) => {
      if (!watched) { // it holds its lock by now
        watched = true;
        locks?.request(name, { signal: watching.signal }, () => gone("")).catch(() => {}); // end() withdraws it
      }
      onMessage(data);
    };
    worker.onerror = failed;
    worker.onmessageerror = () => onFailure(new Error("a message to a Worker was lost"));
  }
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    end: () => {
      watching.abort();
      return worker.terminate();
    },
    /** In node, keeps the process running only while a call is in progress. */
    keepRunning: (needed) => inNode && (needed ? worker.ref() : worker.unref()),
  };
}

const parent = threads?.parentPort ?? globalThis;

// A browser that ends a Worker, for its memory or by the user's hand, tells nobody, but frees the Worker's locks. A lock
// of its name is held by each for as long as it lives. Pages without HTTPS have no locks; they have no threads either.
const locks = globalThis.navigator?.locks;

/** In a Worker: calls back with each message of the one that made it. */
export function listen(onMessage) {
  if (inNode) {
    parent.on("message", onMessage);
    return;
  }
  const held = new Promise((resolve) => {
    const forever = () => resolve() ?? new Promise(() => {});
    locks ? locks.request(globalThis.name, forever).catch(resolve) : resolve();
  });
  parent.onmessage = ({ data }) => held.then(() => onMessage(data));
}

export function postBack(message, transfer) {
  parent.postMessage(message, transfer);
}
