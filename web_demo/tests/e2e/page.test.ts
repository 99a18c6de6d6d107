/** The app in headless Chromium: what a person does with it, and what it must never do. */
import { mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";

import { source as axe } from "axe-core";
import type { AxeResults } from "axe-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { MODELS, ROOT, vectors } from "../unit/kit.ts";
import { Site, type StoredConversation } from "./browser.ts";

const OUT = path.join(ROOT, "build/web-test");
const VIEWS = ["chat", "model", "self-test", "bench"];
let site: Site;

beforeAll(async () => {
  mkdirSync(OUT, { recursive: true });
  site = await Site.open();
  console.log(`Chromium ${site.version()}`);
});
beforeEach(() => {
  site.damage = null;
});
afterEach(() => site.leaveAll());
afterAll(() => site.close());

const last = (stored: StoredConversation[]): StoredConversation["exchanges"][number] => stored[0]!.exchanges.at(-1)!;

/** What the page says it executed, against what it says each token took. */
function expectTrue(answer: StoredConversation["exchanges"][number]["answers"][number], chunk = 128): void {
  const { given, loops, loopsUsed } = answer.turn;
  const sum = loopsUsed.slice(1).reduce((total, used) => total + used, Math.ceil(given.length / chunk) * loops);
  expect(answer.metrics.executedLoops).toBe(sum);
  expect(answer.changes.map((changes) => changes.length)).toEqual(loopsUsed);
}

test("the page without model and runtime weighs less than 300 kB", () => {
  const dist = path.join(ROOT, "web_demo/dist");
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => path.join(entry.parentPath, entry.name));
  const own = paths.filter((file) => !/\/(models|runtime)\//.test(file));
  const bytes = own.reduce((sum, file) => sum + statSync(file).size, 0);
  console.log(`page: ${(bytes / 1000).toFixed(0)} kB`);
  expect(bytes).toBeLessThan(300_000);
});

describe("a conversation", () => {
  test("greedy answers at T = 1, 4 and 8 are Python's, and the loops that ran are those that are shown", async () => {
    const { greedy } = vectors<{
      greedy: { prompt: string; policy: string; loops: number; tokens: number[]; given: number[] }[];
    }>("model");
    const visit = await site.visit();
    await visit.load("exact-shared");
    await visit.set({ temperature: 0 });
    for (const each of greedy.filter(({ policy, loops }) => policy === "shared" && [1, 4, 8].includes(loops))) {
      await visit.page.getByRole("button", { name: "New conversation" }).first().click();
      await visit.set({ most: each.tokens.length });
      await visit.slide(each.loops);
      await visit.ask(each.prompt);
      const [answer] = last(await visit.stored()).answers;
      expect(answer!.turn.given).toEqual(each.given);
      expect(answer!.turn.tokens).toEqual(each.tokens);
      expect(answer!.turn.loops).toBe(each.loops);
      expectTrue(answer!);
      expect(await visit.page.locator(".answer .badge").first().textContent()).toBe(`T = ${each.loops}`);
      expect(answer!.metrics.firstToken).toBeLessThan(2);
    }
    await visit.leave();
  });

  test("another T, four T side by side with the first difference marked, early exit, stop", async () => {
    const visit = await site.visit({ viewport: { width: 1280, height: 900 } });
    const { page } = visit;
    await visit.load("parcae-tiny");
    await visit.set({ temperature: 0, most: 24 });
    await visit.slide(2);
    await visit.ask("class Stack:\n    def __init__(self):\n");
    await visit.slide(6);
    await page.getByRole("button", { name: "Regenerate at T = 6" }).click();
    await visit.settle();
    let answers = last(await visit.stored()).answers;
    expect(answers.map((answer) => answer.turn.loops)).toEqual([2, 6]);
    answers.forEach((answer) => expectTrue(answer));

    await page.locator("#prompt").fill("\n\nimport os\n\ndef main(");
    await page.getByRole("button", { name: "Compare T" }).click();
    await visit.settle();
    answers = last(await visit.stored()).answers;
    expect(answers.map((answer) => answer.turn.loops)).toEqual([1, 2, 4, 8]);
    const shown = page.locator(".exchange").last().locator(".answer");
    for (const [place, answer] of answers.entries()) {
      const reference = answers[3]!.turn.tokens;
      const differs = reference.findIndex((token, index) => token !== answer.turn.tokens[index]);
      const note = await shown.nth(place).locator(".difference").textContent();
      if (place === 3) expect(note).toMatch(/Reference/);
      else if (differs < 0) expect(note).toMatch(/Same tokens as T = 8/);
      else {
        expect(note).toContain(`from token ${differs + 1} on`);
        const marked = await shown.nth(place).locator("mark").textContent();
        expect(marked).toBe(answer.pieces[differs] || "∎");
      }
    }
    expect(await shown.locator("mark").count()).toBeGreaterThan(0);
    await shown.nth(1).getByRole("button", { name: "Go on from this answer" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".answer.chosen").length > 0);
    expect(last(await visit.stored()).chosen).toBe(1);

    await visit.set({ threshold: 0.1 });
    await visit.slide(8);
    await visit.ask("\n\nfor value in values:\n");
    const [early] = last(await visit.stored()).answers;
    expectTrue(early!);
    expect(Math.min(...early!.turn.loopsUsed.slice(1))).toBeLessThan(8);
    const measured = page.locator(".exchange").last().locator(".measured");
    await measured.locator("summary").click();
    await measured.locator(".meter").focus();
    await page.keyboard.press("End");
    expect(await measured.locator(".meter-token").textContent()).toMatch(/^Token \d+ .*: \d loops; state changed by/);

    await visit.set({ threshold: 0, most: 900 });
    await visit.slide(16);
    await page.locator("#prompt").fill("\n\ndef long(");
    await page.getByRole("button", { name: "Send" }).click();
    await page.waitForFunction(() => (document.querySelector(".coming .text")?.textContent ?? "").length > 10);
    await page.getByRole("button", { name: "Stop" }).click();
    await visit.settle();
    const [stopped] = last(await visit.stored()).answers;
    expect(stopped!.ending).toBe("user");
    expect(stopped!.turn.tokens.length).toBeLessThan(900);
    // At most one loop ran beyond the last token that is shown, the one inside of which the stop came.
    const { given, loops, loopsUsed } = stopped!.turn;
    const sum = loopsUsed.slice(1).reduce((total, used) => total + used, Math.ceil(given.length / 128) * loops);
    expect(stopped!.metrics.executedLoops - sum).toBeLessThanOrEqual(16);
    await visit.leave();
  });

  test("a reload keeps it, and it goes on as one that was never left", async () => {
    const visit = await site.visit();
    const { page } = visit;
    await visit.load("parcae-tiny");
    await visit.set({ temperature: 1, top_k: 0, seed: 7, most: 20, threshold: 0.05 });
    await visit.slide(8);
    const texts = ["def total(values):\n", "\n\nfor name in "];
    for (const text of texts) await visit.ask(text);
    const never = last(await visit.stored()).answers[0]!;
    await page.getByRole("button", { name: "New conversation" }).first().click();
    await visit.ask(texts[0]!);
    await page.reload();
    await page.waitForFunction(() => document.getElementById("model-name")?.textContent === "parcae-tiny");
    expect(await page.locator(".message").textContent()).toContain("def total(values)");
    await visit.slide(8);
    await visit.ask(texts[1]!);
    const left = last(await visit.stored()).answers[0]!;
    expect(left.turn).toEqual(never.turn);
    expect(left.changes).toEqual(never.changes);
    expectTrue(left);
    await visit.leave();
  });

  test("conversations are searched, exported and deleted", async () => {
    const visit = await site.visit();
    const { page } = visit;
    await visit.load("parcae-tiny");
    await visit.set({ most: 4 });
    await visit.ask("alpha = 1\n");
    await page.getByRole("button", { name: "New conversation" }).first().click();
    await visit.ask("omega = 2\n");
    await page.getByRole("searchbox").fill("alpha");
    expect(await page.locator(".conversations li").count()).toBe(1);
    await page.getByRole("button", { name: "alpha = 1", exact: true }).click();
    const [json] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: /Export as JSON/ }).click(),
    ]);
    const saved = JSON.parse(readFileSync(await json.path(), "utf8")) as StoredConversation;
    expect(saved.exchanges[0]!.text).toBe("alpha = 1\n");
    const [text] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: /Export as text/ }).click(),
    ]);
    expect(readFileSync(await text.path(), "utf8")).toContain("## Answer, T = 6");
    await page.getByRole("button", { name: /^Delete: / }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.waitForFunction(() =>
      document.querySelector(".conversations li")?.textContent.includes("No conversation has"),
    );
    expect((await visit.stored()).length).toBe(1);
    await visit.leave();
  });
});

describe("checks on the device", () => {
  test.each(["parcae-tiny", "rounded"])("the self-test of %s passes and shows what it measured", async (name) => {
    const visit = await site.visit();
    await visit.load(name);
    await visit.page.getByRole("link", { name: "Self-test" }).click();
    await visit.page.getByRole("button", { name: "Run the self-test" }).click();
    await visit.page.locator(".verdict").waitFor();
    expect(await visit.page.locator(".verdict").textContent()).toMatch(/^Passed/);
    expect(await visit.page.locator("#view-self-test td").allTextContents()).toContain("100 %");
    await visit.leave();
  });

  test("the self-test fails where golden values are not the model's", async () => {
    const visit = await site.visit();
    // Golden values that were changed along with their checksum: only arithmetic can tell.
    site.damage = (name, content) => {
      if (name !== "parcae-tiny/app.json") return content;
      const manifest = JSON.parse(content.toString()) as { self_test: { input_ids: number[] } };
      manifest.self_test.input_ids[1] = 17;
      return Buffer.from(JSON.stringify(manifest));
    };
    await visit.page.reload();
    await visit.load("parcae-tiny");
    await visit.page.getByRole("link", { name: "Self-test" }).click();
    await visit.page.getByRole("button", { name: "Run the self-test" }).click();
    await visit.page.locator(".verdict").waitFor();
    expect(await visit.page.locator(".verdict").textContent()).toMatch(/^Failed/);
    await visit.leave();
  });

  test("the benchmark gives a file that parcae-export bench reads", async () => {
    const visit = await site.visit();
    const { page } = visit;
    await visit.load("parcae-tiny");
    await page.getByRole("link", { name: "Benchmark" }).click();
    await page.getByLabel("128", { exact: true }).uncheck();
    await page.getByRole("button", { name: "Run the benchmark" }).click();
    const [file] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Save bench.json" }).click(),
    ]);
    await file.saveAs(path.join(OUT, "bench.json"));
    const table = JSON.parse(readFileSync(path.join(OUT, "bench.json"), "utf8")) as {
      rows: { variant: { loops: number }; speeds: { decode_ms: number }[] }[];
    };
    expect(table.rows.map((row) => row.variant.loops)).toEqual([1, 4, 8]);
    const [one, , eight] = table.rows.map((row) => row.speeds[0]!.decode_ms);
    expect(eight).toBeGreaterThan(one!);
    await visit.leave();
  });
});

describe("a model that is not whole is refused by name", () => {
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
    [
      "a missing file",
      /model_recur\.onnx is missing/,
      (name, content) => (name.endsWith("recur.onnx") ? null : content),
    ],
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

  test("a folder of one's own loads, and one without app.json is named", async () => {
    const visit = await site.visit();
    await visit.page.locator("#own-folder").setInputFiles(path.join(MODELS, "rounded"));
    await visit.page.waitForFunction(() => document.getElementById("model-name")?.textContent === "rounded");
    await visit.set({ most: 4 });
    await visit.ask("import ");
    expect(last(await visit.stored()).answers[0]!.turn.tokens.length).toBeGreaterThan(0);
    await visit.page.getByRole("link", { name: "Model", exact: true }).click();
    await visit.page.locator("#own-folder").setInputFiles(path.join(ROOT, "app_kit/tokenizers"));
    await visit.page.locator("#error").waitFor();
    expect(await visit.page.locator("#error").textContent()).toContain("tokenizers/app.json is missing");
    await visit.leave();
  });
});

function patched(values: Record<string, unknown>): (name: string, content: Buffer) => Buffer {
  return (name, content) => {
    if (!name.endsWith("app.json")) return content;
    return Buffer.from(JSON.stringify({ ...(JSON.parse(content.toString()) as object), ...values }));
  };
}

test("after the first visit it works offline", async () => {
  const visit = await site.visit({ serviceWorkers: "allow" });
  const { page } = visit;
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
  await page.reload();
  await visit.load("parcae-tiny");
  await visit.context.setOffline(true);
  await page.reload();
  await page.waitForFunction(() => document.getElementById("model-name")?.textContent === "parcae-tiny");
  await visit.set({ most: 6 });
  await visit.ask("def offline(");
  expect(last(await visit.stored()).answers[0]!.turn.tokens.length).toBe(6);
  await visit.leave();
});

test("it can be used by keyboard alone", async () => {
  const visit = await site.visit();
  const { page } = visit;
  await page.getByRole("button", { name: "Load parcae-tiny" }).waitFor();
  const reach = async (selector: string): Promise<void> => {
    for (let press = 0; press < 60; press++) {
      if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`the Tab key never reaches ${selector}`);
  };
  await page.evaluate(() =>
    [...document.querySelectorAll("button")].find((b) => b.textContent === "Load parcae-tiny")?.classList.add("wanted"),
  );
  await reach(".wanted");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("model-name")?.textContent === "parcae-tiny");
  await reach("#prompt");
  await page.keyboard.type("import ");
  await reach("#loops");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await reach(".primary");
  await page.keyboard.press("Enter");
  await visit.settle();
  expect(last(await visit.stored()).answers[0]!.turn.loops).toBe(2);
  await visit.leave();
});

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test.each([
    ["desktop", 1280, 900],
    ["phone", 390, 844],
  ])("%s: axe finds nothing, nothing is cut off", async (device, width, height) => {
    const visit = await site.visit({ colorScheme, viewport: { width, height } });
    const { page } = visit;
    await visit.load("parcae-tiny");
    await visit.set({ temperature: 0, most: 40, threshold: 0.05 });
    await visit.slide(8);
    await visit.ask("class Stack:\n    def __init__(self):\n");
    await visit.set({ threshold: 0 });
    await page.locator("#prompt").fill("\n\nimport os\n\ndef ");
    await page.getByRole("button", { name: "Compare T" }).click();
    await visit.settle();
    await page.locator(".measured summary").first().click();
    await page.locator(".settings").evaluate((details) => ((details as HTMLDetailsElement).open = false));
    await page.getByRole("link", { name: "Self-test" }).click();
    await page.getByRole("button", { name: "Run the self-test" }).click();
    await page.locator(".verdict").waitFor();
    const found: string[] = [];
    for (const view of VIEWS) {
      await page.evaluate((name) => (location.hash = `#${name}`), view);
      await page.locator(`#view-${view}`).waitFor();
      await page.screenshot({ path: path.join(OUT, `${device}-${colorScheme}-${view}.png`), fullPage: true });
      await page.evaluate(axe);
      const results = await page.evaluate(() =>
        (window as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run(),
      );
      for (const { id, nodes } of results.violations)
        found.push(`${view}: ${id}: ${nodes.map((n) => n.html).join(" ")}`);
      const { scrollWidth, clientWidth } = await page.evaluate(() => ({
        scrollWidth: document.documentElement.scrollWidth,
        clientWidth: document.documentElement.clientWidth,
      }));
      if (scrollWidth > clientWidth) found.push(`${view} is ${scrollWidth - clientWidth} pixels too wide`);
    }
    expect(found).toEqual([]);
    await visit.leave();
  });
});
