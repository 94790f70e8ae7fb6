// Reads a file from the network, goes on where a connection broke, and keeps a copy in the browser.

import { EmbgemmaError } from "./errors.js";
import { openCopy } from "./copies.js";

const TRIES = 5; // without a byte in between
const FIRST_WAIT = 500; // ms, then twice as long each time
const PIECE = 4 << 20; // bytes read at once from a copy

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Fills the intake from a URL, or from the copy of it. from(place): told where bytes come from. */
export async function download(url, intake, cache, from) {
  const copy = cache ? await openCopy(url) : null;
  try {
    if (copy !== null) {
      from("cache");
      readCopy(copy, intake);
    }
    if (intake.total === undefined || intake.loaded < intake.total) {
      from("network");
      await fetchRest(url, intake, copy);
    }
  } catch (error) {
    if (error.code === "model") {
      copy?.truncate(0); // damaged: the next try begins anew
    }
    throw error;
  } finally {
    copy?.close();
  }
  intake.finish();
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
  const response = await fetch(url, begin > 0 ? { headers: { Range: `bytes=${begin}-` } } : {});
  const complete = /^bytes \*\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "");
  if (response.status === 416 && Number(complete?.[1]) === begin) {
    return; // all of it was there
  }
  if (response.status === 416 || (response.status === 206 && !continues(response, begin, intake.total))) {
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

/** Whether an answer to a range is what was asked for, of a file of the same size. */
function continues(response, begin, total) {
  const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "");
  return range !== null && Number(range[1]) === begin && (total === undefined || range[2] === "*" || Number(range[2]) === total);
}

function restart(intake, copy) {
  intake.restart();
  copy?.truncate(0);
}
