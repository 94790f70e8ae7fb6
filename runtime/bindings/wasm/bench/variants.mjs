// The runtimes that are compared, with the files that each takes, in one folder that a page can be given as well.

import { copyFile, mkdtemp, readdir, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Makes that folder, of links. */
export async function makeFolder({ package: ours, modules, model, bundles }) {
  const folder = await mkdtemp(join(tmpdir(), "embgemma-compare-"));
  for (const name of ["page.html", "runtimes.js"]) {
    await copyFile(fileURLToPath(new URL(name, import.meta.url)), join(folder, name));
  }
  const links = { embgemma: ours, "model.safetensors": model };
  if (bundles.length > 0) links.modules = modules;
  for (const bundle of bundles) links[`bundle-${basename(bundle)}`] = bundle;
  for (const [name, path] of Object.entries(links)) await symlink(resolve(path), join(folder, name));
  return folder;
}

/** All runtimes with their formats; `code` is the bytes of their programs. */
export async function variantsOf({ folder, root, bundles, format }) {
  const inNode = root === folder;
  const module = (path) => (inNode ? pathToFileURL(join(folder, path)).href : `${root}/${path}`);
  const ort = "modules/onnxruntime-web/dist";
  const transformers = "modules/@huggingface/transformers/dist";
  const theirOrt = "modules/@huggingface/transformers/node_modules/onnxruntime-web/dist";
  const size = async (...paths) => {
    const sizes = await Promise.all(paths.map(async (path) => (await stat(join(folder, path))).size));
    return sizes.reduce((sum, one) => sum + one, 0);
  };
  // One of the two modules is loaded; the larger one counts.
  const ourFiles = (await readdir(join(folder, "embgemma"))).filter((name) => /\.js$|-relaxed\.wasm$/.test(name));
  const ours = {
    runtime: "embgemma",
    format,
    code: await size(...ourFiles.map((name) => `embgemma/${name}`)),
    options: { library: module("embgemma/index.js"), model: `${root}/model.safetensors` },
  };
  if (bundles.length === 0) return [ours];
  const name = "ort-wasm-simd-threaded";
  const codeOfOrt = await size(`${ort}/ort.wasm.min.mjs`, `${ort}/${name}.mjs`, `${ort}/${name}.wasm`);
  const codeOfTransformers = await size(
    `${transformers}/transformers.min.js`,
    `${theirOrt}/${name}.asyncify.mjs`,
    `${theirOrt}/${name}.asyncify.wasm`,
  );
  const theirs = bundles.flatMap((bundle) => [
    {
      runtime: "onnxruntime-web",
      format: basename(bundle),
      code: codeOfOrt,
      options: {
        library: module(`${ort}/${inNode ? "ort.node.min.mjs" : "ort.wasm.min.mjs"}`),
        model: `${root}/bundle-${basename(bundle)}/onnx/model.onnx`,
      },
    },
    {
      runtime: "transformers.js",
      format: basename(bundle),
      code: codeOfTransformers,
      options: {
        library: module(`${transformers}/${inNode ? "transformers.node.mjs" : "transformers.min.js"}`),
        model: `${root}/bundle-${basename(bundle)}`,
        wasm: module(theirOrt),
      },
    },
  ]);
  return [ours, ...theirs];
}
