// A helper thread: an instance over the engine's memory that waits for work until its Worker is ended.

import { instantiate } from "./engine.js";
import { EmbgemmaError, toMessage } from "./errors.js";
import { listen, postBack } from "./workers.js";

listen(async ({ id, module, memory, index, stack, tls }) => {
  let exports;
  try {
    exports = await instantiate(module, memory);
    exports.eg_wasm_enter(stack, tls);
  } catch (error) {
    postBack({ id, error: toMessage(new EmbgemmaError("system", `a thread did not start: ${error.message}; ask for fewer`)) });
    return;
  }
  postBack({ id });
  try {
    exports.eg_wasm_serve(index);
  } catch (error) {
    postBack({ error: toMessage(error), trap: true }); // whatever it is, the engine waits for this thread
  }
});
