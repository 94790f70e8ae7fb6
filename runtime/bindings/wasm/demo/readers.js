/* What is dropped or chosen, as texts. */

const MOST_BYTES = 20e6; // of a file: all of its passages are in memory
const ENCODINGS = { "\xff\xfe": "utf-16le", "\xfe\xff": "utf-16be" }; // by the mark at a text's beginning

/** The text of a File. Throws an Error that says in one sentence why there is none. */
export async function readText(file) {
  if (file.size > MOST_BYTES) {
    const found = `${(file.size / 1e6).toFixed(0)} MB`;
    throw new Error(`it has ${found}, and this page takes files of up to ${MOST_BYTES / 1e6} MB: split it`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const encoding = ENCODINGS[String.fromCharCode(...bytes.subarray(0, 2))] ?? "utf-8";
  const text = decode(bytes, encoding);
  if (text === null || text.includes("\0")) throw new Error("it is not text: save it as UTF-8 text first");
  return text;
}

function decode(bytes, encoding) {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** The files of an <input type="file">, as { name, file }. */
export function chosenFiles(input) {
  const found = [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
  return found.filter(({ name }) => !isHidden(name));
}

/** The files that were dropped, those in folders included, as { name, file }. */
export async function droppedFiles(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry() ?? item.getAsFile()); // now: they are gone later
  const found = [];
  for (const entry of entries) {
    if (entry instanceof File) found.push({ name: entry.name, file: entry });
    else await walk(entry, found);
  }
  return found;
}

async function walk(entry, found) {
  if (isHidden(entry.fullPath)) return;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ name: entry.fullPath.slice(1), file });
    return;
  }
  const reader = entry.createReader();
  for (let some; (some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length > 0; ) {
    for (const one of some) await walk(one, found);
  }
}

function isHidden(path) {
  return path.split("/").some((part) => part.startsWith("."));
}
