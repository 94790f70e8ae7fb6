// The tables of a comparison, in Markdown.

// How many times as fast as the best other runtime we want to be, by tokens.
const WANTED = { 8: 3, 32: 3, 128: 1.8, 256: 1.8, 512: 2.5, 2048: 2.5 };
const WANTED_LOAD = 3;
const WANTED_MEMORY = 2;
const WANTED_CODE = 14e6 / 300e3;

const mega = (bytes) => (bytes / 1e6).toFixed(bytes < 10e6 ? 1 : 0);
const milli = (seconds) => (seconds === null ? "-" : (1e3 * seconds).toFixed(seconds < 0.1 ? 1 : 0));

/** One world and number of threads. */
export function report({ world, threads, processor, measured }, lengths) {
  const [ours, ...others] = measured;
  const rows = measured.map((one) => [
    one.runtime,
    one.format,
    ...one.times.map(({ seconds }) => milli(seconds)),
    milli(one.load),
    mega(one.memory),
    mega(one.code),
    cosine(one.vector, ours.vector).toFixed(3),
  ]);
  const header = ["runtime", "format", ...lengths, "load ms", "peak MB", "code MB", "cosine"].map(String);
  const title = `${world}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  const ratios = others.length > 0 ? table(["best other over ours", "found", "wanted", ""], ratioRows(ours, others)) : "";
  const unit = processor ? "milliseconds of processor time" : "milliseconds";
  return `**${title}: ${unit} by tokens**\n\n${table(header, rows)}\n${ratios}\n`;
}

function ratioRows(ours, others) {
  const best = (value) => Math.min(...others.map(value).filter((found) => found !== null));
  const row = (name, found, wanted) => [
    name,
    found.toFixed(2),
    wanted.toFixed(1),
    found >= wanted ? "met" : "missed",
  ];
  const times = ours.times.flatMap(({ tokens, seconds }, i) => {
    const other = best((one) => one.times[i].seconds);
    if (seconds === null || !Number.isFinite(other)) return [];
    return [row(`${tokens} tokens`, other / seconds, WANTED[tokens] ?? 1)];
  });
  return [
    ...times,
    row("load from cache", best((one) => one.load) / ours.load, WANTED_LOAD),
    row("peak memory", best((one) => one.memory) / ours.memory, WANTED_MEMORY),
    row("code", best((one) => one.code) / ours.code, WANTED_CODE),
  ];
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

function table(header, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |\n`;
  const rule = header.map((_, i) => (i === 0 ? "---" : "---:"));
  return line(header) + line(rule) + rows.map(line).join("");
}
