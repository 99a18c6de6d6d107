/** Keyboard, screen reader, phone and desktop, light and dark. */
import path from "node:path";

import { source as axe } from "axe-core";
import type { AxeResults } from "axe-core";
import { afterAll, afterEach, describe, expect, test } from "vitest";

import { OUT, Site } from "./browser.ts";
import { lastExchange } from "./stored.ts";

const VIEWS = ["chat", "model", "self-test", "bench"];

const site = await Site.open();
afterEach(() => site.mend());
afterAll(() => site.close());

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
  await page.waitForFunction(() => document.activeElement?.id === "view-chat");
  await reach("#prompt");
  await page.keyboard.type("import ");
  await reach("#loops");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await reach(".primary");
  await page.keyboard.press("Enter");
  await visit.settle();
  expect(lastExchange(await visit.stored()).answers[0]!.turn.loops).toBe(2);

  // What was pressed has the keyboard again after the answer, although it was disabled or drawn anew meanwhile.
  const held = (): Promise<string | null> => page.evaluate(() => document.activeElement!.textContent);
  expect(await held()).toBe("Send");
  await reach("#loops");
  await page.keyboard.press("ArrowRight");
  await reach(".regenerate");
  await page.keyboard.press("Enter");
  await visit.settle();
  expect(await held()).toBe("Regenerate at T = 3");
  await reach(".answer .actions button:last-child:not(:first-child)");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement?.id === "prompt");
  expect(lastExchange(await visit.stored()).chosen).toBe(0);
  await reach('#tabs a[href="#self-test"]');
  await page.keyboard.press("Enter");
  await reach("#view-self-test .primary");
  await page.keyboard.press("Enter");
  await page.locator(".verdict").waitFor();
  await page.waitForFunction(() => document.activeElement?.textContent === "Run the self-test");
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
