/* The page: files are embedded in the model's own Worker, queries as they are typed. */

import { openModel } from "./engine.js";
import { Library } from "./library.js";
import { isOfflineReady, prepareOffline } from "./offline.js";
import { chosenFiles, droppedFiles, readText } from "./readers.js";
import { Store } from "./store.js";
import * as view from "./view.js";

const IN_THE_BOX = "models/embgemma-tiny.safetensors";
const EXAMPLES = "examples/"; // a folder with an index.json, a list of names
const RESULTS = 10;
const { byId } = view;

let engine = null; // the model
let library = null; // the files
let work = null; // an AbortController while files are embedded
let lastSearch = null; // seconds

async function start() {
  if (await prepareOffline()) return; // the page is loaded again
  library = new Library(await Store.open());
  await library.open();
  listen();
  showFiles();
  await useModel(IN_THE_BOX);
}

/** Loads a model in place of the one in use, which stays if that fails. */
async function useModel(source) {
  view.showProblem("");
  view.showProgress({ text: "Loading the model", done: 0, most: 0 });
  try {
    const opened = await openModel(source, (done, most) => {
      view.showProgress({ text: `Loading the model: ${view.megabytes(done)} of ${view.megabytes(most)}`, done, most });
    });
    work?.abort();
    await engine?.close();
    engine = opened;
  } catch (error) {
    view.showProblem(error.message);
    return;
  } finally {
    view.showProgress(null);
  }
  view.showModel(engine);
  byId("query").disabled = false;
  byId("query").focus();
  await embed();
}

/** Embeds the files that have no vectors of the model, with what is added meanwhile. */
async function embed() {
  showFiles();
  if (engine === null || (work && !work.signal.aborted)) return;
  const mine = new AbortController();
  work = mine;
  try {
    await library.embed(engine, showEmbedding, mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) view.showProblem(error.message);
  } finally {
    if (work === mine) work = null;
  }
  if (work !== null) return; // another model took over
  view.showProgress(null);
  showFiles();
  await search();
}

function showEmbedding(done, most, name) {
  view.showProgress({ text: `Reading ${name}: passage ${done} of ${most}`, done, most });
  showNumbers();
  if (library.waiting(engine.fingerprint).length !== shownWaiting) showFiles();
}

let shownWaiting = 0;

function showFiles() {
  const fingerprint = engine?.fingerprint ?? "";
  shownWaiting = library.waiting(fingerprint).length;
  view.showFiles([...library.files.values()], fingerprint, removeFiles);
  showNumbers();
}

async function showNumbers() {
  const memory = await engine?.memoryBytes().catch(() => undefined); // it may be closed meanwhile
  const { tokens, seconds } = library;
  view.showNumbers({
    Passages: String(library.countPassages()),
    Embedding: tokens > 0 ? `${view.count(tokens / seconds, "token")}/s` : null,
    "Last search": lastSearch === null ? null : view.milliseconds(lastSearch),
    "Model loaded in": engine && view.milliseconds(engine.loadSeconds),
    Memory: memory === undefined ? null : view.megabytes(memory),
    Threads: engine && (self.crossOriginIsolated ? `${engine.threads}` : "1 (the page is not isolated)"),
    Instructions: engine && engine.isa,
    "Index kept": library.store.lasts ? "in this browser" : "until you leave",
    Offline: isOfflineReady() ? "ready" : "not yet",
  });
}

async function addFiles(found) {
  view.showProblem("");
  const refused = [];
  for (const { name, file } of found) {
    try {
      await library.add(name, await readText(file));
    } catch (error) {
      refused.push(`${name} was left out: ${error.message}.`);
    }
  }
  view.showProblem(refused.slice(0, 5).join("\n") + (refused.length > 5 ? `\nAnd ${refused.length - 5} more.` : ""));
  await embed();
}

async function removeFiles(...names) {
  for (const name of names) await library.remove(name);
  showFiles();
  byId("query").focus();
  await search();
}

async function addExamples() {
  const names = await (await fetch(`${EXAMPLES}index.json`)).json();
  const open = async (name) => ({ name, file: await (await fetch(EXAMPLES + name)).blob() });
  await addFiles(await Promise.all(names.map(open)));
}

let searching = false;
let again = false;

/** Searches for what is typed. What is typed meanwhile is searched for next, and only the last of it. */
async function search() {
  again = true;
  if (searching) return;
  searching = true;
  try {
    while (again) {
      again = false;
      await searchOnce(byId("query").value.trim());
    }
  } catch (error) {
    view.showProblem(error.message);
  } finally {
    searching = false;
  }
}

async function searchOnce(query) {
  if (query === "" || engine === null) {
    view.showResults(query, []);
    view.showStatus("");
    return;
  }
  const begin = performance.now();
  const found = library.search(await engine.embedQuery(query), engine.fingerprint, RESULTS);
  lastSearch = (performance.now() - begin) / 1e3;
  view.showResults(query, found);
  const searched = library.countPassages() - library.countPassages(library.waiting(engine.fingerprint));
  view.showStatus(
    searched === 0
      ? "There is nothing to search yet: add files first."
      : `The best ${found.length} of ${view.count(searched, "passage")}, in ${view.milliseconds(lastSearch)}.`,
  );
  showNumbers();
}

function listen() {
  const query = byId("query");
  query.addEventListener("input", search);
  byId("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== query) {
      event.preventDefault();
      query.focus();
    }
  });
  for (const button of document.querySelectorAll("[data-open]")) {
    button.addEventListener("click", () => byId(`open-${button.dataset.open}`).click());
  }
  for (const id of ["open-files", "open-folder"]) {
    byId(id).addEventListener("change", async ({ target }) => {
      const found = chosenFiles(target);
      target.value = ""; // so that the same files can be chosen again
      await addFiles(found);
    });
  }
  byId("open-model").addEventListener("change", ({ target }) => target.files[0] && useModel(target.files[0]));
  byId("examples").addEventListener("click", addExamples);
  byId("clear").addEventListener("click", () => removeFiles(...library.files.keys()));
  listenToDrops();
}

function listenToDrops() {
  const body = document.body.classList;
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    body.add("dropping");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && body.remove("dropping"));
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    body.remove("dropping");
    await addFiles(await droppedFiles(event.dataTransfer));
  });
}

start().catch((error) => view.showProblem(error.message));
