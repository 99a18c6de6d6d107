/**
 * Answers: a message goes in in chunks, then one token at a time comes out until something ends it.
 *
 *     for await (const step of generate(model, { history, given, loops: 8, ... })) show(step.piece);
 *
 * A conversation is a list of pieces, each ids with the loops that they ran at. Given the same pieces again, a model
 * holds the same cache bit for bit, whether it never left the conversation or was just loaded.
 */
import { Cancelled, EngineError } from "./errors.ts";
import type { ChunkResult } from "./host.ts";
import { checkThreshold, chooseLoops, chunksOf } from "./loops.ts";
import type { Model } from "./open.ts";
import { Sampler, settingsFrom, type Sampling } from "./sampler.ts";
import { StopTexts } from "./stop.ts";
import { TextStream } from "./tokenizer.ts";

/** Ids that were given at once, and the loops that ran. */
export interface Piece {
  ids: number[];
  loops: number;
}

/** One message and its answer, as it has to be kept so that a conversation can go on later. */
export interface Turn {
  /** Ids of the message, with what was pending before it. */
  given: number[];
  /** Loops that the message ran at, and the most of each token. */
  loops: number;
  tokens: number[];
  /** Loops that ran for each token; the first one's are the message's. */
  loopsUsed: number[];
}

export interface Request {
  /** The conversation before the message. */
  history: Turn[];
  /** Ids of the message, without what is pending. */
  message: number[];
  loops: number;
  threshold: number;
  most: number;
  sampling: Partial<Sampling>;
  stopTexts: string[];
  signal: AbortSignal;
  /** Tokens of the history that had to be computed again, and of how many. */
  onReplay?: (done: number, total: number) => void;
}

export type Ending = "token" | "text" | "length" | "context" | "user";

export interface Step {
  token: number;
  /** Text that can be shown now. */
  piece: string;
  loops: number;
  /** Relative state change after each loop. */
  changes: number[];
  /** Seconds since the step before; for the first, since the message was given. */
  seconds: number;
  /** Set with the last step. */
  ending: Ending | null;
}

/** What the model gives back besides steps. */
export interface Answer {
  turn: Turn;
  ending: Ending;
}

/** Ids that were shown and not given yet: they go in with the next message. */
export function pendingOf(history: readonly Turn[]): number[] {
  const last = history.at(-1);
  if (!last) return [];
  return last.tokens.length ? last.tokens.slice(-1) : last.given;
}

/** The pieces of a conversation, as they were given. */
export function piecesOf(history: readonly Turn[], chunk: number): Piece[] {
  return history.flatMap(({ given, loops, tokens, loopsUsed }) => {
    if (!tokens.length) return []; // stopped before the first token: the message goes in again with the next one
    const message = chunksOf(given.length, chunk).map(({ from, length }) => ({
      ids: given.slice(from, from + length),
      loops,
    }));
    return [...message, ...tokens.slice(0, -1).map((token, place) => ({ ids: [token], loops: loopsUsed[place + 1]! }))];
  });
}

/** What the host holds, so that only what differs is computed again. */
export class Talk {
  private held: Piece[] = [];

  constructor(readonly model: Model) {}

  /** Bring the host to `history`; returns tokens that were computed. */
  async restore(history: readonly Turn[], signal?: AbortSignal, onReplay?: Request["onReplay"]): Promise<number> {
    const { host, manifest } = this.model;
    const wanted = piecesOf(history, manifest.cache.prefill_chunk);
    let same = 0;
    while (same < wanted.length && same < this.held.length && isSame(wanted[same]!, this.held[same]!)) same += 1;
    this.held = this.held.slice(0, same);
    const lengthOf = (pieces: readonly Piece[]): number => pieces.reduce((sum, piece) => sum + piece.ids.length, 0);
    host.rewind(lengthOf(this.held));
    const missing = wanted.slice(same);
    const total = lengthOf(missing);
    let done = 0;
    for (const piece of missing) {
      onReplay?.(done, total);
      await this.give(piece.ids, piece.loops, 0, signal);
      done += piece.ids.length;
    }
    if (total) onReplay?.(total, total);
    return total;
  }

  /** Give a piece to the host and remember it. */
  async give(ids: number[], loops: number, threshold: number, signal?: AbortSignal): Promise<ChunkResult> {
    const result = await this.model.host.run(ids, loops, { threshold, signal });
    this.held.push({ ids, loops: result.loops });
    return result;
  }
}

/**
 * Steps of the answer to a message; the generator's result is what has to be kept. A stop between two loops ends it with
 * `user`. Throws `EngineError` before any work for what cannot be.
 */
export async function* generate(talk: Talk, request: Request): AsyncGenerator<Step, Answer> {
  const { manifest, tokenizer, host } = talk.model;
  const { history, threshold, signal } = request;
  const loops = chooseLoops(manifest.loops, request.loops);
  checkThreshold(threshold);
  const sampler = new Sampler(settingsFrom(request.sampling));
  const texts = new StopTexts(request.stopTexts);
  const stream = tokenizer && new TextStream(tokenizer);
  const stopIds = new Set(manifest.tokenizer?.stop ?? []);
  const given = [...pendingOf(history), ...request.message];
  const turn: Turn = { given, loops, tokens: [], loopsUsed: [] };
  const before = piecesOf(history, manifest.cache.prefill_chunk).reduce((sum, piece) => sum + piece.ids.length, 0);
  if (!given.length) throw new EngineError("usage", "prompt", "nothing to read: give at least one token");
  if (before + given.length > manifest.cache.context) {
    const message = `${before} + ${given.length} tokens do not fit the context of ${manifest.cache.context}`;
    throw new EngineError("context", "context", message);
  }
  const past = history.flatMap((old) => [...old.given, ...old.tokens.slice(0, -1)]);
  const seen = [...past, ...given];
  try {
    await talk.restore(history, signal, request.onReplay);
    let started = performance.now();
    let result: ChunkResult | null = null;
    for (const { from, length } of chunksOf(given.length, manifest.cache.prefill_chunk)) {
      result = await talk.give(given.slice(from, from + length), loops, 0, signal);
    }
    for (;;) {
      const token = sampler.choose(result!.logits.subarray(0, manifest.vocab_size), seen);
      seen.push(token);
      turn.tokens.push(token);
      turn.loopsUsed.push(result!.loops);
      let ending: Ending | null = null;
      let piece = "";
      if (stopIds.has(token)) ending = "token";
      else if (stream) piece = texts.feed(stream.feed(token));
      if (texts.found !== null) ending = "text";
      else if (!ending && turn.tokens.length >= request.most) ending = "length";
      else if (!ending && host.room < 1) ending = "context";
      if (ending && ending !== "text" && stream) piece += texts.feed(stream.finish()) + texts.finish();
      const now = performance.now();
      const seconds = (now - started) / 1000;
      started = now;
      yield { token, piece, loops: result!.loops, changes: result!.changes, seconds, ending };
      if (ending) return { turn, ending };
      result = await talk.give([token], loops, threshold, signal);
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    return { turn, ending: "user" };
  }
}

function isSame(one: Piece, other: Piece): boolean {
  return (
    one.loops === other.loops && one.ids.length === other.ids.length && one.ids.every((id, i) => id === other.ids[i])
  );
}
