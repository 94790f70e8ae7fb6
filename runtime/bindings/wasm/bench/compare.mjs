// Measures embgemma beside onnxruntime-web and transformers.js, in node and in Chromium, each in turn with the others.

import { rm } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { serve } from "./chromium.mjs";
import { NodePlace, PagePlace, peakMemory, processorSeconds } from "./places.mjs";
import { report } from "./report.mjs";
import { makeFolder, variantsOf } from "./variants.mjs";

const USAGE = `usage: compare.mjs --package FOLDER --model FILE [--bundle FOLDER … --modules FOLDER] [option …]

  --package FOLDER   the npm package of embgemma
  --model FILE       the model file that it takes, such as one of int4
  --bundle FOLDER    what \`embgemma export-onnx --bundle\` made, for the others; named by its format
  --modules FOLDER   node_modules with onnxruntime-web and @huggingface/transformers
  --world NAME       node or chromium (default: both)
  --threads N        one or several (default: 1 and 2)
  --lengths N,N,…    tokens (default: 8,32,128,256,512,2048)
  --seconds S        for each world and number of threads (default: 120); calls of more than a tenth are left out
  --loads N          loads from caches, whose median counts (default: 3)
  --processor        processor time of all threads in place of time: for a machine that has other work
`;

const OPTIONS = {
  package: { type: "string" },
  model: { type: "string" },
  bundle: { type: "string", multiple: true, default: [] },
  modules: { type: "string" },
  world: { type: "string", multiple: true, default: ["node", "chromium"] },
  threads: { type: "string", multiple: true, default: ["1", "2"] },
  lengths: { type: "string", default: "8,32,128,256,512,2048" },
  seconds: { type: "string", default: "120" },
  loads: { type: "string", default: "3" },
  processor: { type: "boolean", default: false },
};

const MEMORY_TOKENS = 256; // of the text after which memory is read
const COSINE_TOKENS = 32; // of the text whose vectors are compared
const LONGEST_SHARE = 0.1; // of the seconds
const PAUSE = 40; // milliseconds before each turn: threads may spin for a while after a call
const VISIT_SECONDS = 0.03; // shorter calls are repeated within a turn, so that switching costs little
const MOST_CALLS = 8; // in a turn
const MIN_ROUNDS = 3;
const MOST_ROUNDS = 50;

const progress = (text) => process.stderr.write(`${text}\n`);
const pause = () => new Promise((done) => setTimeout(done, PAUSE));

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** Token ids by length, for all runtimes alike. */
async function makeIds(folder, model, lengths) {
  const { EmbeddingModel } = await import(pathToFileURL(resolve(folder, "index.js")));
  const { idsOfLength } = await import(pathToFileURL(resolve(folder, "bench.js")));
  const opened = await EmbeddingModel.load(model, { threads: 1 });
  const most = opened.maxTokens;
  if (Math.max(...lengths) > most) throw new Error(`--lengths has ${Math.max(...lengths)}, but the model takes ${most} tokens`);
  const [memory, cosine] = [MEMORY_TOKENS, COSINE_TOKENS].map((tokens) => Math.min(tokens, most));
  const ids = {};
  for (const length of [...lengths, memory, cosine]) ids[length] = [...(await idsOfLength(opened, length))];
  await opened.close();
  return { ...ids, memory: ids[memory], cosine: ids[cosine] };
}

/** Opens a runtime in a place of its own, several times: the later loads are from caches. */
async function open(variant, place, { threads, ids, count }) {
  const options = { ...variant.options, runtime: variant.runtime, threads };
  await place.ask("load", options);
  const loads = [];
  for (let i = 0; i < count; i++) {
    await place.again();
    loads.push(await place.ask("load", options));
  }
  await place.ask("timeCalls", ids.memory, 1);
  const memory = await peakMemory(await place.processes());
  return { ...variant, place, load: median(loads), memory, vector: await place.ask("vectorOf", ids.cosine) };
}

/** Seconds of each of so many calls, or the mean of their processor time. */
async function timeCalls(place, ids, calls, processor) {
  if (!processor) return place.ask("timeCalls", ids, calls);
  const processes = await place.processes();
  const before = await processorSeconds(processes);
  await place.ask("timeCalls", ids, calls);
  return [((await processorSeconds(processes)) - before) / calls];
}

/** Times one length; gives each runtime its median, or none where its calls would be too long. */
async function timeInTurn(opened, ids, { seconds, longest, processor }) {
  const taking = [];
  for (const one of opened) {
    const before = one.times.at(-1);
    one.times.push({ tokens: ids.length, seconds: null });
    if (before?.seconds === null || (before && (before.seconds * ids.length) / before.tokens > longest)) continue;
    const [expected] = (await one.place.ask("timeCalls", ids, 1)).slice(-1);
    taking.push({ one, samples: [], calls: Math.min(MOST_CALLS, Math.max(1, Math.round(VISIT_SECONDS / expected))) });
  }
  const end = performance.now() + 1e3 * seconds;
  for (let round = 0; round < MOST_ROUNDS && (round < MIN_ROUNDS || performance.now() < end); round++) {
    for (const { one, samples, calls } of taking) {
      await pause();
      samples.push(...(await timeCalls(one.place, ids, calls, processor)));
    }
  }
  for (const { one, samples } of taking) one.times.at(-1).seconds = median(samples);
}

async function compareIn(world, choices) {
  const { threads, lengths, seconds, processor, ids, bundles, folder, url, format } = choices;
  const root = world === "node" ? folder : url;
  const opened = [];
  try {
    for (const variant of await variantsOf({ folder, root, bundles, format })) {
      progress(`${world}, ${threads} threads: loading ${variant.runtime} ${variant.format}`);
      const place = await (world === "node" ? NodePlace.open() : PagePlace.open(`${url}/page.html`));
      try {
        opened.push({ ...(await open(variant, place, choices)), times: [] });
      } catch (error) {
        progress(`${variant.runtime} ${variant.format} is left out: ${error.message.split("\n")[0]}`);
        await place.close();
      }
    }
    for (const length of lengths) {
      progress(`${world}, ${threads} threads: ${length} tokens`);
      const limits = { seconds: seconds / lengths.length, longest: seconds * LONGEST_SHARE, processor };
      await timeInTurn(opened, ids[length], limits);
    }
  } finally {
    for (const { place } of opened) await place.close();
  }
  return { world, threads, processor, measured: opened };
}

async function main() {
  const { values } = parseArgs({ options: OPTIONS });
  if (!values.package || !values.model || (values.bundle.length > 0 && !values.modules)) {
    process.stderr.write(USAGE);
    return 2;
  }
  const lengths = values.lengths.split(",").map(Number);
  if (!lengths.every((length) => Number.isInteger(length) && length > 1)) {
    throw new Error(`--lengths is ${values.lengths}; give whole numbers above 1, such as 8,32,128`);
  }
  const ids = await makeIds(values.package, values.model, lengths);
  const folder = await makeFolder({ ...values, bundles: values.bundle });
  const site = await serve(folder);
  try {
    const format = /\b(int8|int4|balanced|mixed|float32)\b/.exec(values.model)?.[0] ?? "";
    const { bundle: bundles, processor } = values;
    const [seconds, count] = [values.seconds, values.loads].map(Number);
    const shared = { lengths, ids, folder, format, bundles, processor, seconds, count };
    for (const world of values.world) {
      for (const threads of values.threads.map(Number)) {
        const found = await compareIn(world, { ...shared, threads, url: site.url.replace(/\/$/, "") });
        process.stdout.write(report(found, lengths));
      }
    }
  } finally {
    site.close();
    await rm(folder, { recursive: true });
  }
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  progress(error.message);
  process.exitCode = 1;
}
