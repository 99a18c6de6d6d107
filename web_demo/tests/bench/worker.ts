/** One model in the engine, loaded and timed at one loop count; the page's worker does the same for the app. */
import { bench } from "../../engine/bench.ts";
import { readFiles, urlSource } from "../../engine/files.ts";
import { readManifest } from "../../engine/manifest.ts";
import { openModel } from "../../engine/open.ts";
import type { Asked, Times } from "./page.ts";

addEventListener("message", ({ data }: MessageEvent<Asked>) => {
  measure(data)
    .then((times) => postMessage({ times }))
    .catch((error: unknown) => postMessage({ error: String(error) }));
});

async function measure({ base, loops, context, threads }: Asked): Promise<Times> {
  const started = performance.now();
  const folder = `${base}model/`;
  const manifest = readManifest(await (await fetch(`${folder}app.json`)).text());
  const files = await readFiles(manifest, urlSource(folder, manifest));
  const read = performance.now();
  const model = await openModel(manifest, files, `${base}runtime/`, "in place", threads);
  files.clear();
  const opened = performance.now();
  const { signal } = new AbortController();
  const device = { processor: navigator.userAgent, cores: navigator.hardwareConcurrency };
  const table = await bench(model, { loops: [loops], contexts: [context], device, signal, progress: () => undefined });
  const { speeds } = table.rows[0]!;
  return {
    readSeconds: (read - started) / 1000,
    openSeconds: (opened - read) / 1000,
    firstTokenSeconds: speeds[0]!.first_token_ms / 1000,
    tokensPerSecond: 1000 / speeds[0]!.decode_ms,
    heapBytes: model.heapBytes(),
  };
}
