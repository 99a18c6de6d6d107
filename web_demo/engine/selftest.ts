/**
 * The self-test: golden logits and greedy answers that came with the model, against what this device computes.
 *
 *     const report = await selfTest(model, (done, total) => show(done / total));
 *     report.passed; report.rows[0].maxAbs
 */
import { EngineError } from "./errors.ts";
import type { Model } from "./open.ts";
import { argmax } from "./sampler.ts";

export interface LogitsRow {
  loops: number;
  positions: number;
  /** Greatest difference of any logit. */
  maxAbs: number;
  /** Mean Kullback-Leibler divergence of golden to measured, nats. */
  klMean: number;
  /** Share of positions with the same likeliest token. */
  top1: number;
  passed: boolean;
}

export interface GreedyRow {
  loops: number;
  expected: number[];
  found: number[];
  /** Place of the first token that differs, null if none does. */
  firstDifference: number | null;
}

export interface SelfTestReport {
  passed: boolean;
  /** Whether greedy tokens are promised to be equal; if not they are shown and not judged. */
  exact: boolean;
  maxAbs: number | null;
  klMean: number | null;
  top1: number | null;
  rows: LogitsRow[];
  greedy: GreedyRow[];
}

/** Throws `EngineError` of kind missing for a model that came without golden values. */
export async function selfTest(model: Model, progress: (done: number, total: number) => void): Promise<SelfTestReport> {
  const { manifest, host } = model;
  const test = manifest.self_test;
  const file = test && model.files.get(test.file);
  if (!test || !file) throw new EngineError("missing", "self-test", "this model came without golden values");
  const { max_abs: maxAbs, kl_mean: klMean, top1 } = test;
  const answers = Object.entries(test.greedy?.tokens ?? {});
  const total = Object.keys(test.logits).length + answers.length;
  let done = 0;
  const rows: LogitsRow[] = [];
  for (const [loops, place] of Object.entries(test.logits)) {
    const [positions, vocabulary] = place.shape;
    // Numbers lie at any offset in the file, so they are copied to one that an array may begin at.
    const golden = new Float32Array(file.slice(place.offset, place.offset + 4 * positions * vocabulary).buffer);
    const row = { loops: Number(loops), positions, maxAbs: 0, klMean: 0, top1: 0, passed: false };
    host.rewind(0);
    const { rows: measured } = await host.run(test.input_ids, row.loops, { positions: test.positions });
    for (let index = 0; index < positions; index++) {
      const expected = golden.subarray(index * vocabulary, index * vocabulary + manifest.vocab_size);
      const found = measured[index]!.subarray(0, manifest.vocab_size);
      row.maxAbs = Math.max(row.maxAbs, greatestDifference(expected, found));
      row.klMean += divergence(expected, found) / positions;
      row.top1 += Number(argmax(expected) === argmax(found)) / positions;
    }
    progress(++done, total);
    row.passed =
      (maxAbs === null || row.maxAbs <= maxAbs) &&
      (klMean === null || row.klMean <= klMean) &&
      (top1 === null || row.top1 >= top1 - 1e-9);
    rows.push(row);
  }
  const greedy: GreedyRow[] = [];
  for (const [loops, expected] of answers) {
    const found = await greedyAnswer(model, test.greedy!.prompt, Number(loops), expected.length);
    const differs = found.findIndex((token, place) => token !== expected[place]);
    greedy.push({ loops: Number(loops), expected, found, firstDifference: differs < 0 ? null : differs });
    progress(++done, total);
  }
  host.rewind(0);
  const exact = test.greedy?.exact ?? false;
  const same = greedy.every((row) => row.firstDifference === null);
  return { passed: rows.every((row) => row.passed) && (same || !exact), exact, maxAbs, klMean, top1, rows, greedy };
}

async function greedyAnswer(model: Model, prompt: number[], loops: number, most: number): Promise<number[]> {
  model.host.rewind(0);
  const tokens: number[] = [];
  let { logits } = await model.host.run(prompt, loops);
  while (tokens.length < most) {
    tokens.push(argmax(logits.subarray(0, model.manifest.vocab_size)));
    if (tokens.length < most) ({ logits } = await model.host.run(tokens.slice(-1), loops));
  }
  return tokens;
}

function greatestDifference(one: Float32Array, other: Float32Array): number {
  let greatest = 0;
  for (let place = 0; place < one.length; place++) {
    const difference = Math.abs(one[place]! - other[place]!);
    if (!(difference <= greatest)) greatest = difference; // a NaN is a difference
  }
  return greatest;
}

/** Kullback-Leibler divergence of the distributions of two rows of logits, nats. */
function divergence(golden: Float32Array, found: Float32Array): number {
  const [p, q] = [golden, found].map(logProbabilities);
  return p!.reduce((sum, value, place) => sum + Math.exp(value) * (value - q![place]!), 0);
}

function logProbabilities(logits: Float32Array): Float64Array {
  const values = Float64Array.from(logits);
  const top = values[argmax(values)]!;
  const sum = values.reduce((total, value) => total + Math.exp(value - top), 0);
  return values.map((value) => value - top - Math.log(sum));
}
