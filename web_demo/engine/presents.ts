/**
 * Caches through the public API: presents come back as new tensors and are the next pasts. Slower, and documented: the
 * way out where the module's own functions have changed. (Outputs given to `run` are not written to.)
 */
import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";

import type { Files } from "./files.ts";
import type { Manifest, Stage } from "./manifest.ts";
import { sessionError } from "./runtime.ts";
import { WEIGHTS } from "./session.ts";
import type { GraphOptions } from "./session.ts";
import type { Executed, Stages } from "./stages.ts";

export type OrtApi = typeof import("onnxruntime-web/wasm");
type CacheArray = Float32Array | Int8Array;

const ROLES: readonly Stage[] = ["coda", "recur", "prelude"];

/** Load the public API from the folder at `base`. */
export async function openApi(base: string): Promise<OrtApi> {
  const ort = (await import(/* @vite-ignore */ `${base}ort.wasm.min.mjs`)) as OrtApi;
  ort.env.wasm.wasmPaths = base;
  ort.env.wasm.numThreads = 1;
  return ort;
}

export class PresentStages implements Stages {
  readonly executed: Executed = { prelude: 0, recur: 0, coda: 0 };
  private readonly caches = new Map<string, CacheArray[]>();
  private capacity = 0;
  private slots = 0;
  private given: Record<string, Tensor> = {};
  private before = new Float32Array();
  private after = new Float32Array();

  private constructor(
    private readonly ort: OrtApi,
    private readonly manifest: Manifest,
    private readonly sessions: Record<Stage, InferenceSession>,
  ) {}

  static async open(ort: OrtApi, manifest: Manifest, files: Files, options: GraphOptions): Promise<Stages> {
    const sessions: Partial<Record<Stage, InferenceSession>> = {};
    const entries = Object.entries(options.settings).map(([name, value]) => [name.replace(/^session\./, ""), value]);
    for (const role of ROLES) {
      try {
        sessions[role] = await ort.InferenceSession.create(files.get(manifest.graphs[role]!.file)!, {
          executionProviders: ["wasm"],
          graphOptimizationLevel: options.optimize ? "all" : "disabled",
          externalData: [{ path: WEIGHTS, data: files.get(WEIGHTS)! }],
          extra: { session: Object.fromEntries(entries) as Record<string, string> },
        });
      } catch (error) {
        throw sessionError(String(error));
      }
    }
    return new PresentStages(ort, manifest, sessions as Record<Stage, InferenceSession>);
  }

  get cacheBytes(): number {
    return [...this.caches.values()].flat().reduce((sum, array) => sum + array.byteLength, 0);
  }

  reserve(capacity: number, slots: number, held: number): void {
    if (capacity <= this.capacity && slots <= this.slots) return;
    const grown = Math.max(capacity, this.capacity);
    const wanted = Math.max(slots, this.slots);
    for (const stage of ROLES) {
      const { layers, heads, head_size } = this.manifest.cache[stage];
      for (const name of this.namesOf(stage, layers)) {
        const old = this.caches.get(name) ?? [];
        const fresh = Array.from({ length: stage === "recur" ? wanted : 1 }, (_, slot) => {
          const array = this.newArray(heads * grown * head_size);
          const source = old[Math.min(slot, old.length - 1)];
          for (let head = 0; source && head < heads; head++) {
            const start = head * this.capacity * head_size;
            array.set(source.subarray(start, start + held * head_size), head * grown * head_size);
          }
          return array;
        });
        this.caches.set(name, fresh);
      }
    }
    this.capacity = grown;
    this.slots = wanted;
  }

  async begin(ids: readonly number[], held: number): Promise<void> {
    const { ort, manifest } = this;
    const state = new Float32Array(ids.length * manifest.state_width);
    this.before = this.after = state;
    this.given = {
      input_ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      total: new ort.Tensor("int32", Int32Array.of(held + ids.length), []),
      state: new ort.Tensor("float32", state, [1, ids.length, manifest.state_width]),
    };
    Object.assign(this.given, await this.call("prelude", 0));
  }

  async loop(slot: number): Promise<void> {
    const { next_state } = await this.call("recur", slot);
    this.before = this.after;
    this.after = next_state!.data as Float32Array<ArrayBuffer>;
    this.given.state = next_state!;
  }

  states(): { before: Float32Array; after: Float32Array } {
    return { before: this.before, after: this.after };
  }

  async logits(position: number): Promise<Float32Array> {
    this.given.positions = new this.ort.Tensor("int64", BigInt64Array.of(BigInt(position)), [1]);
    return (await this.call("coda", 0)).logits!.data as Float32Array;
  }

  fillAbove(from: number, start: number, end: number): void {
    const { heads, head_size } = this.manifest.cache.recur;
    for (const name of this.namesOf("recur", this.manifest.cache.recur.layers)) {
      const slots = this.caches.get(name)!;
      for (const slot of slots.slice(from + 1)) {
        for (let head = 0; head < heads; head++) {
          const [first, last] = [start, end].map((place) => (head * this.capacity + place) * head_size);
          slot.set(slots[from]!.subarray(first, last), first);
        }
      }
    }
  }

  async dispose(): Promise<void> {
    this.caches.clear();
    for (const role of ROLES) await this.sessions[role].release();
  }

  private namesOf(stage: Stage, layers: number): string[] {
    return Array.from({ length: layers }, (_, layer) => [`${stage}.${layer}.key`, `${stage}.${layer}.value`]).flat();
  }

  private newArray(length: number): CacheArray {
    return this.manifest.cache.dtype === "int8" ? new Int8Array(length) : new Float32Array(length);
  }

  private async call(stage: Stage, slot: number): Promise<Record<string, Tensor>> {
    const session = this.sessions[stage];
    const { heads, head_size } = this.manifest.cache[stage];
    const dims = [1, heads, this.capacity, head_size];
    const feeds: Record<string, Tensor> = {};
    for (const name of session.inputNames) {
      if (name.startsWith("past.")) {
        const array = this.caches.get(`${stage}.${name.slice(5)}`)![slot]!;
        feeds[name] =
          array instanceof Int8Array
            ? new this.ort.Tensor("int8", array, dims)
            : new this.ort.Tensor("float32", array as Float32Array<ArrayBuffer>, dims);
      } else {
        feeds[name] = this.given[name]!;
      }
    }
    let results: Record<string, Tensor>;
    try {
      results = await session.run(feeds);
    } catch (error) {
      throw sessionError(String(error));
    }
    this.executed[stage] += 1;
    for (const name of session.outputNames) {
      if (!name.startsWith("present.")) continue;
      this.caches.get(`${stage}.${name.slice(8)}`)![slot] = results[name]!.data as CacheArray;
    }
    return results;
  }
}
