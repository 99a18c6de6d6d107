/** Conversations: kept over a reload, searched, exported and deleted. */
import { readFileSync } from "node:fs";

import { afterAll, afterEach, expect, test } from "vitest";

import { Site } from "./browser.ts";
import { expectExecuted, lastExchange, type StoredConversation } from "./stored.ts";

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

test("a reload keeps it, and it goes on as one that was never left", async () => {
  const visit = await site.visit();
  const { page } = visit;
  await visit.load("parcae-tiny");
  await visit.set({ temperature: 1, top_k: 0, seed: 7, most: 20, threshold: 0.05 });
  await visit.slide(8);
  const texts = ["def total(values):\n", "\n\nfor name in "];
  for (const text of texts) await visit.ask(text);
  const never = lastExchange(await visit.stored()).answers[0]!;
  await page.getByRole("button", { name: "New conversation" }).first().click();
  await visit.ask(texts[0]!);
  await page.reload();
  await page.waitForFunction(() => document.getElementById("model-name")?.textContent === "parcae-tiny");
  expect(await page.locator(".message").textContent()).toContain("def total(values)");
  await visit.slide(8);
  await visit.ask(texts[1]!);
  const left = lastExchange(await visit.stored()).answers[0]!;
  expect(left.turn).toEqual(never.turn);
  expect(left.changes).toEqual(never.changes);
  expectExecuted(left);
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
