/* The benchmark in the page. */

import { bench } from "./embgemma/bench.js";
import { EmbeddingModel } from "./embgemma/index.js";
import { prepareOffline } from "./offline.js";
import { byId, element, showProblem, showStatus } from "./view.js";

const IN_THE_BOX = "models/embgemma-tiny.safetensors";
const MOST_THREADS = 64; // that the package takes

/** Loads the model with the chosen threads, and shows how many that are where it is left open. */
async function load(source) {
  const [choice] = byId("threads").selectedOptions;
  const model = await EmbeddingModel.load(source, { threads: Number(choice.value) || undefined });
  if (choice.value === "0") choice.textContent = `as usual: ${model.threads}`;
  return model;
}

/** Memory in bytes by name; that of the whole page is known in isolated pages of Chromium alone. */
async function memory(model) {
  const found = {};
  if (performance.memory) found["JS heap"] = performance.memory.usedJSHeapSize;
  if (model) found.engine = await model.memoryBytes();
  return found;
}

async function measure() {
  const file = byId("file").files[0];
  const lines = [navigator.userAgent.replace(/^Mozilla\/5.0 /, "browser  ")];
  const print = (line) => {
    lines.push(line);
    byId("output").textContent = lines.join("\n");
  };
  await bench({
    load: () => load(file ?? IN_THE_BOX),
    memory,
    name: file?.name ?? "embgemma-tiny.safetensors",
    seconds: Number(byId("seconds").value),
    print,
  });
}

async function run(event) {
  event.preventDefault();
  byId("run").disabled = true;
  byId("copy").hidden = true;
  byId("output").textContent = "";
  showProblem("");
  showStatus("Measuring: leave this page in front.");
  try {
    await measure();
    showStatus("Done.");
    byId("copy").hidden = false;
  } catch (error) {
    showProblem(error.message);
    showStatus("");
  } finally {
    byId("run").disabled = false;
  }
}

if (!(await prepareOffline())) {
  const most = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, MOST_THREADS) : 1;
  for (let threads = 1; threads <= most; threads++) {
    byId("threads").append(element("option", { value: threads, textContent: threads }));
  }
  byId("form").addEventListener("submit", run);
  byId("copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(byId("output").textContent);
    showStatus("Copied.");
  });
}
