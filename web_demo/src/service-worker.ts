/**
 * Makes the page work offline: it keeps the page and the runtime when it is installed, and a model's files when they are
 * first read. It asks no other host.
 */
export {};

declare const self: ServiceWorkerGlobalScope;

const VERSION = "__VERSION__"; // the build puts the checksum of what it lists here
const PAGE = `page-${VERSION}`;
const MODELS = "models";
const FRESH = /\/(models\.json|app\.json|app\.sig)$/; // says what a model is: the network first

self.addEventListener("install", (event) => {
  event.waitUntil(install());
});

self.addEventListener("activate", (event) => {
  event.waitUntil(activate());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  event.respondWith(answer(event.request, url));
});

async function install(): Promise<void> {
  const response = await fetch("precache.json", { cache: "no-store" });
  const files = (await response.json()) as string[];
  const cache = await caches.open(PAGE);
  await cache.addAll(files);
  await self.skipWaiting();
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) if (name !== PAGE && name !== MODELS) await caches.delete(name);
  await self.clients.claim();
}

async function answer(request: Request, url: URL): Promise<Response> {
  const isModel = url.pathname.includes("/models/");
  if (!isModel) {
    const kept = await caches.match(request, { ignoreSearch: true });
    return kept ?? fetch(request);
  }
  const cache = await caches.open(MODELS);
  if (!FRESH.test(url.pathname)) {
    const kept = await cache.match(request);
    if (kept) return kept;
  }
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
}
