/**
 * Who made a bundled model: an Ed25519 signature over the bytes of `app.json`, in `app.sig` beside it.
 *
 *     await checkSignature(manifestBytes, signatureBytes, "8a88e3dd...");
 *
 * A manifest lists every file with its SHA-256, so a good signature speaks for all of them. An app that pins a key takes
 * nothing else; `parcae-export sign` writes the signature and prints the key.
 */
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js";

import { EngineError } from "./errors.ts";

export const APP_SIGNATURE = "app.sig";
export const SIGNATURE_BYTES = 64;
const KEY = /^[0-9a-f]{64}$/;

/**
 * Throw `EngineError` of kind signature unless `manifest` bears the signature of `key`, an Ed25519 public key in hexadecimal.
 * A browser that cannot check (before Chromium 137, Firefox 129, Safari 17, or a page without https) refuses too.
 */
export async function checkSignature(
  manifest: Uint8Array<ArrayBuffer>,
  signature: Uint8Array<ArrayBuffer> | null,
  key: string,
): Promise<void> {
  if (!KEY.test(key)) throw refusal(`the pinned key is not 64 hexadecimal digits; build the app with a right one`);
  if (!signature) throw refusal(`there is no ${APP_SIGNATURE}; sign the model with the key ${short(key)}`);
  const wrong = refusal(`it does not bear the signature of ${short(key)}; do not use it`);
  if (signature.length !== SIGNATURE_BYTES) throw wrong;
  let valid: boolean;
  try {
    const raw = new Uint8Array(hexToBytes(key));
    const imported = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
    valid = await crypto.subtle.verify("Ed25519", imported, signature, manifest);
  } catch {
    throw refusal("this browser cannot check Ed25519 signatures; update it, and open the page by https");
  }
  if (!valid) throw wrong;
}

/** The first digits of a key, for people to compare. */
export function short(key: string): string {
  return bytesToHex(hexToBytes(key)).slice(0, 16);
}

function refusal(why: string): EngineError {
  return new EngineError("signature", APP_SIGNATURE, why);
}
