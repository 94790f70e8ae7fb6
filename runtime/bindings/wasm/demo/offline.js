/* The service worker, for pages. */

const MOST_WAIT = 5000; // milliseconds, for its files to be kept
const TRIED = "embgemma-demo isolation tried"; // in this tab, so that a page is not loaded again and again

/** Whether the page opens without a network. */
export function isOfflineReady() {
  return Boolean(navigator.serviceWorker?.controller);
}

/** Starts the service worker. Returns true if the page is being loaded again, since it will have threads then. */
export async function prepareOffline() {
  const workers = navigator.serviceWorker; // not there on a host without HTTPS
  if (workers === undefined) return false;
  try {
    await workers.register("service-worker.js");
    if (self.crossOriginIsolated || sessionStorage.getItem(TRIED)) return false;
    sessionStorage.setItem(TRIED, "yes");
    await Promise.race([workers.ready, new Promise((resolve) => setTimeout(resolve, MOST_WAIT))]);
    location.reload();
    return true;
  } catch {
    return false; // the page works without, but neither offline nor, on some hosts, with threads
  }
}
