// A process of its own for one runtime: answers { call, values } of its parent.

import * as runtimes from "./runtimes.js";

process.on("message", async ({ call, values }) => {
  try {
    process.send({ result: await runtimes[call](...values) });
  } catch (error) {
    process.send({ error: String(error) });
  }
});
