/** A model's manifest, read only if it bears the signature of the key that this app was built with. */
import { checkManifestSize, readManifest, type Manifest } from "../engine/manifest.ts";
import { checkSignature } from "../engine/signature.ts";

/** The public key whose models are taken: `VITE_SIGNED_BY` when the app is built. Empty: any model is. */
export const SIGNED_BY: string = (import.meta.env.VITE_SIGNED_BY as string | undefined) ?? "";

/** Bytes of a file beside the manifest, or null if there is none. */
export type Read = () => Promise<Uint8Array<ArrayBuffer> | null>;

/** Throws `EngineError`: of kind json for a manifest that is too large, of kind signature where a key is pinned and the manifest does not bear its signature. */
export async function signedManifest(
  bytes: Uint8Array<ArrayBuffer>,
  signature: Read,
  key: string = SIGNED_BY,
): Promise<Manifest> {
  checkManifestSize(bytes.length);
  if (key) await checkSignature(bytes, await signature(), key);
  return readManifest(new TextDecoder().decode(bytes));
}
