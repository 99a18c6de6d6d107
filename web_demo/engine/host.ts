/**
 * A model in use: chunks of ids in, logits out, with the cache kept in between. The contract that every app follows.
 *
 *     const { logits, loops } = await host.run(ids, 8);
 *     host.rewind(12);                                    // forget what follows the first 12 tokens
 */
import { Cancelled, EngineError } from "./errors.ts";
import { checkThreshold, chooseLoops, slotOf, stateChanges } from "./loops.ts";
import type { Manifest } from "./manifest.ts";
import type { Executed, Stages } from "./stages.ts";

const LEAST_CAPACITY = 256; // tokens that the caches hold at first

export interface ChunkResult {
  /** (padded vocabulary,) of the chunk's last position. */
  logits: Float32Array;
  /** The same of each position that was asked for. */
  rows: Float32Array[];
  /** Loops that ran. */
  loops: number;
  /** Relative state change of the last token, by loop. */
  changes: number[];
}

export interface RunOptions {
  threshold?: number;
  signal?: AbortSignal | undefined;
  /** Positions in the chunk whose logits are wanted; the last one by default. */
  positions?: readonly number[];
}

/** One conversation's cache. Calls must not overlap. */
export class Host {
  length = 0;
  private capacity = 0;

  constructor(
    readonly manifest: Manifest,
    private readonly stages: Stages,
  ) {}

  get executed(): Executed {
    return { ...this.stages.executed };
  }

  get cacheBytes(): number {
    return this.stages.cacheBytes;
  }

  /** Tokens that still fit. */
  get room(): number {
    return this.manifest.cache.context - this.length;
  }

  /**
   * Run a chunk that follows the tokens held. With a threshold the loop ends once no token's state changed by more.
   *
   * Throws `EngineError` of kind usage or context before any work, `Cancelled` within one loop of the signal; a chunk
   * that was cancelled was never there.
   */
  async run(ids: readonly number[], loops: number, options: RunOptions = {}): Promise<ChunkResult> {
    const { threshold = 0, signal, positions = [ids.length - 1] } = options;
    const { manifest, stages } = this;
    chooseLoops(manifest.loops, loops);
    checkThreshold(threshold);
    if (!ids.length) throw new EngineError("usage", "prompt", "nothing to read: give at least one token");
    if (ids.length > this.room) {
      const message = `${this.length} + ${ids.length} tokens do not fit the context of ${manifest.cache.context}`;
      throw new EngineError("context", "context", message);
    }
    const slots = manifest.cache.recur.slots;
    const total = this.length + ids.length;
    this.reserve(total, Math.min(loops, slots));
    await pause(signal);
    await stages.begin(ids, this.length);
    const changes: number[] = [];
    let used = 0;
    while (used < loops) {
      await pause(signal);
      used += 1;
      await stages.loop(slotOf(used, slots));
      const { before, after } = stages.states();
      const each = stateChanges(before, after, manifest.state_width);
      changes.push(each.at(-1)!);
      if (used >= manifest.loops.exit_from && Math.max(...each) < threshold) break;
    }
    await pause(signal);
    // The coda's keys and values are the same however often it runs.
    const rows: Float32Array[] = [];
    for (const position of positions) rows.push(await stages.logits(position));
    stages.fillAbove(slotOf(used, slots), this.length, total);
    this.length = total;
    return { logits: rows.at(-1)!, rows, loops: used, changes };
  }

  /** Forget the tokens after the first `length`. */
  rewind(length: number): void {
    this.length = Math.min(this.length, length);
  }

  dispose(): Promise<void> {
    return this.stages.dispose();
  }

  private reserve(total: number, slots: number): void {
    while (this.capacity < total) this.capacity = Math.max(LEAST_CAPACITY, this.capacity * 2);
    this.capacity = Math.min(this.capacity, this.manifest.cache.context);
    this.stages.reserve(this.capacity, slots, this.length);
  }
}

const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();
if ("unref" in channel.port1) (channel.port1 as unknown as { unref(): void }).unref();

/** Let other messages in (a promise alone does not), then throw `Cancelled` if the signal says so. */
async function pause(signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return;
  await new Promise<void>((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
  if (signal.aborted) throw new Cancelled();
}
