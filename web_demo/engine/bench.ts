/**
 * Times of this device over loops and contexts, in the schema of `parcae-export bench`.
 *
 *     const table = await bench(model, { loops: [1, 4, 8], contexts: [128], device, signal, progress });
 *
 * A point is a prompt of `context` random ids and then single tokens; points take turns, so that a device which warms up
 * slows all of them. Numbers are medians.
 */
import { Cancelled } from "./errors.ts";
import { chunksOf } from "./loops.ts";
import type { Model } from "./open.ts";
import { ORT_NAME, ORT_VERSION } from "./runtime.ts";
import { Random } from "./sampler.ts";
import { WEIGHTS } from "./session.ts";

const ROUNDS = 3;
const STEPS = 16; // tokens that are decoded in a round

export interface Plan {
  loops: number[];
  contexts: number[];
  /** Name of the processor or browser, and its cores. */
  device: { processor: string; cores: number };
  signal: AbortSignal;
  progress: (done: number, total: number) => void;
}

export interface Speed {
  run: number;
  first_token_ms: number;
  decode_ms: number;
  decode_quartiles_ms: [number, number];
  steps: number;
}

export interface Row {
  variant: Record<string, string | number | boolean>;
  context: number;
  threads: number;
  weight_bytes: number;
  model_bytes: number;
  cache_bytes: number;
  touched_bytes: null;
  speeds: Speed[];
  memory: null;
}

/** The file `bench.json`, which `parcae-export bench` adds to and shows. */
export interface Table {
  format: 1;
  runs: Record<string, object>;
  rows: Row[];
}

interface Point {
  loops: number;
  context: number;
  prompts: number[];
  steps: number[];
  cacheBytes: number;
}

/** Throws `Cancelled` where it was stopped. Contexts that do not fit are left out. */
export async function bench(model: Model, plan: Plan): Promise<Table> {
  const { host, manifest } = model;
  const contexts = plan.contexts.filter((context) => context + STEPS <= manifest.cache.context);
  const points: Point[] = contexts.flatMap((context) =>
    plan.loops.map((loops) => ({ loops, context, prompts: [], steps: [], cacheBytes: 0 })),
  );
  const random = new Random(1);
  const total = ROUNDS * points.length;
  for (let round = 0; round < ROUNDS; round++) {
    for (const [place, point] of points.entries()) {
      plan.progress(round * points.length + place, total);
      const ids = Array.from({ length: point.context + STEPS }, () =>
        Math.floor(random.uniform() * manifest.vocab_size),
      );
      host.rewind(0);
      let started = performance.now();
      for (const { from, length } of chunksOf(point.context, manifest.cache.prefill_chunk)) {
        await host.run(ids.slice(from, from + length), point.loops, { signal: plan.signal });
      }
      point.prompts.push(performance.now() - started);
      for (const id of ids.slice(point.context)) {
        if (plan.signal.aborted) throw new Cancelled();
        started = performance.now();
        await host.run([id], point.loops);
        point.steps.push(performance.now() - started);
      }
      point.cacheBytes = host.cacheBytes;
    }
  }
  plan.progress(total, total);
  host.rewind(0);
  const run = {
    ...plan.device,
    bandwidth: copyBandwidth(),
    rounds: ROUNDS,
    tools: { [`${ORT_NAME}-web`]: ORT_VERSION },
  };
  return { format: 1, runs: { "1": run }, rows: points.map((point) => rowOf(model, point)) };
}

function rowOf({ manifest }: Model, point: Point): Row {
  const variant = {
    kind: "artifact",
    model: manifest.model,
    target: manifest.target,
    loop_form: manifest.loops.form,
    quant: manifest.recipe,
    compute: "fp32", // what the kernels in a browser compute in, whatever the artifact allows
    kv_policy: manifest.cache.policy,
    kv_dtype: manifest.cache.dtype,
    portable: manifest.portable,
    loops: point.loops,
  };
  const steps = [...point.steps].sort((one, other) => one - other);
  const speed: Speed = {
    run: 1,
    first_token_ms: rounded(
      quantile(
        [...point.prompts].sort((one, other) => one - other),
        0.5,
      ),
    ),
    decode_ms: rounded(quantile(steps, 0.5)),
    decode_quartiles_ms: [rounded(quantile(steps, 0.25)), rounded(quantile(steps, 0.75))],
    steps: steps.length,
  };
  const sizes = Object.values(manifest.files).map((entry) => entry.bytes);
  return {
    variant,
    context: point.context,
    threads: 1,
    weight_bytes: manifest.files[WEIGHTS]!.bytes,
    model_bytes: sizes.reduce((sum, bytes) => sum + bytes, 0),
    cache_bytes: point.cacheBytes,
    touched_bytes: null,
    speeds: [speed],
    memory: null,
  };
}

/** Of sorted numbers, between the two nearest. */
function quantile(sorted: number[], share: number): number {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
}

/** Milliseconds with three places; a clock that ticks coarsely may say 0, which no step takes. */
function rounded(milliseconds: number): number {
  return Math.max(Math.round(milliseconds * 1000) / 1000, 0.001);
}

/** Bytes per second at which memory can be copied. */
function copyBandwidth(): number {
  const from = new Uint8Array(1 << 25).fill(1);
  const to = new Uint8Array(from.length);
  let best = Infinity;
  for (let round = 0; round < 4; round++) {
    const started = performance.now();
    to.set(from);
    best = Math.min(best, performance.now() - started);
  }
  return Math.round(from.length / (Math.max(best, 0.1) / 1000));
}
