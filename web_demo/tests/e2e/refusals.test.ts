/** What cannot be loaded is refused by name: files that are not whole, other platforms and runtimes, too little memory. */
import { readFileSync } from "node:fs";
import path from "node:path";

import { afterAll, afterEach, expect, test } from "vitest";

import { MODELS, ROOT } from "../unit/kit.ts";
import { Site } from "./browser.ts";
import { lastExchange } from "./stored.ts";

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

const cases: [string, RegExp, (name: string, content: Buffer) => Buffer | null][] = [
  [
    "a damaged file",
    /weights\.data is damaged/,
    (name, content) => {
      if (!name.endsWith("weights.data")) return content;
      const changed = Buffer.from(content);
      changed[1000]! ^= 1;
      return changed;
    },
  ],
  [
    "a truncated file",
    /weights\.data is not whole: .* bytes, not/,
    (name, content) => (name.endsWith("weights.data") ? content.subarray(0, -1) : content),
  ],
  ["a missing file", /model_recur\.onnx is missing/, (name, content) => (name.endsWith("recur.onnx") ? null : content)],
  [
    "swapped files",
    /model_coda\.onnx is not whole/,
    (name, content) => {
      const other = { "model_coda.onnx": "model_recur.onnx", "model_recur.onnx": "model_coda.onnx" }[
        name.split("/")[1]!
      ];
      return other ? readFileSync(path.join(MODELS, name.split("/")[0]!, other)) : content;
    },
  ],
  [
    "a manifest cut off",
    /app\.json cannot be read/,
    (name, content) => (name.endsWith("app.json") ? content.subarray(0, 99) : content),
  ],
  [
    "a later runtime",
    /needs onnxruntime 9\.0/,
    patched({ runtime: { name: "onnxruntime", minimum: "9.0", reason: "a test" } }),
  ],
  ["a model for phones", /bundled for android/, patched({ platform: "android" })],
];

test.each(cases)("%s", async (_, expected, damage) => {
  const visit = await site.visit();
  visit.allowed = /404/;
  site.damage = damage;
  await visit.page.reload();
  const button = visit.page.getByRole("button", { name: "Load parcae-tiny" });
  const shown = visit.page.locator(".wrong:visible");
  await Promise.race([button.waitFor(), shown.first().waitFor()]);
  if (await button.count()) await button.click();
  await shown.first().waitFor();
  expect((await shown.allTextContents()).join("\n")).toMatch(expected);
  expect(await visit.page.locator("#model-name").textContent()).toBe("");
  await visit.leave();
});

test("more memory than a page can have is refused before anything is read", async () => {
  const visit = await site.visit();
  site.damage = (name, content) => {
    if (!name.endsWith("app.json")) return content;
    const manifest = JSON.parse(content.toString()) as { memory: { weights: number } };
    manifest.memory.weights = 5e9;
    return Buffer.from(JSON.stringify(manifest));
  };
  await visit.page.reload();
  const button = visit.page.getByRole("button", { name: "Load parcae-tiny" });
  await button.waitFor();
  expect(await button.isDisabled()).toBe(true);
  expect(await visit.page.locator(".models .wrong").first().textContent()).toMatch(/needs about 6\.\d GB .* at most/);
  await visit.leave();
});

test.each([
  ["no SIMD", "WebAssembly.validate = () => false;", /too old: it has no WebAssembly SIMD/],
  [
    "no more memory for the page",
    'WebAssembly.Memory.prototype.grow = () => { throw new RangeError("grow(): Unable to grow"); };',
    /not enough memory/,
  ],
])("a browser with %s says so", async (_, before, expected) => {
  const visit = await site.visit();
  visit.allowed = /memory|grow|abort/i; // the runtime says it in the console, too
  site.before = before;
  await visit.page.getByRole("button", { name: "Load parcae-tiny" }).click();
  await visit.page.locator("#error").waitFor();
  expect(await visit.page.locator("#error").textContent()).toMatch(expected);
  expect(await visit.page.locator("#model-name").textContent()).toBe("");
  site.before = "";
  await visit.load("parcae-tiny");
  await visit.leave();
});

test("a folder of one's own loads, and one without app.json is named", async () => {
  const visit = await site.visit();
  await visit.page.locator("#own-folder").setInputFiles(path.join(MODELS, "rounded"));
  await visit.page.waitForFunction(() => document.getElementById("model-name")?.textContent === "rounded");
  await visit.set({ most: 4 });
  await visit.ask("import ");
  expect(lastExchange(await visit.stored()).answers[0]!.turn.tokens.length).toBeGreaterThan(0);
  await visit.page.getByRole("link", { name: "Model", exact: true }).click();
  await visit.page.locator("#own-folder").setInputFiles(path.join(ROOT, "app_kit/tokenizers"));
  await visit.page.locator("#error").waitFor();
  expect(await visit.page.locator("#error").textContent()).toContain("tokenizers/app.json is missing");
  await visit.leave();
});

function patched(values: Record<string, unknown>): (name: string, content: Buffer) => Buffer {
  return (name, content) => {
    if (!name.endsWith("app.json")) return content;
    return Buffer.from(JSON.stringify({ ...(JSON.parse(content.toString()) as object), ...values }));
  };
}
