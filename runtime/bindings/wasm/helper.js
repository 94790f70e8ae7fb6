// A helper thread: an instance over the engine's memory that waits for work until its Worker is ended.

import { instantiate } from "./engine.js";
import { toMessage } from "./errors.js";
import { listen, postBack } from "./workers.js";

listen(async ({ module, memory, index, failures, stack, tls }) => {
  let ready = false;
  try {
    const exports = await instantiate(module, memory);
    exports.eg_wasm_enter(stack, tls);
    ready = true;
    postBack({ ready });
    exports.eg_wasm_serve(index);
  } catch (error) {
    if (ready) {
      new BroadcastChannel(failures).postMessage(toMessage(error));
    } else {
      postBack({ error: toMessage(error) });
    }
  }
});
