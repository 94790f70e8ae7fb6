// The demo in Chromium, as a visitor meets it: first with a network, then without one.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { launch, serve } from "../../../../runtime/bindings/wasm/bench/chromium.mjs";
import { MODEL, PACKAGE, withBrowser } from "./needs.mjs";

let folder, site, browser, page;
const requests = [];

before(async () => {
  if (withBrowser.skip) return;
  folder = await mkdtemp(join(tmpdir(), "embgemma-demo-"));
  [site, browser] = await Promise.all([serve(join(folder, "site"), "--package", PACKAGE), launch()]);
  page = await open(site.url);
});

after(async () => {
  await browser?.close();
  site?.close();
  if (folder) await rm(folder, { recursive: true });
});

async function open(url, context = browser) {
  const opened = await context.newPage();
  opened.on("request", (request) => requests.push(request.url()));
  await opened.goto(url);
  await ready(opened);
  return opened;
}

/** Waits until the model is there and all files are embedded. */
const ready = (opened) =>
  opened.waitForFunction(() => {
    const problem = document.getElementById("problem");
    const waiting = document.getElementById("files").innerText.includes("waiting");
    const busy = waiting || !document.getElementById("working").hidden || document.getElementById("query").disabled;
    return !busy || !problem.hidden;
  });

const textOf = (id) => page.$eval(`#${id}`, (element) => (element.hidden ? "" : element.innerText));

async function search(query) {
  await page.$eval("#query", (input) => (input.value = ""));
  await page.type("#query", query);
  await page.waitForSelector(`#results[data-query="${query}"] > li`);
  return page.$$eval("#results > li", (items) => items.map((item) => item.innerText));
}

/** Gives files to an input, by name and content, and waits until they were taken in. */
async function choose(id, files) {
  const paths = [];
  for (const [name, content] of Object.entries(files)) {
    paths.push(join(folder, name));
    await writeFile(paths.at(-1), content);
  }
  await (await page.$(`#${id}`)).uploadFile(...paths);
}

test("a newcomer finds by meaning what the examples say", withBrowser, async () => {
  assert.equal(await page.evaluate(() => self.crossOriginIsolated), true);
  await page.click("#examples");
  await page.waitForFunction(() => document.querySelectorAll("#files li").length === 3);
  await ready(page);
  const [first] = await search("my loaf of bread is old and hard");
  assert.match(first, /kitchen\.md/);
  assert.match(first, /lines 1–4/);
  assert.match(first, /stale loaf/);
  assert.match(await textOf("status"), /The best 10 of \d+ passages, in [\d.]+ ms/);
  assert.match(await textOf("numbers"), /tokens\/s/);
});

test("files of one's own are added, and what is no text is named", withBrowser, async () => {
  await choose("open-files", {
    "own.txt": "Zürich lies on a lake.\n",
    "utf16.txt": Buffer.from("\ufeffThe ferry leaves at noon.", "utf16le"),
    "picture.png": Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 255]),
    "empty.txt": "",
  });
  await page.waitForFunction(() => !document.getElementById("problem").hidden);
  const problem = await textOf("problem");
  assert.match(problem, /picture\.png was left out: it is not text/);
  assert.match(problem, /empty\.txt/);
  await page.waitForFunction(() => document.querySelectorAll("#files li").length === 5);
  await ready(page);
  assert.match((await search("when does the ferry go"))[0], /utf16\.txt/);
});

test("files are dropped on the page, and removed", withBrowser, async () => {
  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["The violin needs new strings."], "dropped.txt"));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
  });
  await page.waitForSelector("[aria-label='Remove dropped.txt']");
  await ready(page);
  assert.match((await search("music instrument"))[0], /dropped\.txt/);
  await page.click("[aria-label='Remove dropped.txt']");
  await page.waitForFunction(() => !document.getElementById("results").innerText.includes("dropped.txt"));
});

test("a damaged model is refused, and the one in use stays", withBrowser, async () => {
  await choose("open-model", { "cut.safetensors": (await readFile(MODEL)).subarray(0, 100_000) });
  await page.waitForFunction(() => !document.getElementById("problem").hidden);
  assert.match(await textOf("problem"), /the file is cut/);
  assert.match(await textOf("model"), /embgemma-tiny/);
  assert.match((await search("old hard bread"))[0], /kitchen\.md/);
});

test("everything has a name, and the keyboard reaches it", withBrowser, async () => {
  const unnamed = [];
  const walk = (node) => {
    const needs = ["button", "searchbox", "progressbar", "combobox", "spinbutton", "link"].includes(node.role);
    if (needs && !node.name) unnamed.push(node);
    for (const child of node.children ?? []) walk(child);
  };
  walk(await page.accessibility.snapshot());
  assert.deepEqual(unnamed, []);
  await page.focus("#clear");
  await page.keyboard.press("/");
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.innerText);
  assert.equal(await focused(), "query");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Copy");
});

test("without a network all of it still works", withBrowser, async () => {
  site.close();
  await assert.rejects(fetch(site.url));
  await page.reload();
  await ready(page);
  assert.equal(await page.evaluate(() => self.crossOriginIsolated), true);
  assert.match((await search("old hard bread"))[0], /kitchen\.md/);
  await choose("open-files", { "later.txt": "The dentist has moved to the station road.\n" });
  await page.waitForSelector("[aria-label='Remove later.txt']");
  await ready(page);
  assert.match((await search("who repairs my teeth"))[0], /later\.txt/);
  assert.deepEqual(requests.filter((url) => !url.startsWith(site.url)), []);
});

test("the benchmark works without a network", withBrowser, async () => {
  await page.goto(`${site.url}bench.html`);
  await page.waitForSelector("#threads option:nth-child(2)");
  await page.$eval("#seconds", (input) => (input.value = "1"));
  await page.click("#run");
  await page.waitForFunction(() => /Done|^$/.test(document.getElementById("status").innerText));
  assert.equal(await textOf("problem"), "");
  assert.match(await textOf("output"), /tokens +median ms[\s\S]* 8 +[\d.]+/);
  const threads = await page.$eval("#threads", (select) => select.selectedOptions[0].innerText);
  assert.match(await textOf("output"), new RegExp(`, ${/^as usual: (\d+)$/.exec(threads)[1]} threads`));
});

test("a host that sends no headers gives threads as well, at the second look", withBrowser, async () => {
  const plain = await serve(join(folder, "plain"), "--package", PACKAGE, "--plain");
  const context = await browser.createBrowserContext();
  try {
    const opened = await open(plain.url, context);
    await opened.waitForFunction(() => self.crossOriginIsolated);
  } finally {
    await context.close();
    plain.close();
  }
});
