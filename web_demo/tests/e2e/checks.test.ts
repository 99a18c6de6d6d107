/** The self-test and the benchmark. */
import { readFileSync } from "node:fs";
import path from "node:path";

import { afterAll, afterEach, expect, test } from "vitest";

import { OUT, Site } from "./browser.ts";
import { lastExchange } from "./stored.ts";

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

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

test("a self-test that is asked for during an answer waits for it and changes nothing in it", async () => {
  const visit = await site.visit();
  const { page } = visit;
  await visit.load("parcae-tiny");
  await visit.set({ temperature: 0, most: 400 });
  await visit.ask("class Stack:\n");
  const alone = lastExchange(await visit.stored()).answers[0]!.turn.tokens;
  await page.getByRole("button", { name: "New conversation" }).first().click();
  await page.locator("#prompt").fill("class Stack:\n");
  await page.getByRole("button", { name: "Send" }).click();
  await page.waitForFunction(() => (document.querySelector(".coming .text")?.textContent ?? "").length > 10);
  await page.getByRole("link", { name: "Self-test" }).click();
  await page.getByRole("button", { name: "Run the self-test" }).click();
  await page.locator(".verdict").waitFor();
  expect(await page.locator(".verdict").textContent()).toMatch(/^Passed/);
  await visit.settle();
  const both = (await visit.stored()).map((conversation) => lastExchange([conversation]).answers[0]!.turn.tokens);
  expect(both).toEqual([alone, alone]);
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
