/* What the page shows. */

export const byId = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const MEGA = 1e6;

// A line break that is there since the line was full: passages are shown in lines of another length.
const WRAPPED = /(?<=[^\n]{60})\r?\n(?=[\p{L}\p{N}"'(])/gu;

export const count = (number, word) => `${whole.format(number)} ${word}${number === 1 ? "" : "s"}`;
export const megabytes = (bytes) => `${(bytes / MEGA).toFixed(bytes < 10 * MEGA ? 1 : 0)} MB`;
export const milliseconds = (seconds) => `${(1e3 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;

/** An element with properties and children; texts are never read as HTML. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Shows what went wrong and what to do; "" hides it. */
export function showProblem(text) {
  byId("problem").hidden = text === "";
  byId("problem").textContent = text;
}

export function showStatus(text) {
  byId("status").textContent = text;
}

/** Shows how far a work is; null hides it. `most` 0 shows a work of unknown length. */
export function showProgress(work) {
  byId("working").hidden = work === null;
  if (work === null) return;
  byId("progress-text").textContent = work.text;
  const bar = byId("progress");
  if (work.most > 0) Object.assign(bar, { max: work.most, value: work.done });
  else bar.removeAttribute("value");
}

/** Shows what was found for a query, which is stored beside it. */
export function showResults(query, results) {
  byId("results").dataset.query = query;
  byId("results").replaceChildren(...results.map(resultItem));
}

function resultItem({ file, line, lastLine, score, text }) {
  const lines = line === lastLine ? `line ${line}` : `lines ${line}–${lastLine}`;
  const shown = score.toFixed(2);
  const copy = element("button", { type: "button", textContent: "Copy", ariaLabel: `Copy the passage of ${file}` });
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    showStatus("Copied.");
  });
  const bar = element("span", { className: "bar", ariaHidden: "true" });
  bar.style.setProperty("--share", Math.max(0, score));
  const place = element(
    "div",
    { className: "place" },
    element("span", { className: "name", textContent: file }),
    element("span", { textContent: lines }),
    element("span", { className: "score", title: "cosine of query and passage" }, bar, `score ${shown}`),
    copy,
  );
  return element("li", {}, place, element("p", { className: "passage", textContent: text.replace(WRAPPED, " ") }));
}

/** Shows the files; `remove` is called with the name of one. */
export function showFiles(files, fingerprint, remove) {
  const item = ({ name, passages, fingerprint: made }) => {
    const button = element("button", { type: "button", textContent: "×", ariaLabel: `Remove ${name}` });
    button.addEventListener("click", () => remove(name));
    const state = made === fingerprint ? count(passages.length, "passage") : "waiting";
    return element(
      "li",
      {},
      element("span", { className: "name", textContent: name, title: name }),
      element("span", { className: "quiet", textContent: state }),
      button,
    );
  };
  byId("files").replaceChildren(...files.map(item));
  byId("welcome").hidden = files.length > 0;
  byId("clear").hidden = files.length < 2;
}

/** Shows numbers by their names, without those that are not known. */
export function showNumbers(numbers) {
  const known = Object.entries(numbers).filter(([, value]) => value !== null);
  const rows = known.flatMap(([name, value]) => [
    element("dt", { textContent: name }),
    element("dd", { textContent: value }),
  ]);
  byId("numbers").replaceChildren(...rows);
}

export function showModel(engine) {
  byId("model").textContent = `${engine.name}: vectors of ${engine.dim} values`;
}
