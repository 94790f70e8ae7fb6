// Where a runtime runs: a process of node, or a page of a browser of its own. Both have
// ask(call of runtimes.js, …values), processes() (their ids) and close().

import { fork } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { launch } from "./chromium.mjs";

const PROCESS = fileURLToPath(new URL("process.mjs", import.meta.url));

/** A process of the node that runs this. */
export class NodePlace {
  static async open() {
    return new NodePlace();
  }

  #child = fork(PROCESS);

  ask(call, ...values) {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const ended = (code, signal) => reject(new Error(`its process ended with ${signal ?? code}`));
      child.once("exit", ended);
      child.once("message", ({ result, error }) => {
        child.off("exit", ended);
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      });
      child.send({ call, values });
    });
  }

  async processes() {
    return [this.#child.pid];
  }

  async again() {
    await this.close();
    this.#child = fork(PROCESS);
  }

  async close() {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill();
    await ended;
  }
}

/** A page of a browser of its own, whose caches last as long as the place. */
export class PagePlace {
  static async open(url) {
    const place = new PagePlace();
    place.url = url;
    place.browser = await launch();
    await place.#openPage();
    return place;
  }

  async #openPage() {
    this.page = await this.browser.newPage();
    await this.page.goto(this.url);
    await this.page.waitForFunction("globalThis.runtimes !== undefined");
  }

  ask(call, ...values) {
    return this.page.evaluate((name, some) => globalThis.runtimes[name](...some), call, values);
  }

  /** Those that show pages. */
  async processes() {
    const found = [];
    for (const id of await descendants(this.browser.process().pid)) {
      const command = await readFile(`/proc/${id}/cmdline`, "utf8").catch(() => "");
      if (command.includes("--type=renderer")) found.push(id);
    }
    return found;
  }

  async again() {
    const old = this.page;
    await this.#openPage();
    await old.close();
  }

  async close() {
    await this.browser.close();
  }
}

async function descendants(id) {
  const found = [];
  for (const task of await readdir(`/proc/${id}/task`).catch(() => [])) {
    const children = await readFile(`/proc/${id}/task/${task}/children`, "utf8").catch(() => "");
    for (const child of children.trim().split(" ").filter(Boolean)) found.push(child, ...(await descendants(child)));
  }
  return found;
}

/** The most memory that one of these processes ever had resident, in bytes. */
export async function peakMemory(processes) {
  const peaks = [];
  for (const id of processes) {
    const status = await readFile(`/proc/${id}/status`, "utf8").catch(() => "");
    peaks.push(1024 * Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0));
  }
  return Math.max(...peaks);
}

/** The processor time of these processes, in seconds, all of their threads together. */
export async function processorSeconds(processes) {
  let nanoseconds = 0;
  for (const id of processes) {
    for (const task of await readdir(`/proc/${id}/task`).catch(() => [])) {
      const text = await readFile(`/proc/${id}/task/${task}/schedstat`, "utf8").catch(() => "0");
      nanoseconds += Number(text.split(" ")[0]);
    }
  }
  return nanoseconds / 1e9;
}
