/**
 * How the next token is drawn: the definition that all apps share (`app_kit/vectors/sampler.json`, `docs/apps.md`).
 *
 *     const sampler = new Sampler(settingsFrom({ temperature: 0.7, top_k: 40, seed: 1 }));
 *     const token = sampler.choose(logits, history);
 */
import { EngineError } from "./errors.ts";

export const RECENT = 64; // tokens that the repetition penalty looks back
const WORD = 0xffffffff;

/** Temperature 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 change nothing. */
export interface Sampling {
  temperature: number;
  top_k: number;
  top_p: number;
  min_p: number;
  repetition_penalty: number;
  seed: number;
}

export const GREEDY: Readonly<Sampling> = {
  temperature: 0,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  seed: 0,
};

/** Settings with defaults. Throws `EngineError` of kind usage for one outside of its range. */
export function settingsFrom(given: Partial<Sampling>): Sampling {
  const settings = { ...GREEDY, ...given };
  const { temperature, top_k, top_p, min_p, repetition_penalty, seed } = settings;
  require_(temperature >= 0 && temperature < Infinity, "temperature", temperature, "0 (greedy) or more");
  require_(Number.isInteger(top_k) && top_k >= 0, "top_k", top_k, "a whole number, 0 (off) or more");
  require_(top_p > 0 && top_p <= 1, "top_p", top_p, "above 0, at most 1 (off)");
  require_(min_p >= 0 && min_p <= 1, "min_p", min_p, "0 (off) to 1");
  const positive = repetition_penalty > 0 && repetition_penalty < Infinity;
  require_(positive, "repetition_penalty", repetition_penalty, "1 (off) or another positive number");
  require_(Number.isInteger(seed) && seed >= 0 && seed <= WORD, "seed", seed, `a whole number from 0 to ${WORD}`);
  return settings;
}

function require_(fine: boolean, name: string, value: number, wanted: string): void {
  if (!fine) throw new EngineError("usage", name, `${name} = ${value}: give ${wanted}`);
}

/** xoshiro128** of Blackman and Vigna, seeded by four steps of SplitMix32 with the finalizer of MurmurHash3. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  constructor(seed: number) {
    const [a, b, c, d] = [1, 2, 3, 4].map((step) => mixed((seed + Math.imul(step, 0x9e3779b9)) >>> 0));
    [this.a, this.b, this.c, this.d] = [a!, b!, c!, d!];
  }

  /** The next 32 bits. */
  word(): number {
    const drawn = Math.imul(rotated(Math.imul(this.b, 5), 7), 9) >>> 0;
    const shifted = this.b << 9;
    this.c ^= this.a;
    this.d ^= this.b;
    this.b ^= this.c;
    this.a ^= this.d;
    this.c ^= shifted;
    this.d = rotated(this.d, 11);
    return drawn;
  }

  /** A number in [0, 1) of 53 bits: the upper 27 of one word, then the upper 26 of the next. */
  uniform(): number {
    const high = this.word() >>> 5;
    const low = this.word() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }
}

function mixed(word: number): number {
  word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
}

function rotated(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}

/** Draws the tokens of one answer: settings, and the generator that their seed starts. */
export class Sampler {
  private readonly random: Random;

  constructor(private readonly settings: Sampling) {
    this.random = new Random(settings.seed);
  }

  /**
   * A token from (vocabulary,) fp32 logits; of `history` (ids given and generated so far) the last 64 count. A draw
   * takes one `uniform`, greedy choice takes none. Throws `EngineError` of kind logits for what are no numbers.
   */
  choose(logits: Float32Array, history: readonly number[] = []): number {
    const { temperature, repetition_penalty: penalty } = this.settings;
    const scores = Float64Array.from(logits);
    const best = argmax(scores);
    if (!Number.isFinite(scores[best]) || scores.some(Number.isNaN)) {
      throw new EngineError("logits", "", "the model gave logits that are no numbers; run the self-test");
    }
    if (penalty !== 1) {
      for (const token of new Set(history.slice(-RECENT))) {
        const held = scores[token]!;
        scores[token] = held > 0 ? held / penalty : held * penalty;
      }
    }
    if (temperature === 0) return argmax(scores);
    const [order, sums] = candidates(scores, this.settings);
    const drawn = this.random.uniform() * sums.at(-1)!;
    const place = sums.findIndex((sum) => sum > drawn);
    return order[place < 0 ? order.length - 1 : place]!;
  }
}

/** The ids that may be drawn, likeliest first (of equals the smaller id), and their running sums of weights. */
function candidates(scores: Float64Array, settings: Sampling): [number[], number[]] {
  let order = Array.from(scores.keys()).sort((one, other) => scores[other]! - scores[one]! || one - other);
  if (settings.top_k) order = order.slice(0, settings.top_k);
  const top = scores[order[0]!]!;
  const weights = order.map((token) => Math.exp((scores[token]! - top) / settings.temperature));
  let sum = 0;
  const sums = weights.map((weight) => (sum += weight));
  let kept = order.length;
  if (settings.top_p < 1) kept = sums.findIndex((value) => value >= settings.top_p * sum) + 1;
  kept = weights.slice(0, kept).filter((weight) => weight >= settings.min_p).length;
  return [order.slice(0, kept), sums.slice(0, kept)];
}

/** The place of the greatest value, of equals the first. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let place = 1; place < values.length; place++) if (values[place]! > values[best]!) best = place;
  return best;
}
