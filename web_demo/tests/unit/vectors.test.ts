/** Tokenizer, sampler, stops, loops, cache, manifest and memory pass the app kit's vectors. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { Readable } from "node:stream";

import { describe, expect, test } from "vitest";

import { EngineError } from "../../engine/errors.ts";
import { readFiles, type Source } from "../../engine/files.ts";
import { Host } from "../../engine/host.ts";
import { checkThreshold, chooseLoops, chunksOf, policySlots, slotOf, stateChanges } from "../../engine/loops.ts";
import { checkRuntime, estimateMemory, isAtLeast, readManifest } from "../../engine/manifest.ts";
import type { Loops, Manifest, Memory, Policy } from "../../engine/manifest.ts";
import { GREEDY, Random, RECENT, Sampler, settingsFrom, type Sampling } from "../../engine/sampler.ts";
import type { Executed, Stages } from "../../engine/stages.ts";
import { StopTexts } from "../../engine/stop.ts";
import { TextStream, TextTokenizer } from "../../engine/tokenizer.ts";
import { KIT, ROOT, vectors } from "./kit.ts";

interface EncodeCase {
  tokenizer: string;
  text: string;
  ids: number[];
  decoded: string;
}

describe("tokenizer", () => {
  const given = vectors<{
    tokenizers: Record<string, { file: string; sha256: string }>;
    encode: EncodeCase[];
    encode_utf16: { tokenizer: string; utf16: number[]; ids: number[] }[];
    decode: { tokenizer: string; ids: number[]; decoded: string }[];
    stream: { tokenizer: string; case: string; ids: number[]; text: string; pieces: string[] | null }[];
  }>("tokenizer");
  const tokenizers = new Map<string, TextTokenizer>();
  for (const [name, { file, sha256 }] of Object.entries(given.tokenizers)) {
    const embedded = path.join(ROOT, "parcae_mobile/tiny/tokenizer.json");
    const content = readFileSync(name === "embedded" ? embedded : path.join(KIT, file));
    expect(createHash("sha256").update(content).digest("hex")).toBe(sha256);
    tokenizers.set(name, TextTokenizer.read(content.toString("utf8")));
  }

  test.each([...tokenizers.keys()])("%s: texts become ids and ids become texts", (name) => {
    const tokenizer = tokenizers.get(name)!;
    for (const each of given.encode.filter((found) => found.tokenizer === name)) {
      expect.soft([each.text, tokenizer.encode(each.text)]).toEqual([each.text, each.ids]);
      expect.soft(tokenizer.decode(each.ids)).toBe(each.decoded);
    }
    for (const each of given.decode.filter((found) => found.tokenizer === name)) {
      expect.soft(tokenizer.decode(each.ids)).toBe(each.decoded);
    }
  });

  test("lone halves of pairs are replaced", () => {
    for (const each of given.encode_utf16) {
      const text = String.fromCharCode(...each.utf16);
      expect.soft(tokenizers.get(each.tokenizer)!.encode(text), JSON.stringify(each)).toEqual(each.ids);
    }
  });

  test.each([...tokenizers.keys()])("%s: a stream never shows half a character", (name) => {
    for (const each of given.stream.filter((found) => found.tokenizer === name)) {
      const stream = new TextStream(tokenizers.get(name)!);
      const pieces = [...each.ids.map((id) => stream.feed(id)), stream.finish()];
      if (each.pieces) expect.soft(pieces, each.case).toEqual(each.pieces);
      expect.soft(pieces.join(""), each.case).toBe(each.text);
    }
  });
});

describe("sampler", () => {
  const given = vectors<{
    recent: number;
    defaults: Sampling;
    random: { seed: number; words: number[]; uniforms: number[] }[];
    choose: {
      case: string;
      logits: (number | null)[] | { seed: number; count: number };
      history: number[];
      settings: Partial<Sampling>;
      tokens: number[];
    }[];
    bad_settings: { case: string; settings: Partial<Sampling> }[];
    bad_logits: { case: string; logits: (number | string)[] }[];
  }>("sampler");

  test("the generator gives the words and fractions", () => {
    expect([RECENT, GREEDY]).toEqual([given.recent, given.defaults]);
    for (const each of given.random) {
      const [words, fractions] = [new Random(each.seed), new Random(each.seed)];
      expect(each.words.map(() => words.word())).toEqual(each.words);
      expect(each.uniforms.map(() => fractions.uniform())).toEqual(each.uniforms);
    }
  });

  test.each(given.choose)("draws: $case", ({ logits: raw, history: past, settings, tokens }) => {
    let logits: Float32Array;
    if (Array.isArray(raw)) logits = Float32Array.from(raw, (value) => value ?? -Infinity);
    else {
      const random = new Random(raw.seed);
      logits = Float32Array.from({ length: raw.count }, () => random.uniform() * 20 - 10);
    }
    const sampler = new Sampler(settingsFrom(settings));
    const history = [...past];
    for (let draw = 0; draw < tokens.length; draw++) history.push(sampler.choose(logits, history));
    expect(history.slice(past.length)).toEqual(tokens);
  });

  test.each(given.bad_settings)("refuses $case", ({ settings }) => {
    expect(() => settingsFrom(settings)).toThrow(EngineError);
  });

  test.each(given.bad_logits)("refuses logits with $case", ({ logits }) => {
    const values = Float32Array.from(logits, (value) => Number(String(value).replace("inf", "Infinity")));
    expect(() => new Sampler(settingsFrom({})).choose(values)).toThrow(EngineError);
  });
});

describe("stops", () => {
  const given = vectors<{
    texts: { case: string; stops: string[]; pieces: string[]; shown: string[]; rest: string; found: string | null }[];
    bad: { stops: string[] }[];
  }>("stop");

  test.each(given.texts)("$case", ({ stops, pieces, shown, rest, found }) => {
    const stop = new StopTexts(stops);
    expect(pieces.map((piece) => stop.feed(piece))).toEqual(shown);
    expect([stop.finish(), stop.found]).toEqual([rest, found]);
    const single = new StopTexts(stops);
    const text =
      Array.from(pieces.join(""))
        .map((character) => single.feed(character))
        .join("") + single.finish();
    expect([text, single.found]).toEqual([shown.join("") + rest, found]);
  });

  test("an empty stop is refused", () => {
    for (const { stops } of given.bad) expect(() => new StopTexts(stops)).toThrow(EngineError);
  });
});

/** Stages without a runtime: names stand for keys and values, states are given. */
class Symbols implements Stages {
  readonly executed: Executed = { prelude: 0, recur: 0, coda: 0 };
  readonly cacheBytes = 0;
  readonly slots: string[][] = [];
  readonly calls: unknown[] = [];
  readonly reads: { loop: number; slot: number; past: string[] }[] = [];
  piece = 0;
  states_: number[][][] = [];
  private held = 0;
  private tokens = 0;
  private done = 0;

  reserve(_capacity: number, slots: number): void {
    while (this.slots.length < slots) this.slots.push([...(this.slots.at(-1) ?? [])]);
  }

  begin(ids: readonly number[], held: number): Promise<void> {
    this.piece += 1;
    [this.held, this.tokens, this.done] = [held, ids.length, 0];
    this.calls.push({ graph: "prelude" });
    return Promise.resolve();
  }

  loop(slot: number): Promise<void> {
    this.done += 1;
    this.executed.recur += 1;
    this.calls.push({ graph: "recur", loop: this.done, reads_state: this.done - 1, writes_state: this.done });
    this.reads.push({ loop: this.done, slot, past: this.slots[slot]!.slice(0, this.held) });
    for (let place = this.held; place < this.held + this.tokens; place++) {
      this.slots[slot]![place] = `${this.piece}.${this.done}`;
    }
    return Promise.resolve();
  }

  states(): { before: Float32Array; after: Float32Array } {
    const flat = (loop: number): Float32Array => Float32Array.from((this.states_[loop - 1] ?? []).flat());
    const after = flat(this.done);
    return { before: this.done > 1 ? flat(this.done - 1) : after.map(() => 0), after };
  }

  logits(): Promise<Float32Array> {
    this.calls.push({ graph: "coda", reads_state: this.done });
    return Promise.resolve(new Float32Array(1));
  }

  fillAbove(from: number, start: number, end: number): void {
    for (const slot of this.slots.slice(from + 1)) {
      for (let place = start; place < end; place++) slot[place] = this.slots[from]![place]!;
    }
  }

  dispose(): Promise<void> {
    return Promise.resolve();
  }
}

function hostOf(stages: Stages, policy: Policy, max: number, width = 1, exit_from = 1): Host {
  const one = { layers: 1, heads: 1, head_size: 1, slots: 1 };
  const cache = { policy, dtype: "fp32", context: 64, prefill_chunk: 16, prelude: one, coda: one };
  const recur = { ...one, slots: policySlots(policy, max) };
  const loops = { form: "stages", min: 1, max, trained: 1, built: [], early_exit: true, exit_from };
  return new Host({ cache: { ...cache, recur }, loops, state_width: width } as unknown as Manifest, stages);
}

describe("loops", () => {
  const given = vectors<{
    tolerance: number;
    choose: { loops: Loops; asked: number | null; chosen: number | null }[];
    calls: { loops: number; used: number; calls: unknown[] }[];
    exit: {
      case: string;
      loops: number;
      threshold: number;
      states: number[][][];
      changes: number[];
      used: number;
      exit_from: number;
    }[];
    bad_thresholds: { threshold: number }[];
  }>("loops");

  test("a message gets its loops", () => {
    for (const { loops, asked, chosen } of given.choose) {
      if (chosen === null) expect(() => chooseLoops(loops, asked)).toThrow(EngineError);
      else expect(chooseLoops(loops, asked)).toBe(chosen);
    }
    for (const { threshold } of given.bad_thresholds) expect(() => checkThreshold(threshold)).toThrow(EngineError);
  });

  test.each(given.calls)("T=$loops that ends after $used makes these calls", async ({ loops, used, calls }) => {
    const stages = new Symbols();
    // A state that stands still from loop `used` on.
    stages.states_ = Array.from({ length: loops }, (_, loop) => [
      [loop + 1 < used ? 2 ** (loop + 1) : 2 ** (used - 1)],
    ]);
    if (used < loops) stages.states_[used - 2] = stages.states_[used - 1]!;
    const result = await hostOf(stages, "full", 8).run([1], loops, { threshold: used < loops ? 0.01 : 0 });
    expect(stages.calls).toEqual(calls);
    expect([result.loops, stages.executed.recur]).toEqual([used, used]);
  });

  test.each(given.exit)("early exit: $case", async ({ loops, threshold, states, changes, used, exit_from }) => {
    const stages = new Symbols();
    stages.states_ = states;
    const width = states[0]![0]!.length;
    const ids = states[0]!.map(() => 1);
    const result = await hostOf(stages, "shared", loops, width, exit_from).run(ids, loops, { threshold });
    expect(result.loops).toBe(used);
    const flat = states.map((state) => Float32Array.from(state.flat()));
    changes.forEach((change, loop) => {
      const before = flat[loop - 1] ?? flat[loop]!.map(() => 0);
      const found = Math.max(...stateChanges(before, flat[loop]!, width));
      expect(Math.abs(found - change)).toBeLessThanOrEqual(given.tolerance * Math.max(1, change));
    });
  });
});

describe("cache", () => {
  interface StoryStep {
    step: "run" | "exit" | "rewind" | "cancel";
    tokens: number;
    loops: number;
    used: number;
    loops_done: number;
    length: number;
    reads: { loop: number; slot: number; past: string[] }[];
    held: number;
    slots: string[][];
  }
  const given = vectors<{
    layouts: { policy: Policy; max_loops: number; slots: number; slot_of_loop: number[] }[];
    stories: { policy: Policy; max_loops: number; case: string; steps: StoryStep[] }[];
    chunks: { held: number; prompt: number; chunk: number; context: number; new_tokens: number; calls: unknown }[];
  }>("cache");

  test("each policy has its slots", () => {
    for (const { policy, max_loops, slots, slot_of_loop } of given.layouts) {
      expect(policySlots(policy, max_loops)).toBe(slots);
      expect(slot_of_loop.map((_, loop) => slotOf(loop + 1, slots))).toEqual(slot_of_loop);
    }
  });

  test.each(given.stories)("$policy: $case", async ({ policy, max_loops, steps }) => {
    const stages = new Symbols();
    const host = hostOf(stages, policy, max_loops);
    for (const step of steps) {
      stages.reads.length = 0;
      const ids = Array.from({ length: step.step === "rewind" ? 0 : step.tokens }, () => 1);
      if (step.step === "rewind") host.rewind(step.length);
      else if (step.step === "cancel") {
        const stop = new AbortController();
        const loop = stages.loop.bind(stages);
        stages.loop = (slot) => {
          if (stages.reads.length + 1 === step.loops_done) stop.abort();
          return loop(slot);
        };
        await expect(host.run(ids, max_loops, { signal: stop.signal })).rejects.toThrow("cancelled");
        expect(stages.reads.length).toBe(step.loops_done);
        stages.loop = loop;
      } else {
        const used = step.step === "exit" ? step.used : step.loops;
        stages.states_ = Array.from({ length: step.loops }, (_, index) =>
          ids.map(() => [2 ** Math.min(index, used - 2)]),
        );
        await host.run(ids, step.loops, { threshold: step.step === "exit" ? 0.01 : 0 });
        expect(stages.reads).toEqual(step.reads);
      }
      expect(host.length).toBe(step.held);
      const held = stages.slots.map((slot) => slot.slice(0, host.length));
      // A slot is made when a loop first needs it, as a copy of the last one.
      while (held.length < step.slots.length) held.push(held.at(-1)!);
      expect(held).toEqual(step.slots);
    }
  });

  test("a prompt is given in these chunks", () => {
    for (const { held, prompt, chunk, context, new_tokens, calls } of given.chunks) {
      const fits = prompt > 0 && held + prompt + new_tokens <= context + 1;
      const made = chunksOf(prompt, chunk).map(({ from, length }) => {
        return { from, length, total: held + from + length, positions: [length - 1] };
      });
      expect(fits ? made : null).toEqual(calls);
    }
  });
});

describe("manifest", () => {
  type Change = { path: string[]; set?: unknown; remove?: boolean };
  const given = vectors<{
    app: { platform: string; runtime: string; version: string };
    base: Record<string, unknown>;
    contents: Record<string, string>;
    cases: {
      case: string;
      kind: string | null;
      where?: string;
      text?: string;
      changes?: Change[];
      bytes?: number;
      files?: Record<string, string | null>;
    }[];
    versions: { version: string; minimum: string; enough: boolean }[];
  }>("manifest");

  function changed(changes: Change[]): string {
    const values = structuredClone(given.base);
    for (const { path: keys, set, remove } of changes) {
      let place = values;
      for (const key of keys.slice(0, -1)) place = place[key] as Record<string, unknown>;
      if (remove) Reflect.deleteProperty(place, keys.at(-1)!);
      else place[keys.at(-1)!] = set;
    }
    return JSON.stringify(values);
  }

  test.each(given.cases)("$kind: $case", async ({ kind, where, text, changes, bytes, files }) => {
    const contents = new Map<string, string | null>(Object.entries({ ...given.contents, ...files }));
    const source: Source = {
      open(name) {
        const content = contents.get(name) ?? null;
        if (content === null) return Promise.reject(new EngineError("missing", name, "missing"));
        return Promise.resolve(Readable.from([Buffer.from(content, "base64")]));
      },
    };
    const attempt = async (): Promise<void> => {
      const written = text ?? changed(changes ?? []);
      const manifest = readManifest(written + " ".repeat(Math.max(0, (bytes ?? 0) - Buffer.byteLength(written))));
      checkRuntime(manifest, given.app.platform, given.app.runtime, given.app.version);
      await readFiles(manifest, source);
    };
    if (kind === null) return attempt();
    const error: unknown = await attempt().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(EngineError);
    expect((error as EngineError).kind).toBe(kind);
    if (where !== undefined) expect((error as EngineError).where).toBe(where);
  });

  test("versions are compared by their numbers", () => {
    for (const { version, minimum, enough } of given.versions) {
      expect.soft([version, minimum, isAtLeast(version, minimum)]).toEqual([version, minimum, enough]);
    }
  });
});

test("memory estimates", () => {
  const given = vectors<{
    estimates: { case: string; memory: Memory; loops: number; tokens: number; chunk: number; bytes: number }[];
  }>("memory");
  for (const { memory, loops, tokens, chunk, bytes } of given.estimates) {
    expect(estimateMemory(memory, loops, tokens, chunk)).toBe(bytes);
  }
});
