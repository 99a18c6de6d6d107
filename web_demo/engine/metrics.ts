/** What an answer cost: times of its steps, and the rates that are shown while it comes and kept with it. */
import type { Executed } from "./stages.ts";

export interface Metrics {
  /** Tokens that went in with the message, and those that came out. */
  given: number;
  tokens: number;
  /** Seconds from the message to the first token. */
  firstToken: number;
  /** Tokens of the message by second until the first token. */
  prefillRate: number;
  /** Tokens and loops by second after the first token; 0 where there is no second one. */
  decodeRate: number;
  loopRate: number;
  /** Runs of the recurrent block that the runtime finished for this answer. */
  executedLoops: number;
  /** Bytes of weights as the runtime holds them, of caches, and of its whole heap (0 where it does not say). */
  weightBytes: number;
  cacheBytes: number;
  heapBytes: number;
  /** Tokens that the context holds now. */
  context: number;
}

export class Meter {
  private firstToken = 0;
  private tokens = 0;
  private seconds = 0;
  private loops = 0;

  constructor(
    private readonly given: number,
    private readonly before: Executed,
    private readonly weightBytes: number,
  ) {}

  add(seconds: number, loops: number): void {
    this.tokens += 1;
    if (this.tokens === 1) {
      this.firstToken = seconds;
      return;
    }
    this.seconds += seconds;
    this.loops += loops;
  }

  read(now: { executed: Executed; cacheBytes: number; heapBytes: number; context: number }): Metrics {
    const rate = (amount: number, seconds: number): number => (seconds > 0 ? amount / seconds : 0);
    return {
      given: this.given,
      tokens: this.tokens,
      firstToken: this.firstToken,
      prefillRate: rate(this.given, this.firstToken),
      decodeRate: rate(this.tokens - 1, this.seconds),
      loopRate: rate(this.loops, this.seconds),
      executedLoops: now.executed.recur - this.before.recur,
      weightBytes: this.weightBytes,
      cacheBytes: now.cacheBytes,
      heapBytes: now.heapBytes,
      context: now.context,
    };
  }
}
