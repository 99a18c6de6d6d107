/** What runs the three graphs of a model: one of two ways to hand onnxruntime its caches. */

/** Calls that the runtime has finished, by graph: counted where the runtime is called, and nowhere else. */
export interface Executed {
  prelude: number;
  recur: number;
  coda: number;
}

/** One model's graphs with their caches. A chunk is `begin`, `loop` as often as wanted, `logits`. */
export interface Stages {
  readonly executed: Executed;
  /** Bytes of the cache arrays that are held now. */
  readonly cacheBytes: number;
  /** Make room for `capacity` tokens, and have the first `slots` recurrent slots; new slots are copies of the last. */
  reserve(capacity: number, slots: number, held: number): void;
  /** Run the prelude on ids that follow `held` tokens; the state is zero. */
  begin(ids: readonly number[], held: number): Promise<void>;
  /** Run the block once on a slot. */
  loop(slot: number): Promise<void>;
  /** States (tokens x width) before and after the last loop; valid until the next call. */
  states(): { before: Float32Array; after: Float32Array };
  /** Run the coda; logits (padded vocabulary) of one position of the chunk. */
  logits(position: number): Promise<Float32Array>;
  /** Copy what slot `from` holds of the places `start` to `end` into the slots above it. */
  fillAbove(from: number, start: number, end: number): void;
  /** Free everything. */
  dispose(): Promise<void>;
}
