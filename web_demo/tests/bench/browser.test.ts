/**
 * Load time, first token, tokens per second and memory of the 140M shape in headless Chromium: `make web-bench`.
 *
 * Every point has a browser of its own, so that its memory is its own. Writes build/web-bench/browser.json and .md.
 */
import { readFile } from "node:fs/promises";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { cpus } from "node:os";
import path from "node:path";

import { chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

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
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const LOOPS = [1, 4, 8];
const CONTEXT = 128;
const ENGINES = (process.env.WEB_BENCH_ENGINES ?? "parcae,wllama").split(",") as Asked["engine"][];

interface Row extends Asked, Times {
  isolated: boolean;
  fileBytes: number;
  /** The page's process: at most, and after the last token. */
  peakBytes: number;
  residentBytes: number;
}

const rows: Row[] = [];
let version = "";

/** The built page and the models, with or without the headers that isolate it from other origins. */
async function serve(isolated: boolean): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url!, "http://x").pathname).slice(1) || "index.html";
    const [place, ...rest] = name.split("/") as [string, ...string[]];
    const folder = PLACES[place];
    readFile(folder ? path.join(folder, ...rest) : path.join(OUT, "site", name))
      .then((content) => {
        const type = TYPES[path.extname(name)] ?? "application/octet-stream";
        response.writeHead(200, { "Content-Type": type, ...(isolated ? ISOLATED : {}) }).end(content);
      })
      .catch(() => response.writeHead(404).end());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as { port: number }).port}/` };
}

async function measure(asked: Omit<Asked, "base">, isolated: boolean): Promise<Row> {
  const { server, url } = await serve(isolated);
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  version = browser.version();
  try {
    const page = await browser.newPage();
    await page.goto(url);
    await page.waitForFunction(() => typeof globalThis.measure === "function");
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(isolated);
    const given = { ...asked, base: url };
    const times = await page.evaluate((values) => globalThis.measure(values), given);
    const session = await browser.newBrowserCDPSession();
    const { processInfo } = (await session.send("SystemInfo.getProcessInfo")) as {
      processInfo: { type: string; id: number }[];
    };
    const held = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => memoryOf(id));
    const most = held.reduce((one, other) => (other.peakBytes > one.peakBytes ? other : one));
    return { ...given, ...times, isolated, ...most, fileBytes: await bytesOf(asked) };
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

function table(): string {
  const columns = [
    ...["what", "threads", "isolated", "T", "files", "load", `first token of ${CONTEXT}`, "tokens/s", "process, at most"],
    "after",
  ];
  const line = (cells: string[]): string => `| ${cells.join(" | ")} |`;
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
  const seconds = (value: number): string => `${value.toFixed(2)} s`;
  const lines = rows.map((row) =>
    line([
      row.engine === "parcae" ? "Parcae 140M, int4" : "Llama of equal depth, Q4_0, wllama",
      String(row.threads),
      row.isolated ? "yes" : "no",
      String(row.loops),
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

beforeAll(() => {
  console.log(`${cpus()[0]!.model}, ${cpus().length} processors`);
});

afterAll(() => {
  const about = { chromium: version, processor: cpus()[0]!.model, processors: cpus().length, context: CONTEXT };
  const name = `browser-${ENGINES.join("-")}`;
  writeFileSync(path.join(OUT, `${name}.json`), `${JSON.stringify({ ...about, rows }, null, 1)}\n`);
  writeFileSync(path.join(OUT, `${name}.md`), `${table()}\n`);
  console.log(`Chromium ${version}, ${about.processor}\n${table()}`);
});

const POINTS = ENGINES.flatMap((engine) =>
  [
    { threads: 1, isolated: false },
    { threads: 1, isolated: true },
    { threads: 2, isolated: true },
  ].flatMap((how) => LOOPS.map((loops) => ({ engine, loops, ...how }))),
);
test.each(POINTS)("$engine T=$loops, $threads threads, isolated $isolated", async ({ isolated, ...asked }) => {
  const row = await measure({ ...asked, context: CONTEXT }, isolated);
  expect(row.tokensPerSecond).toBeGreaterThan(0);
  rows.push(row);
});
