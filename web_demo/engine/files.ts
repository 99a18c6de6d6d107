/**
 * A bundled model's files: where they come from, and the check of every size and SHA-256 before anything is loaded.
 *
 *     const files = await readFiles(manifest, source, (read, total, name) => show(read / total));
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

import { EngineError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";

/** A folder: chunks of a file's bytes in order. Throws `EngineError` of kind missing for a file that is not there. */
export interface Source {
  open(name: string): Promise<AsyncIterable<Uint8Array>>;
}

export type Files = Map<string, Uint8Array<ArrayBuffer>>;
export type Progress = (read: number, total: number, name: string) => void;

/**
 * Read and check all files of a manifest. Throws `EngineError` of kind missing, size or checksum that names the first
 * file (in alphabetical order) that is not as listed; `skip` files are left out.
 */
export async function readFiles(manifest: Manifest, source: Source, progress: Progress = () => {}): Promise<Files> {
  const entries = Object.entries(manifest.files).sort(([a], [b]) => (a < b ? -1 : 1));
  const total = entries.reduce((sum, [, entry]) => sum + entry.bytes, 0);
  const files: Files = new Map();
  let read = 0;
  for (const [name, entry] of entries) {
    const content = new Uint8Array(entry.bytes);
    const hash = sha256.create();
    let length = 0;
    for await (const chunk of await source.open(name)) {
      if (length + chunk.length > entry.bytes) throw wrongSize(name, length + chunk.length, entry.bytes, true);
      content.set(chunk, length);
      hash.update(chunk);
      length += chunk.length;
      progress(read + length, total, name);
    }
    if (length !== entry.bytes) throw wrongSize(name, length, entry.bytes, false);
    if (bytesToHex(hash.digest()) !== entry.sha256) {
      throw new EngineError("checksum", name, `${name} is not what was bundled; copy the model again`);
    }
    read += length;
    files.set(name, content);
  }
  return files;
}

/**
 * The first bytes of a file, one more than `most` at the most: whoever gets those refuses the file by their number, and
 * the rest of it is not read.
 */
export async function readStart(stream: ReadableStream<Uint8Array>, most: number): Promise<Uint8Array<ArrayBuffer>> {
  let content = new Uint8Array(0);
  for await (const chunk of chunksOf(stream)) {
    const joined = new Uint8Array(Math.min(content.length + chunk.length, most + 1));
    joined.set(content);
    joined.set(chunk.subarray(0, joined.length - content.length), content.length);
    content = joined;
    if (content.length > most) break;
  }
  return content;
}

function wrongSize(name: string, found: number, listed: number, more: boolean): EngineError {
  return new EngineError("size", name, `${name} has ${more ? "at least " : ""}${found} bytes, not ${listed}`);
}

/** A manifest's files below a URL. Their checksums are part of the addresses, so that caches never mix versions. */
export function urlSource(base: string, manifest: Manifest): Source {
  return {
    async open(name) {
      const url = new URL(name.split("/").map(encodeURIComponent).join("/"), base);
      url.search = `sha256=${manifest.files[name]!.sha256.slice(0, 16)}`;
      let response: Response;
      try {
        response = await fetch(url);
      } catch {
        throw new EngineError("network", name, `${name} could not be fetched; check the connection and try again`);
      }
      if (response.status === 404) throw new EngineError("missing", name, `${name} is missing; copy the model again`);
      if (!response.ok || !response.body) {
        throw new EngineError("network", name, `${name}: the server answered ${response.status}`);
      }
      return chunksOf(response.body);
    },
  };
}

/** Files that a person chose, by their path inside of the folder. */
export function fileSource(chosen: ReadonlyMap<string, Blob>): Source {
  return {
    open(name) {
      const file = chosen.get(name);
      if (!file) {
        return Promise.reject(new EngineError("missing", name, `${name} is missing; copy the model again`));
      }
      return Promise.resolve(chunksOf(file.stream()));
    },
  };
}

async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
