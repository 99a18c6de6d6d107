/** Answers: greedy ones against Python's, at another T, side by side, with early exit, and stopped. */
import { afterAll, afterEach, expect, test } from "vitest";

import { vectors } from "../unit/kit.ts";
import { Site } from "./browser.ts";
import { expectExecuted, lastExchange, shownLoops } from "./stored.ts";

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

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
    const [answer] = lastExchange(await visit.stored()).answers;
    expect(answer!.turn.given).toEqual(each.given);
    expect(answer!.turn.tokens).toEqual(each.tokens);
    expect(answer!.turn.loops).toBe(each.loops);
    expectExecuted(answer!);
    expect(await visit.page.locator(".answer .badge").first().textContent()).toBe(`T = ${each.loops}`);
    expect(answer!.metrics.firstToken).toBeLessThan(2);
  }
  await visit.leave();
});

test("another T, and four T side by side with the first difference marked", async () => {
  const visit = await site.visit({ viewport: { width: 1280, height: 900 } });
  const { page } = visit;
  await visit.load("parcae-tiny");
  await visit.set({ temperature: 0, most: 24 });
  await visit.slide(2);
  await visit.ask("class Stack:\n    def __init__(self):\n");
  await visit.slide(6);
  await page.getByRole("button", { name: "Regenerate at T = 6" }).click();
  await visit.settle();
  let answers = lastExchange(await visit.stored()).answers;
  expect(answers.map((answer) => answer.turn.loops)).toEqual([2, 6]);
  answers.forEach((answer) => expectExecuted(answer));

  await page.locator("#prompt").fill("\n\nimport os\n\ndef main(");
  await page.getByRole("button", { name: "Compare T" }).click();
  await visit.settle();
  answers = lastExchange(await visit.stored()).answers;
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
  expect(lastExchange(await visit.stored()).chosen).toBe(1);
  await visit.ask("\n\nfor value in values:\n");
  expectExecuted(lastExchange(await visit.stored()).answers[0]!);
  await visit.leave();
});

test("a token leaves the loop early, and the meter draws how long each one stayed", async () => {
  const visit = await site.visit();
  const { page } = visit;
  await visit.load("parcae-tiny");
  await visit.set({ temperature: 0, most: 24, threshold: 0.1 });
  await visit.slide(8);
  await visit.ask("\n\nfor value in values:\n");
  const [early] = lastExchange(await visit.stored()).answers;
  expectExecuted(early!);
  expect(Math.min(...early!.turn.loopsUsed.slice(1))).toBeLessThan(8);
  const measured = page.locator(".exchange").last().locator(".measured");
  await measured.locator("summary").click();
  await measured.locator(".meter").focus();
  await page.keyboard.press("End");
  expect(await measured.locator(".meter-token").textContent()).toMatch(/^Token \d+ .*: \d loops; state changed by/);
  const { metrics } = early!;
  const shown = await measured.locator(".fact", { hasText: "Memory" }).textContent();
  expect(shown).toMatch(/[\d.]+ MB: weights [\d.]+ MB, cache [\d.]+ MB/);
  expect(metrics.weightBytes + metrics.cacheBytes).toBeLessThan(metrics.heapBytes);
  await visit.leave();
});

test("a stop ends an answer, and no loop runs on", async () => {
  const visit = await site.visit();
  const { page } = visit;
  await visit.load("parcae-tiny");
  await visit.set({ temperature: 0, most: 900 });
  await visit.slide(16);
  await page.locator("#prompt").fill("\n\ndef long(");
  await page.getByRole("button", { name: "Send" }).click();
  await page.waitForFunction(() => (document.querySelector(".coming .text")?.textContent ?? "").length > 10);
  await page.getByRole("button", { name: "Stop" }).click();
  await visit.settle();
  const [stopped] = lastExchange(await visit.stored()).answers;
  expect(stopped!.ending).toBe("user");
  expect(stopped!.turn.tokens.length).toBeLessThan(900);
  // Beyond the last token that is shown ran at most the loops of the one inside of which the stop came.
  expect(stopped!.metrics.executedLoops - shownLoops(stopped!)).toBeLessThanOrEqual(16);
  await visit.leave();
});
