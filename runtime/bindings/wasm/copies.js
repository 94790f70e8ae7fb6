// Copies of downloaded files, in the origin private file system of the browser. A copy that is not whole yet is as long
// as what has come of it.

import { sizeOfBlob } from "./intake.js";

const FOLDER = "embgemma";
const TRIES = 10;
const WAIT = 50; // ms

/** The folder of copies; null where there is none. */
async function folder(create) {
  try {
    const root = await globalThis.navigator.storage.getDirectory();
    return await root.getDirectoryHandle(FOLDER, { create });
  } catch {
    return null;
  }
}

async function nameOf(url) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The copy of a URL, made if there is none; null if there can be none, or another page is writing it. In a Worker. */
export async function openCopy(url) {
  for (let tries = 1; ; tries++) {
    try {
      const file = await (await folder(true)).getFileHandle(await nameOf(url), { create: true });
      return new Copy(await file.createSyncAccessHandle());
    } catch (error) {
      if (error.name !== "NoModificationAllowedError" || tries === TRIES) {
        return null;
      }
      await new Promise((resolve) => setTimeout(resolve, WAIT)); // a page that was just left lets go of it soon
    }
  }
}

class Copy {
  #handle;
  #full = false;

  constructor(handle) {
    this.#handle = handle;
  }

  size() {
    return this.#handle.getSize();
  }

  read(to, at) {
    return this.#handle.read(to, { at });
  }

  /** A browser without room for it loads without a copy. */
  write(bytes, at) {
    try {
      if (!this.#full && this.#handle.write(bytes, { at }) < bytes.length) {
        throw new Error("no room");
      }
    } catch {
      this.#full = true;
      this.truncate(0);
    }
  }

  truncate(bytes) {
    this.#handle.truncate(bytes);
  }

  close() {
    this.#handle.flush();
    this.#handle.close();
  }
}

export async function isCopied(url) {
  try {
    const file = await (await (await folder(false)).getFileHandle(await nameOf(url))).getFile();
    return file.size > 0 && file.size === (await sizeOfBlob(file));
  } catch {
    return false;
  }
}

export async function removeCopies(url) {
  const copies = await folder(false);
  const names = url === undefined ? [] : [await nameOf(url)];
  if (copies !== null && url === undefined) {
    for await (const name of copies.keys()) {
      names.push(name);
    }
  }
  for (const name of names) {
    await copies?.removeEntry(name).catch(() => {}); // there is none
  }
}
