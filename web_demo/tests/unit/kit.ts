/** The app kit's vectors, and the models that `make app-artifacts` and `parcae-export bundle` leave for the tests. */
import { existsSync, readFileSync } from "node:fs";
import { createReadStream } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { EngineError } from "../../engine/errors.ts";
import { readFiles, type Files, type Source } from "../../engine/files.ts";
import { readManifest, type Manifest } from "../../engine/manifest.ts";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const KIT = path.join(ROOT, "app_kit");
export const RUNTIME = `${pathToFileURL(path.join(ROOT, "web_demo/node_modules/onnxruntime-web/dist")).href}/`;
/** Bundled models: made by `make web-test-models`. */
export const MODELS = process.env.WEB_TEST_MODELS ?? path.join(ROOT, "build/web-test-models");

/** A vector file by name; its cases are read as the tests need them. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- says what the file holds
export function vectors<T>(name: string): T {
  const values = JSON.parse(readFileSync(path.join(KIT, "vectors", `${name}.json`), "utf8")) as { format: number };
  if (values.format !== 1) throw new Error(`${name}.json has another format`);
  return values as T;
}

export function folderSource(folder: string): Source {
  return {
    open(name) {
      const file = path.join(folder, name);
      if (!existsSync(file)) return Promise.reject(new EngineError("missing", name, `${name} is missing`));
      return Promise.resolve(createReadStream(file) as AsyncIterable<Uint8Array>);
    },
  };
}

/** A bundled model's manifest and checked files. */
export async function bundled(name: string): Promise<{ manifest: Manifest; files: Files }> {
  const folder = path.join(MODELS, name);
  const manifest = readManifest(readFileSync(path.join(folder, "app.json"), "utf8"));
  return { manifest, files: await readFiles(manifest, folderSource(folder)) };
}
