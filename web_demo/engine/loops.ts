/** Loops: how many a message runs, the cache slots that they share, and when a token leaves the loop early. */
import { EngineError } from "./errors.ts";
import type { Loops, Policy } from "./manifest.ts";

const APART: Record<Policy, number | null> = { full: null, shared: 0, "first1+shared": 1, "first2+shared": 2 };
const FLOOR = 1e-12;

/** Cache slots of a recurrent layer under a KV policy. */
export function policySlots(policy: Policy, maxLoops: number): number {
  const apart = APART[policy];
  return apart === null ? maxLoops : Math.min(apart + 1, maxLoops);
}

/** Slot (from 0) that a loop (from 1) reads and writes. */
export function slotOf(loop: number, slots: number): number {
  return Math.min(loop, slots) - 1;
}

/**
 * The loop count of a message: the one asked for, or the one nearest to the trained one (of two, the smaller).
 * Throws `EngineError` of kind usage for one that the model does not have.
 */
export function chooseLoops(loops: Loops, asked: number | null): number {
  const counts = loops.built.length
    ? [...loops.built].sort((one, other) => one - other)
    : Array.from({ length: loops.max - loops.min + 1 }, (_, place) => loops.min + place);
  if (asked === null) {
    const far = (loop: number): number => Math.abs(loop - loops.trained);
    return counts.reduce((best, loop) => (far(loop) < far(best) ? loop : best));
  }
  if (!counts.includes(asked)) {
    throw new EngineError("usage", "loops", `loops = ${asked}: this model has ${counts.join(", ")}`);
  }
  return asked;
}

/** Throw `EngineError` of kind usage unless 0 <= threshold < 1. */
export function checkThreshold(threshold: number): void {
  if (!(threshold >= 0 && threshold < 1)) {
    throw new EngineError("usage", "threshold", `threshold = ${threshold}: give 0 (off) to below 1`);
  }
}

/** |after - before| / |after| of each token; states are (tokens x width) fp32. The first loop's is 1: it starts at 0. */
export function stateChanges(before: Float32Array, after: Float32Array, width: number): number[] {
  const changes: number[] = [];
  for (let start = 0; start < after.length; start += width) {
    let difference = 0;
    let norm = 0;
    for (let place = start; place < start + width; place++) {
      const value = after[place]!;
      difference += (value - before[place]!) ** 2;
      norm += value ** 2;
    }
    changes.push(Math.sqrt(difference) / Math.max(Math.sqrt(norm), FLOOR));
  }
  return changes;
}

/** Where the chunks of a prompt begin and how long they are. */
export function chunksOf(length: number, chunk: number): { from: number; length: number }[] {
  const chunks = [];
  for (let from = 0; from < length; from += chunk) chunks.push({ from, length: Math.min(chunk, length - from) });
  return chunks;
}
