/**
 * From checked files to a model that runs.
 *
 *     const model = await openModel(manifest, files, "https://host/runtime/");
 *     model.host.run(ids, 8); model.tokenizer?.encode("text");
 */
import { EngineError } from "./errors.ts";
import type { Files } from "./files.ts";
import { Host } from "./host.ts";
import { InPlaceStages } from "./inplace.ts";
import { checkRuntime, type Manifest } from "./manifest.ts";
import { openApi, PresentStages } from "./presents.ts";
import { openRuntime, ORT_NAME, ORT_VERSION, type OrtModule } from "./runtime.ts";
import type { GraphOptions } from "./session.ts";
import type { Stages } from "./stages.ts";
import { TextTokenizer } from "./tokenizer.ts";

/** How the runtime holds the caches: in place by its own functions, or as presents through its public API. */
export type Way = "in place" | "presents";

export interface Model {
  manifest: Manifest;
  host: Host;
  tokenizer: TextTokenizer | null;
  way: Way;
  files: Files;
  /** Bytes of the runtime's heap; 0 where it does not say. */
  heapBytes(): number;
}

/**
 * Load a model whose files were read by `readFiles`. `runtime` is the URL of the folder with onnxruntime-web's files.
 *
 * Caches are held in place; if that fails for any reason but memory, through the public API. Weights and graphs are
 * dropped from `files` once the runtime has them. Throws `EngineError`.
 */
export async function openModel(
  manifest: Manifest,
  files: Files,
  runtime: string,
  wanted?: Way,
  threads = 1,
): Promise<Model> {
  checkRuntime(manifest, "web", ORT_NAME, ORT_VERSION);
  if (manifest.loops.form !== "stages") {
    throw new EngineError("session", manifest.loops.form, `this app runs the loop itself: export with --loops dynamic`);
  }
  const facts = manifest.tokenizer;
  const tokenizer = facts && TextTokenizer.read(new TextDecoder().decode(files.get(facts.file)));
  const options = graphOptions(manifest, files);
  let stages: Stages | null = null;
  let module: OrtModule | null = null;
  let way: Way = "in place";
  if (wanted !== "presents") {
    try {
      module = await openRuntime(runtime, threads);
      stages = await InPlaceStages.open(module, manifest, files, options);
      await tryOut(manifest, stages);
    } catch (error) {
      const final = error instanceof EngineError && ["memory", "simd"].includes(error.kind);
      if (final || wanted) throw error;
      stages = null;
    }
  }
  if (!stages) {
    way = "presents";
    stages = await PresentStages.open(await openApi(runtime), manifest, files, options);
    await tryOut(manifest, stages);
  }
  const kept: Files = new Map([...files].filter(([name]) => name === manifest.self_test?.file));
  const heapBytes = (): number => module?.HEAPU8.length ?? 0;
  return { manifest, host: new Host(manifest, stages), tokenizer, way, files: kept, heapBytes };
}

/** Portable graphs and matrices in fp16 are folded when they are loaded; others are written as they shall run. */
function graphOptions(manifest: Manifest, files: Files): GraphOptions {
  const graphs = Object.values(manifest.graphs).map((graph) => files.get(graph.file)!);
  const optimize =
    manifest.portable || graphs.some((graph) => new TextDecoder("latin1").decode(graph).includes(".half"));
  return { settings: manifest.runtime.settings, optimize };
}

/** One token at the fewest loops, so that a graph which cannot run says so while loading. */
async function tryOut(manifest: Manifest, stages: Stages): Promise<void> {
  const host = new Host(manifest, stages);
  await host.run([0], manifest.loops.min);
  stages.executed.prelude = stages.executed.recur = stages.executed.coda = 0;
}
