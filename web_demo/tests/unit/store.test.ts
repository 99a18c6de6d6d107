/** What the page does without a browser's database: the ids of conversations. */
import { expect, test } from "vitest";

import { newId } from "../../src/store.ts";

test("ids are random, also where crypto has no more than a page by plain http is given", () => {
  const whole = Object.getOwnPropertyDescriptor(globalThis, "crypto")!;
  const getRandomValues = crypto.getRandomValues.bind(crypto);
  Object.defineProperty(globalThis, "crypto", { value: { getRandomValues }, configurable: true });
  try {
    const ids = Array.from({ length: 1000 }, newId);
    expect(new Set(ids).size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
  } finally {
    Object.defineProperty(globalThis, "crypto", whole);
  }
});
