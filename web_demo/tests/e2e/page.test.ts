/** The page itself: its weight, and that it works without a network. */
import { readdirSync, statSync } from "node:fs";
import path from "node:path";

import { afterAll, afterEach, expect, test } from "vitest";

import { ROOT } from "../unit/kit.ts";
import { Site } from "./browser.ts";
import { lastExchange } from "./stored.ts";

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

test("the page without model and runtime weighs less than 300 kB", () => {
  const dist = path.join(ROOT, "web_demo/dist");
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => path.join(entry.parentPath, entry.name));
  const own = paths.filter((file) => !/\/(models|runtime)\//.test(file));
  const bytes = own.reduce((sum, file) => sum + statSync(file).size, 0);
  console.log(`page: ${(bytes / 1000).toFixed(0)} kB`);
  expect(bytes).toBeLessThan(300_000);
});

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
  expect(lastExchange(await visit.stored()).answers[0]!.turn.tokens.length).toBe(6);
  await visit.leave();
});

test("by plain http from another device it answers, keeps and copies; it only needs the network again", async () => {
  const visit = await site.visitFromAfar();
  const { page } = visit;
  expect(await page.evaluate(() => [isSecureContext, "randomUUID" in crypto, "clipboard" in navigator])).toEqual([
    false,
    false,
    false,
  ]);
  await visit.load("parcae-tiny");
  await visit.set({ most: 6 });
  await visit.ask("def afar(");
  const [kept] = await visit.stored();
  expect(kept!.id).toMatch(/^[0-9a-f]{32}$/);
  const { pieces } = lastExchange([kept!]).answers[0]!;
  expect(pieces.length).toBe(6);
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  await page.locator("#status", { hasText: "Copied." }).waitFor();
  await page.locator("#prompt").fill("");
  await page.locator("#prompt").press("Control+V");
  expect(await page.locator("#prompt").inputValue()).toBe(pieces.join(""));
  await visit.leave();
});
