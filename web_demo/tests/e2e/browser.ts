/** Headless Chromium on the built page, served with models that a test may damage. Nothing else is asked for. */
import { createServer, type Server } from "node:http";
import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";

import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { expect } from "vitest";

import { MODELS, ROOT } from "../unit/kit.ts";
import type { StoredConversation } from "./stored.ts";

const DIST = path.join(ROOT, "web_demo/dist");
/** Where screenshots and downloads are left. */
export const OUT = path.join(ROOT, "build/web-test");
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};
/** A name of this server that is neither localhost nor https: what another device in the same network sees. */
const OTHER = "parcae.test";
const FLAGS = [
  `--host-resolver-rules=MAP ${OTHER} 127.0.0.1`,
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function launch(): Promise<Browser> {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, headless: true, args: FLAGS });
}

/** What is served in place of a model's file; null: it is not there. */
export type Damage = (name: string, content: Buffer) => Buffer | null;

export class Site {
  damage: Damage | null = null;
  /** Code that the page's worker begins with: it takes from the browser what another one may not have. */
  before = "";
  private constructor(
    private readonly server: Server,
    private readonly browser: Browser,
    readonly url: string,
  ) {}

  static async open(): Promise<Site> {
    mkdirSync(OUT, { recursive: true });
    let site: Site | null = null;
    const server = createServer((request, response) => {
      const name = decodeURIComponent(new URL(request.url!, "http://x").pathname).slice(1) || "index.html";
      const isModel = name.startsWith("models/");
      const file = isModel ? path.join(MODELS, name.slice(7)) : path.join(DIST, name);
      readFile(file)
        .then((content) => (isModel && site?.damage ? site.damage(name.slice(7), content) : content))
        .then((content) => (content && /\/worker-[^/]*\.js$/.test(name) ? site!.before + content.toString() : content))
        .catch(() => null)
        .then((content) => {
          const type = TYPES[path.extname(name)] ?? "application/octet-stream";
          response.writeHead(content ? 200 : 404, { "Content-Type": type, "Cache-Control": "no-cache" }).end(content);
        })
        .catch((error: unknown) => response.destroy(error as Error));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const browser = await launch();
    console.log(`Chromium ${browser.version()}`);
    return (site = new Site(server, browser, `http://127.0.0.1:${port}/`));
  }

  async close(): Promise<void> {
    await this.browser.close();
    this.server.close();
  }

  /** Close what a test that failed left open, and serve everything as it is. */
  async mend(): Promise<void> {
    this.damage = null;
    this.before = "";
    for (const context of this.browser.contexts()) await context.close();
  }

  async visit(options: Parameters<Browser["newContext"]>[0] = {}): Promise<Visit> {
    const context = await this.browser.newContext({ serviceWorkers: "block", ...options });
    return Visit.open(context, this.url);
  }

  /** Visit as another device does, by plain http. */
  async visitFromAfar(): Promise<Visit> {
    return Visit.open(await this.browser.newContext(), this.url.replace("127.0.0.1", OTHER));
  }
}

/** One visitor: a page, and everything that it must not do. */
export class Visit {
  readonly foreign: string[] = [];
  readonly complaints: string[] = [];
  /** Complaints that a test expects: a file that is not there is one, say. */
  allowed = /^$/;

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
  ) {}

  static async open(context: BrowserContext, url: string): Promise<Visit> {
    context.setDefaultTimeout(300_000);
    const page = await context.newPage();
    const visit = new Visit(context, page);
    context.on("request", (request) => {
      if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) visit.foreign.push(request.url());
    });
    page.on("console", (message) => {
      const ours = !/Service Worker registration blocked by Playwright/.test(message.text());
      if (ours && ["error", "warning"].includes(message.type())) visit.complaints.push(message.text());
    });
    page.on("pageerror", (error) => visit.complaints.push(error.message));
    await page.goto(url);
    return visit;
  }

  /** Nothing was asked of another host, and the console is empty. */
  async leave(): Promise<void> {
    expect(this.foreign).toEqual([]);
    expect(this.complaints.filter((text) => !this.allowed.test(text))).toEqual([]);
    await this.context.close();
  }

  async load(name: string): Promise<void> {
    await this.page.getByRole("link", { name: "Model", exact: true }).click();
    await this.page.getByRole("button", { name: `Load ${name}`, exact: true }).click();
    await this.page.waitForFunction((wanted) => document.getElementById("model-name")?.textContent === wanted, name);
    await this.page.getByRole("link", { name: "Chat", exact: true }).click();
  }

  async set(values: Record<string, string | number>): Promise<void> {
    await this.page.locator(".settings").evaluate((details) => ((details as HTMLDetailsElement).open = true));
    for (const [name, value] of Object.entries(values)) {
      await this.page.locator(`#setting-${name}`).fill(String(value));
      await this.page.locator(`#setting-${name}`).blur();
    }
  }

  async slide(loops: number): Promise<void> {
    await this.page.locator("#loops").fill(String(loops));
  }

  async ask(text: string): Promise<void> {
    await this.page.locator("#prompt").fill(text);
    await this.page.getByRole("button", { name: "Send" }).click();
    await this.settle();
  }

  /** Wait until nothing is being computed. */
  async settle(): Promise<void> {
    await this.page.locator("button.danger", { hasText: "Stop" }).waitFor({ state: "hidden" });
    await this.page.locator(".answer.coming").waitFor({ state: "detached" });
  }

  /** What is kept, as the page keeps it. */
  stored(): Promise<StoredConversation[]> {
    return this.page.evaluate(
      () =>
        new Promise<StoredConversation[]>((resolve, reject) => {
          const request = indexedDB.open("parcae");
          request.onerror = () => reject(new Error("no database"));
          request.onsuccess = () => {
            const all = request.result.transaction("conversations").objectStore("conversations").getAll();
            all.onsuccess = () => {
              request.result.close();
              resolve((all.result as StoredConversation[]).sort((a, b) => b.updated - a.updated));
            };
          };
        }),
    );
  }
}
