/* Lets the page work offline, and gives it threads on hosts that cannot set headers: a page may share memory between
 * its Workers only if it is cross-origin isolated, which two headers say.
 *
 * files.js, which is made with the site, states FILES (paths from here) and VERSION (a digest of their contents). */
importScripts("files.js");

const PREFIX = "embgemma-demo ";
const CACHE = PREFIX + self.VERSION;
const PATHS = new Set(self.FILES.map((file) => new URL(file, self.location).pathname));
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  const requests = [...PATHS].map((path) => new Request(path, { cache: "reload" }));
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(requests))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  const removeOld = (names) =>
    Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
  event.waitUntil(
    caches
      .keys()
      .then(removeOld)
      .then(() => self.clients.claim()),
  );
});

// Models are not among the files: the package keeps them itself.
self.addEventListener("fetch", (event) => {
  const { pathname, origin } = new URL(event.request.url);
  if (event.request.method === "GET" && origin === self.location.origin && PATHS.has(pathname)) {
    event.respondWith(answer(event.request, pathname));
  }
});

async function answer(request, pathname) {
  const cache = await caches.open(CACHE);
  const response = (await cache.match(pathname)) ?? (await fetch(request));
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
