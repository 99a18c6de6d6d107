/**
 * Load time, first token, tokens per second and memory of the 140M shape in headless Chromium: `make web-bench`.
 *
 * Every point has a browser of its own, so that its memory is its own. Writes a .json and a .md for each engine into
 * build/web-bench. WEB_BENCH_ENGINES=parcae or =wllama measures the one alone.
 */
import { readFile } from "node:fs/promises";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { cpus } from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";
import { afterAll, expect, test } from "vitest";

import { ROOT } from "../unit/kit.ts";
import type { Asked, Times } from "./page.ts";

const OUT = path.join(ROOT, "build/web-bench");
const MODULES = path.join(ROOT, "web_demo/node_modules");
const PLACES: Record<string, string> = {
  model: path.join(OUT, "models/parcae-140m"),
  llama: path.join(OUT, "llama"),
  runtime: path.join(MODULES, "onnxruntime-web/dist"),
  wllama: path.join(MODULES, "@wllama/wllama/esm/wasm"),
};
const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
// Threads share memory, which needs a page that is isolated from other origins.
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const LOOPS = [1, 4, 8];
const CONTEXT = 128;
const ENGINES = (process.env.WEB_BENCH_ENGINES ?? "parcae,wllama").split(",") as Asked["engine"][];
const TITLES = {
  parcae: "Parcae, the 140M shape, int4, in this project's engine",
  wllama: "A Llama of equal depth and width, Q4_0, in wllama",
};

interface Row extends Asked, Times {
  fileBytes: number;
  /** The page's process: at most, and after the last token. */
  peakBytes: number;
  residentBytes: number;
}

const rows: Row[] = [];
let version = "";

/** The built page, the models and both runtimes. */
async function serve(): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url!, "http://x").pathname).slice(1) || "index.html";
    const [place, ...rest] = name.split("/") as [string, ...string[]];
    const folder = PLACES[place];
    readFile(folder ? path.join(folder, ...rest) : path.join(OUT, "site", name))
      .then((content) => {
        const type = TYPES[path.extname(name)] ?? "application/octet-stream";
        response.writeHead(200, { "Content-Type": type, ...HEADERS }).end(content);
      })
      .catch(() => response.writeHead(404).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as { port: number }).port}/` };
}

async function measure(asked: Omit<Asked, "base">): Promise<Row> {
  const { server, url } = await serve();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  version = browser.version();
  try {
    const page = await browser.newPage();
    await page.goto(url);
    await page.waitForFunction(() => typeof globalThis.measure === "function");
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
    const given = { ...asked, base: url };
    const times = await page.evaluate((values) => globalThis.measure(values), given);
    const session = await browser.newBrowserCDPSession();
    const { processInfo } = (await session.send("SystemInfo.getProcessInfo")) as {
      processInfo: { type: string; id: number }[];
    };
    const held = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => memoryOf(id));
    const most = held.reduce((one, other) => (other.peakBytes > one.peakBytes ? other : one));
    return { ...given, ...times, ...most, fileBytes: await bytesOf(asked) };
  } finally {
    await browser.close();
    server.close();
  }
}

/** Resident bytes of a process, as Linux tells them. */
function memoryOf(id: number): { peakBytes: number; residentBytes: number } {
  const status = readFileSync(`/proc/${id}/status`, "utf8");
  const field = (name: string): number => 1024 * Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1] ?? 0);
  return { peakBytes: field("VmHWM"), residentBytes: field("VmRSS") };
}

async function bytesOf({ engine, loops }: Omit<Asked, "base">): Promise<number> {
  if (engine === "wllama") return (await readFile(path.join(PLACES.llama!, `T${loops}.gguf`))).length;
  const text = await readFile(path.join(PLACES.model!, "app.json"), "utf8");
  const { files } = JSON.parse(text) as { files: Record<string, { bytes: number }> };
  return Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
}

function table(measured: Row[]): string {
  const columns = ["T", "threads", "files", "loading", `first token after ${CONTEXT}`, "tokens/s", "memory, at most"];
  columns.push("memory at the end");
  const line = (cells: string[]): string => `| ${cells.join(" | ")} |`;
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
  const seconds = (value: number): string => `${value.toFixed(2)} s`;
  const lines = measured.map((row) =>
    line([
      String(row.loops),
      String(row.threads),
      megabytes(row.fileBytes),
      seconds(row.readSeconds + row.openSeconds),
      seconds(row.firstTokenSeconds),
      row.tokensPerSecond.toFixed(1),
      megabytes(row.peakBytes),
      megabytes(row.residentBytes),
    ]),
  );
  return [line(columns), line(columns.map(() => "---")), ...lines].join("\n");
}

afterAll(() => {
  const about = { chromium: version, processor: cpus()[0]!.model, processors: cpus().length, context: CONTEXT };
  console.log(`Chromium ${version}, ${about.processor}, ${about.processors} processors`);
  for (const engine of ENGINES) {
    const measured = rows.filter((row) => row.engine === engine);
    writeFileSync(path.join(OUT, `${engine}.json`), `${JSON.stringify({ ...about, rows: measured }, null, 1)}\n`);
    writeFileSync(path.join(OUT, `${engine}.md`), `${TITLES[engine]}\n\n${table(measured)}\n`);
  }
});

const POINTS = ENGINES.flatMap((engine) =>
  [1, 2].flatMap((threads) => LOOPS.map((loops) => ({ engine, loops, threads, context: CONTEXT }))),
);
test.each(POINTS)("$engine T=$loops, $threads threads", async (asked) => {
  const row = await measure(asked);
  expect(row.tokensPerSecond).toBeGreaterThan(0);
  rows.push(row);
});
