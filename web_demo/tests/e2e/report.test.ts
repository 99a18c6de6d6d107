/** The pages that an artifact carries and `parcae-export compare` writes, as a person meets them: offline, from a file. */
import { mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { source as axe } from "axe-core";
import type { AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { ROOT } from "../unit/kit.ts";
import { launch } from "./browser.ts";

/** Pages: made by `make build/report-test/.made`. */
const PAGES = process.env.REPORT_TEST_PAGES ?? path.join(ROOT, "build/report-test");
const OUT = path.join(PAGES, "pictures");
const NAMES = readdirSync(PAGES).filter((name) => name.endsWith(".html"));
let browser: Browser;

beforeAll(async () => {
  mkdirSync(OUT, { recursive: true });
  browser = await launch();
});
afterAll(() => browser.close());

test("there is a judged artifact's page, one that nothing judged, and a page of several", () => {
  expect(NAMES).toEqual(expect.arrayContaining(["judged.html", "not-judged.html", "compare.html"]));
});

/** The least contrast of a picture's text and of its lines, dots and bars, with the card below them. */
function contrasts(page: Page): Promise<{ text: number; shapes: number }> {
  return page.evaluate(() => {
    const channels = (colour: string): number[] => (colour.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (colour: string): number => {
      const [red, green, blue] = channels(colour).map((c) =>
        c <= 10.31475 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4,
      );
      return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
    };
    const contrast = (colour: string, paper: string): number => {
      const [low, high] = [luminance(colour), luminance(paper)].sort((a, b) => a - b);
      return (high! + 0.05) / (low! + 0.05);
    };
    const seen = { text: 21, shapes: 21 };
    for (const figure of document.querySelectorAll("figure")) {
      const paper = getComputedStyle(figure).backgroundColor;
      for (const text of figure.querySelectorAll("svg text"))
        seen.text = Math.min(seen.text, contrast(getComputedStyle(text).fill, paper));
      for (const shape of figure.querySelectorAll("svg path[clip-path][style], svg use[style]")) {
        const { fill, stroke, opacity, strokeOpacity } = getComputedStyle(shape);
        if (Number(opacity) < 1 || Number(strokeOpacity) < 1) continue; // the grid, and bars of what was before
        const drawn = fill !== "none" && channels(fill)[3] !== 0 ? fill : stroke;
        if (drawn !== "none") seen.shapes = Math.min(seen.shapes, contrast(drawn, paper));
      }
    }
    return seen;
  });
}

describe.each(NAMES)("%s", (name) => {
  describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
    test.each([
      ["desktop", 1280, 900],
      ["phone", 390, 844],
    ])("%s: axe finds nothing, nothing is asked for, every picture speaks", async (device, width, height) => {
      const context = await browser.newContext({ colorScheme, viewport: { width, height }, offline: true });
      const page = await context.newPage();
      const address = pathToFileURL(path.join(PAGES, name)).href;
      const foreign: string[] = [];
      const complaints: string[] = [];
      page.on("request", (request) => {
        if (request.url() !== address && !request.url().startsWith("data:")) foreign.push(request.url());
      });
      page.on("console", (message) => complaints.push(message.text()));
      page.on("pageerror", (error) => complaints.push(error.message));
      await page.goto(address);
      await page.screenshot({ path: path.join(OUT, `${name}-${device}-${colorScheme}.png`), fullPage: true });

      const pictures = await page.evaluate(() =>
        [...document.querySelectorAll("figure")].map((figure) => ({
          spoken: figure.querySelector('[role="img"]')?.getAttribute("aria-label") ?? "",
          width: figure.querySelector("svg")?.getBoundingClientRect().width ?? 0,
          letters: Math.min(
            ...[...figure.querySelectorAll("svg text")].map((text) => text.getBoundingClientRect().height),
          ),
        })),
      );
      expect(pictures.length).toBeGreaterThan(0);
      for (const { spoken, width: wide, letters } of pictures) {
        expect(spoken).toMatch(/\d/);
        expect(wide).toBeGreaterThan(280);
        expect(letters).toBeGreaterThan(8);
      }
      const { text, shapes } = await contrasts(page);
      expect(text).toBeGreaterThanOrEqual(4.5);
      expect(shapes).toBeGreaterThanOrEqual(3);

      await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
      const tooWide = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(tooWide).toBe(0);
      await page.evaluate(axe);
      const results = await page.evaluate(() =>
        (window as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run(),
      );
      expect(results.violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`)).toEqual([]);
      expect(results.passes.map(({ id }) => id)).toContain("color-contrast");
      expect(foreign).toEqual([]);
      expect(complaints).toEqual([]);
      await context.close();
    });
  });
});
