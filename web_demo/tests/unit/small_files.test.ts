/** Files that are read before anything can be known of them: bounded, and refused by kind. */
import { expect, test } from "vitest";

import { readStart } from "../../engine/files.ts";
import { MOST_MANIFEST } from "../../engine/manifest.ts";
import { SIGNATURE_BYTES } from "../../engine/signature.ts";
import { signedManifest } from "../../src/signed.ts";

/** A stream without an end, and how much of it was taken. */
function endless(chunk: number): { stream: ReadableStream<Uint8Array>; taken: () => number; cancelled: () => boolean } {
  let taken = 0;
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      taken += chunk;
      controller.enqueue(new Uint8Array(chunk).fill(32));
    },
    cancel() {
      cancelled = true;
    },
  });
  return { stream, taken: () => taken, cancelled: () => cancelled };
}

test.each([MOST_MANIFEST, SIGNATURE_BYTES])("of an endless file %d bytes and one are read", async (most) => {
  const file = endless(50_000);
  expect(await readStart(file.stream, most)).toHaveLength(most + 1);
  expect(file.taken()).toBeLessThanOrEqual(most + 100_000);
  expect(file.cancelled()).toBe(true);
});

test("a file within its bound is read whole, in however many pieces it comes", async () => {
  const content = Uint8Array.from({ length: 1000 }, (_, place) => place % 251);
  const pieces = [content.subarray(0, 1), content.subarray(1, 999), content.subarray(999)];
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
  expect(await readStart(stream, 1000)).toEqual(content);
});

test.each(["", "a".repeat(64)])(
  "a manifest that is too large is refused as that, with the pinned key '%s'",
  async (key) => {
    const bytes = await readStart(endless(1 << 16).stream, MOST_MANIFEST);
    const refused = signedManifest(bytes, () => Promise.resolve(null), key);
    await expect(refused).rejects.toMatchObject({ kind: "json" });
    await expect(refused).rejects.toThrow(/more than 1000000 bytes/);
  },
);
