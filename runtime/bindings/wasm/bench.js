// Measures one model as `embgemma-bench --device cpu` does, and prints the same tables: kernels/program/bench.c.

const LENGTHS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048]; // tokens
const MEMORY_TOKENS = 256; // of the text after which memory is read
const USUAL_TOKENS = 128; // of the text that the summary is about
const MIN_CALLS = 3;
const MOST_CALLS = 200;
const LONGEST_SHARE = 0.1; // of the seconds: a length whose calls take longer is left out
const ROW = [8, 11, 9, 8, 10]; // widths of columns

const TEXT =
  "On the evening of the second day the river had fallen so far that one could see the stones of the old ford, and " +
  "the men who had waited since Tuesday with their carts of salt and wool began to harness the horses again. ";

/** Token ids of a text of so many tokens, <bos> and <eos> included, the same at each run. */
export async function idsOfLength(model, tokens) {
  const ids = await model.tokenize(TEXT.repeat(Math.ceil(tokens / 20)), { promptName: "" });
  return Int32Array.of(...ids.subarray(0, tokens - 1), ids[ids.length - 1]);
}

/** Seconds of a call with the ids of one text. */
async function timeCall(model, ids) {
  const begin = performance.now();
  await model.embedIds([ids]);
  return (performance.now() - begin) / 1e3;
}

/** Quantiles of numbers. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

async function timeLength(model, tokens, seconds) {
  const ids = await idsOfLength(model, tokens);
  await timeCall(model, ids); // the first allocates
  const samples = [];
  const end = performance.now() + 1e3 * seconds;
  while (samples.length < MOST_CALLS && (samples.length < MIN_CALLS || performance.now() < end)) {
    samples.push(await timeCall(model, ids));
  }
  return { tokens, median: quantile(samples, 0.5), p95: quantile(samples, 0.95), calls: samples.length };
}

/** Measures a model.
 *
 * @param load opens it: () -> Promise of an EmbeddingModel
 * @param memory the memory now, in bytes by name: (model or null) -> Promise of { name: bytes }
 * @param seconds that all lengths take together, about
 * @param print called with each line
 */
export async function bench({ load, memory, name, seconds = 20, print }) {
  const stages = [["nothing loaded", await memory(null)]];
  const begin = performance.now();
  const model = await load();
  const loading = performance.now() - begin;
  stages.push(["loaded", await memory(model)]);
  const memoryTokens = Math.min(MEMORY_TOKENS, model.maxTokens);
  const first = await timeCall(model, await idsOfLength(model, memoryTokens));
  stages.push([`after a text of ${memoryTokens} tokens`, await memory(model)]);
  print(`model    ${name}`);
  print(`engine   embgemma ${model.version}, ISA ${model.isa}, ${model.threads} threads`);
  print(`load     ${loading.toFixed(1)} ms; the first text takes ${(1e3 * first).toFixed(0)} ms`);
  print("");
  const rows = await timeLengths(model, seconds, print);
  stages.push(["after everything above", await memory(model)]);
  print("");
  printMemory(stages, print);
  const usual = rows.find((row) => row.tokens === USUAL_TOKENS);
  if (usual) {
    print("");
    print(`${USUAL_TOKENS} tokens: ${(1e3 * usual.median).toFixed(1)} ms`);
  }
  await model.close();
  return { rows, stages, loadSeconds: loading / 1e3 };
}

async function timeLengths(model, seconds, print) {
  print("One text in one call");
  print(cells(["tokens", "median ms", "p95 ms", "calls", "tokens/s"]));
  const rows = [];
  for (const tokens of LENGTHS.filter((length) => length <= model.maxTokens)) {
    const before = rows.at(-1);
    if (before && (before.median * tokens) / before.tokens > seconds * LONGEST_SHARE) {
      print(`${cells([tokens])} left out: a call would take too much of ${seconds} s; give more seconds`);
      continue;
    }
    const row = await timeLength(model, tokens, seconds / LENGTHS.length);
    rows.push(row);
    const { median, p95, calls } = row;
    print(cells([tokens, (1e3 * median).toFixed(1), (1e3 * p95).toFixed(1), calls, (tokens / median).toFixed(0)]));
  }
  return rows;
}

function printMemory(stages, print) {
  const names = Object.keys(stages.at(-1)[1]);
  print(`Memory, MB${" ".repeat(18)}${names.map((name) => name.padStart(9)).join("")}`);
  for (const [stage, bytes] of stages) {
    const shown = names.map((name) => (name in bytes ? (bytes[name] / 1e6).toFixed(0) : "-").padStart(9));
    print(stage.padEnd(28) + shown.join(""));
  }
}

function cells(values) {
  return values.map((value, i) => String(value).padStart(ROW[i])).join("");
}
