/** The kit's signatures: this key's are taken, everything else is refused by kind. */
import { describe, expect, it } from "vitest";

import { EngineError } from "../../engine/errors.ts";
import { checkSignature } from "../../engine/signature.ts";
import { vectors } from "./kit.ts";

interface Case {
  case: string;
  manifest: string;
  signature: string | null;
  key: string;
  valid: boolean;
}

const bytes = (hex: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(hex, "hex"));
const { cases } = vectors<{ cases: Case[] }>("signature");

describe("signatures", () => {
  it.each(cases)("$case", async ({ manifest, signature, key, valid }) => {
    const checked = checkSignature(
      new Uint8Array(new TextEncoder().encode(manifest)),
      signature === null ? null : bytes(signature),
      key,
    );
    if (valid) await expect(checked).resolves.toBeUndefined();
    else await expect(checked).rejects.toMatchObject({ kind: "signature", where: "app.sig" });
  });

  it("refuses a pinned key that is none", async () => {
    await expect(checkSignature(bytes(""), bytes("00"), "xyz")).rejects.toBeInstanceOf(EngineError);
  });

  it("refuses where the browser cannot check", async () => {
    const subtle = Object.getOwnPropertyDescriptor(globalThis, "crypto")!;
    Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
    try {
      const { manifest, signature, key } = cases[0]!;
      const checked = checkSignature(new Uint8Array(new TextEncoder().encode(manifest)), bytes(signature!), key);
      await expect(checked).rejects.toThrow("cannot check");
    } finally {
      Object.defineProperty(globalThis, "crypto", subtle);
    }
  });
});
