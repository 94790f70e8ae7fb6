// What the tests of the package and its pages need, and why they are skipped where it is not there.

import { fileURLToPath } from "node:url";

import { program } from "../../../../runtime/bindings/wasm/bench/chromium.mjs";

export const MODEL = fileURLToPath(new URL("../../../../runtime/models/embgemma-tiny.safetensors", import.meta.url));

/** The folder that `make wasm` makes. */
export const PACKAGE = process.env.EMBGEMMA_PACKAGE;

const skipUnless = (present, needed) =>
  present || process.env.EMBGEMMA_REQUIRE_NATIVE === "1" ? false : `needs ${needed}`;
const hasPackage = PACKAGE !== undefined;
const hasBrowser = program !== null && process.env.EMBGEMMA_NODE_MODULES !== undefined;

export const withPackage = { skip: skipUnless(hasPackage, "EMBGEMMA_PACKAGE") };
export const withBrowser = {
  skip: skipUnless(hasPackage && hasBrowser, "EMBGEMMA_PACKAGE, Chromium, and puppeteer-core in EMBGEMMA_NODE_MODULES"),
};
