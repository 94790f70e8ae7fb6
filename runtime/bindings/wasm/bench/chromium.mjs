// Chromium without a window, driven by puppeteer-core, and the site that it opens.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const PROGRAMS = ["chromium-headless-shell", "chromium", "google-chrome"].map((name) => `/usr/bin/${name}`);
const SERVER = fileURLToPath(new URL("../demo/serve.py", import.meta.url));

/** The browser's program: that of EMBGEMMA_CHROMIUM, or the first that is installed; null where there is none. */
export const program = process.env.EMBGEMMA_CHROMIUM ?? PROGRAMS.find((path) => existsSync(path)) ?? null;

const modules = process.env.EMBGEMMA_NODE_MODULES;

/** A browser of its own, with a profile that ends with it. */
export async function launch() {
  if (program === null) throw new Error("there is no Chromium; install Debian's package chromium-headless-shell");
  const puppeteer = await packageOf("puppeteer-core");
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : []; // which root cannot have
  return puppeteer.launch({ executablePath: program, headless: "shell", args: sandbox, protocolTimeout: 600_000 });
}

/** A package of the folder that EMBGEMMA_NODE_MODULES names. */
export async function packageOf(name) {
  if (modules === undefined) throw new Error("EMBGEMMA_NODE_MODULES must name the folder that npm installed into");
  const found = createRequire(`${resolve(modules)}/`)(name);
  return found.default ?? found;
}

/** Starts demo/serve.py with these arguments; resolves to { url, close } when it serves. */
export function serve(...options) {
  const server = spawn("python3", [SERVER, "--port", "0", ...options], { stdio: ["ignore", "pipe", "inherit"] });
  return new Promise((resolve, reject) => {
    let text = "";
    server.stdout.on("data", (data) => {
      text += data;
      const url = /^(http:\S+) /.exec(text)?.[1];
      if (url) resolve({ url, close: () => server.kill() });
    });
    server.on("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
}
