// Reads a file from the network, goes on where a connection broke, and keeps a copy in the browser.

import { EmbgemmaError } from "./errors.js";
import { openCopy } from "./copies.js";

const TRIES = 5; // without a byte in between
const FIRST_WAIT = 500; // ms, then twice as long each time
const PIECE = 4 << 20; // bytes read at once from a copy

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Fills the intake from a URL, or from the copy of it. from(place): told where bytes come from. check(): throws if what
 * has come is damaged. Parts may be of different files, and a copy may be of an older one: then all is read anew, once. */
export async function download(url, intake, { cache, fresh = false, from, check }) {
  const copy = cache ? await openCopy(url) : null;
  try {
    if (fresh) {
      restart(intake, copy);
    }
    try {
      await takeParts(url, intake, copy, from, check);
    } catch (error) {
      if (error.code !== "model" || !(intake.copied || intake.parts > 1)) {
        throw error;
      }
      restart(intake, copy);
      await takeParts(url, intake, copy, from, check);
    }
  } catch (error) {
    if (error.code === "model") {
      copy?.truncate(0);
    }
    throw error;
  } finally {
    copy?.close();
  }
}

async function takeParts(url, intake, copy, from, check) {
  if (copy !== null && copy.size() > 0) {
    from("cache");
    intake.copied = true;
    readCopy(copy, intake);
  }
  if (intake.total === undefined || intake.loaded < intake.total) {
    from("network");
    await fetchRest(url, intake, copy);
  }
  intake.finish();
  if (intake.parts > (intake.copied ? 0 : 1)) {
    check();
  }
}

function readCopy(copy, intake) {
  const bytes = copy.size();
  for (let at = 0; at < bytes; ) {
    const room = intake.room(PIECE) ?? new Uint8Array(Math.min(PIECE, bytes - at));
    const count = copy.read(room, at);
    if (count === 0) {
      break;
    }
    if (intake.total === undefined) {
      intake.add(room.subarray(0, count));
    } else {
      intake.filled(count);
    }
    at += count;
  }
}

async function fetchRest(url, intake, copy) {
  for (let tries = 1; ; tries++) {
    const before = intake.received;
    try {
      await fetchOnce(url, intake, copy);
      return;
    } catch (error) {
      if (error instanceof EmbgemmaError && error.code !== "network") {
        throw error;
      }
      tries = intake.received > before ? 0 : tries;
      if (error.final || tries >= TRIES) {
        const kept = copy !== null && intake.received > 0 ? "; the next try goes on where this one ended" : "";
        throw new EmbgemmaError("network", `${url}: ${error.message}, after ${intake.received} bytes${kept}`);
      }
      await wait(FIRST_WAIT * 2 ** tries);
    }
  }
}

async function fetchOnce(url, intake, copy) {
  const begin = intake.received;
  const response = await fetch(url, {
    headers: begin > 0 ? { Range: `bytes=${begin}-` } : {},
    cache: copy === null ? "default" : "no-store", // one copy is enough
  });
  const complete = /^bytes \*\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
  if (response.status === 416 && Number(complete?.[1]) === begin) {
    return; // all of it was there
  }
  if (response.status === 416 || (response.status === 206 && !continues(response, begin, intake))) {
    restart(intake, copy); // it is another file now
    throw new EmbgemmaError("network", "the file changed on the server");
  }
  if (!response.ok) {
    const error = new EmbgemmaError("network", `the server answers ${response.status} ${response.statusText}`.trim());
    error.final = response.status < 500 && response.status !== 408 && response.status !== 429;
    throw error;
  }
  if (response.status === 200 && begin > 0) {
    restart(intake, copy); // it cannot send a part
  }
  intake.parts++;
  intake.validator ??= validatorOf(response);
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    copy?.write(value, intake.received);
    intake.add(value);
  }
  if (intake.total !== undefined && intake.loaded < intake.total) {
    throw new EmbgemmaError("network", `the connection ended`);
  }
}

const validatorOf = (response) => response.headers.get("ETag") ?? response.headers.get("Last-Modified") ?? undefined;

/** Whether an answer to a range is what was asked for, of the same file as far as one can tell. */
function continues(response, begin, { total, validator }) {
  const [, first, size] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "") ?? [];
  const sameSize = total === undefined || size === "*" || Number(size) === total;
  return Number(first) === begin && sameSize && (validator ?? validatorOf(response)) === validatorOf(response);
}

function restart(intake, copy) {
  intake.restart();
  copy?.truncate(0);
}
