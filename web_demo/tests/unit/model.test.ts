/** Real artifacts in onnxruntime-web under Node: golden logits, greedy answers, conversations, both ways of caching. */
import { readFileSync } from "node:fs";
import path from "node:path";

import { beforeAll, describe, expect, test } from "vitest";

import { EngineError } from "../../engine/errors.ts";
import { readFiles } from "../../engine/files.ts";
import { generate, Talk, type Answer, type Request, type Step, type Turn } from "../../engine/generate.ts";
import { readManifest, type Manifest } from "../../engine/manifest.ts";
import { openModel, type Model, type Way } from "../../engine/open.ts";
import { ORT_VERSION } from "../../engine/runtime.ts";
import { argmax } from "../../engine/sampler.ts";
import { selfTest } from "../../engine/selftest.ts";
import { TextTokenizer } from "../../engine/tokenizer.ts";
import { bundled, folderSource, KIT, MODELS, ROOT, RUNTIME, vectors } from "./kit.ts";

interface TurnCase {
  given: number[];
  loops: number;
  threshold: number;
  tokens: number[];
  loops_used: number[];
}

const given = vectors<{
  tolerance: number;
  every: number;
  chunk: number;
  input_ids: number[];
  golden: { loops: number; argmax: number; logits: number[] }[];
  greedy: ({ prompt: string; policy: string } & TurnCase)[];
  conversations: { case: string; policy: string; turns: TurnCase[] }[];
}>("model");

const WAYS: Way[] = ["in place", "presents"];
const models = new Map<string, Model>();

beforeAll(async () => {
  for (const way of WAYS) {
    for (const policy of ["full", "shared"]) {
      const { manifest, files } = await bundled(`exact-${policy}`);
      models.set(`${policy} ${way}`, await openModel(manifest, files, RUNTIME, way));
    }
  }
});

function ask(talk: Talk, history: Turn[], message: number[], more: Partial<Request>): AsyncGenerator<Step, Answer> {
  const defaults = { loops: 4, threshold: 0, most: 16, sampling: {}, stopTexts: [] };
  return generate(talk, { history, message, signal: new AbortController().signal, ...defaults, ...more });
}

async function collect(steps: AsyncGenerator<Step, Answer>): Promise<{ steps: Step[]; answer: Answer }> {
  const collected: Step[] = [];
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return { steps: collected, answer: value };
    collected.push(value);
  }
}

test("the pinned runtime is the one that is installed", () => {
  const installed = path.join(ROOT, "web_demo/node_modules/onnxruntime-web/package.json");
  expect((JSON.parse(readFileSync(installed, "utf8")) as { version: string }).version).toBe(ORT_VERSION);
});

describe.each(WAYS)("caches %s", (way) => {
  test("golden logits", async () => {
    const { host } = models.get(`full ${way}`)!;
    for (const { loops, argmax: best, logits: expected } of given.golden) {
      host.rewind(0);
      const { logits } = await host.run(given.input_ids, loops);
      expect(argmax(logits)).toBe(best);
      const differences = expected.map((value, place) => Math.abs(value - logits[place * given.every]!));
      expect(Math.max(...differences)).toBeLessThan(given.tolerance);
    }
  });

  test.each(["full", "shared"])("greedy answers at each T equal Python's (%s)", async (policy) => {
    const model = models.get(`${policy} ${way}`)!;
    for (const each of given.greedy.filter((found) => found.policy === policy)) {
      const ids = [model.manifest.tokenizer!.bos, ...model.tokenizer!.encode(each.prompt)];
      expect(ids).toEqual(each.given);
      const talk = new Talk(model);
      const { answer } = await collect(ask(talk, [], ids, { loops: each.loops, most: each.tokens.length }));
      expect(answer.turn.tokens).toEqual(each.tokens);
    }
  });

  test.each(given.conversations)("conversation: $case ($policy)", async ({ policy, turns }) => {
    const model = models.get(`${policy} ${way}`)!;
    expect(model.manifest.cache.prefill_chunk).toBe(given.chunk);
    const talk = new Talk(model);
    const history: Turn[] = [];
    for (const turn of turns) {
      const before = model.host.executed.recur;
      const pending = history.at(-1)?.tokens.slice(-1) ?? [];
      expect(turn.given.slice(0, pending.length)).toEqual(pending);
      const message = turn.given.slice(pending.length);
      const { loops, threshold } = turn;
      const { answer, steps } = await collect(
        ask(talk, history, message, { loops, threshold, most: turn.tokens.length }),
      );
      expect(answer.turn.tokens).toEqual(turn.tokens);
      expect(answer.turn.loopsUsed).toEqual(turn.loops_used);
      // What the runtime executed is what is shown: the message's chunks at all loops, then each token's own.
      const chunks = Math.ceil(turn.given.length / given.chunk);
      const shown = turn.loops_used.slice(1).reduce((sum, loops) => sum + loops, chunks * turn.loops);
      expect(model.host.executed.recur - before).toBe(shown);
      expect(steps.every((step) => step.changes.length === step.loops && step.changes[0]! > 0.999)).toBe(true);
      history.push(answer.turn);
    }
  });

  test("a conversation that is given again goes on with the same logits, bit for bit", async () => {
    const model = models.get(`shared ${way}`)!;
    const ids = [0, ...model.tokenizer!.encode("def total(values):\n")];
    const talk = new Talk(model);
    const first = await collect(ask(talk, [], ids, { loops: 8, threshold: 0.05, most: 24 }));
    const history = [first.answer.turn];
    await talk.restore(history);
    const never = (await talk.give([5], 4, 0)).logits;
    model.host.rewind(0);
    const again = new Talk(model);
    let replayed = 0;
    await again.restore(history, undefined, (done) => (replayed = done));
    expect(replayed).toBe(ids.length + 23);
    expect((await again.give([5], 4, 0)).logits).toEqual(never);
    // Going back to the same history computes nothing.
    expect(await again.restore(history)).toBe(0);
  });

  test("another T from the same place, and back", async () => {
    const model = models.get(`shared ${way}`)!;
    const talk = new Talk(model);
    const message = [0, ...model.tokenizer!.encode("import os\n")];
    const answers: number[][] = [];
    for (const loops of [1, 8, 1]) {
      answers.push((await collect(ask(talk, [], message, { loops }))).answer.turn.tokens);
    }
    expect(answers[0]).toEqual(answers[2]);
    expect(answers[0]).not.toEqual(answers[1]);
  });

  test("a stop ends it within one loop, and the conversation goes on as if the token had not begun", async () => {
    const model = models.get(`shared ${way}`)!;
    const talk = new Talk(model);
    const stop = new AbortController();
    const message = [0, ...model.tokenizer!.encode("class A:\n")];
    const steps = ask(talk, [], message, { loops: 16, most: 100, signal: stop.signal });
    for (let token = 0; token < 5; token++) await steps.next();
    const next = steps.next();
    await new Promise((resolve) => setTimeout(resolve, 0));
    const before = model.host.executed.recur;
    stop.abort();
    let last = await next;
    if (!last.done) last = await steps.next(); // the token was finished when the stop came
    const after = model.host.executed.recur;
    expect(after - before).toBeLessThanOrEqual(1);
    expect([last.done, (last.value as Answer).ending]).toEqual([true, "user"]);
    const history = [(last.value as Answer).turn];
    expect(history[0]!.tokens.length).toBeLessThanOrEqual(6);
    const on = await collect(ask(talk, history, [3], { most: 4 }));
    const fresh = await collect(ask(new Talk(model), history, [3], { most: 4 }));
    expect(on.answer.turn.tokens).toEqual(fresh.answer.turn.tokens);
  });

  test("caches grow with the text and stay what they were", async () => {
    const model = models.get(`full ${way}`)!;
    const { host } = model;
    const ids = Array.from({ length: 300 }, (_, place) => (place * 37) % 4000);
    host.rewind(0);
    const whole: number[] = [];
    for (let from = 0; from < 300; from += 100)
      whole.push(argmax((await host.run(ids.slice(from, from + 100), 4)).logits));
    const { manifest, files } = await bundled("exact-full");
    const other = await openModel(manifest, files, RUNTIME, way);
    const small = other.host.cacheBytes;
    const parts: number[] = [];
    for (let from = 0; from < 300; from += 100)
      parts.push(argmax((await other.host.run(ids.slice(from, from + 100), 4)).logits));
    expect(parts).toEqual(whole);
    expect(other.host.cacheBytes).toBeGreaterThan(2 * small);
    await other.host.dispose();
  });
});

test("both ways of caching give the same logits", async () => {
  const rows: Float32Array[] = [];
  for (const way of WAYS) {
    const { host } = models.get(`shared ${way}`)!;
    host.rewind(0);
    await host.run([0, 1, 2, 3], 4);
    rows.push((await host.run([9], 8)).logits);
  }
  expect(Math.max(...rows[0]!.map((value, place) => Math.abs(value - rows[1]![place]!)))).toBeLessThan(1e-5);
});

describe("answers end", () => {
  const stops = vectors<{
    tokens: {
      case: string;
      ids: number[];
      stops: string[];
      stop_ids: number[];
      text: string;
      used: number;
      ended_by: string | null;
    }[];
  }>("stop");

  test.each(stops.tokens)("$case", async ({ ids, stops: stopTexts, stop_ids, text, used, ended_by }) => {
    const tokenizer = TextTokenizer.read(readFileSync(path.join(ROOT, "parcae_mobile/tiny/tokenizer.json"), "utf8"));
    const { manifest: real } = models.get("shared in place")!;
    const manifest: Manifest = { ...real, tokenizer: { ...real.tokenizer!, stop: stop_ids } };
    let place = 0;
    const host = {
      room: 1000,
      rewind: () => {},
      run: () => {
        const logits = new Float32Array(manifest.padded_vocab_size);
        logits[ids[place++]!] = 1;
        return Promise.resolve({ logits, loops: 1, changes: [1] });
      },
    };
    const talk = new Talk({ manifest, tokenizer, host } as unknown as Model);
    const { steps, answer } = await collect(ask(talk, [], [0], { loops: 1, most: ids.length, stopTexts }));
    expect(steps.map((step) => step.piece).join("")).toBe(text);
    expect(answer.turn.tokens).toEqual(ids.slice(0, used));
    expect(answer.ending).toBe(ended_by === null ? "length" : ended_by === "id" ? "token" : "text");
  });

  test("at the end of the context, with what was said before it", async () => {
    const model = models.get("shared in place")!;
    const talk = new Talk(model);
    const message = Array.from({ length: 1020 }, (_, place) => ((place * 31) % 4000) + 1);
    const { answer } = await collect(ask(talk, [], message, { loops: 1, most: 50 }));
    expect([answer.ending, answer.turn.tokens.length]).toEqual(["context", 5]);
    await expect(collect(ask(talk, [], [...message, ...message], {}))).rejects.toThrow(
      /do not fit the context of 1024/,
    );
  });

  test("settings outside of their range are refused before any work", async () => {
    const model = models.get("shared in place")!;
    const before = model.host.executed;
    for (const wrong of [
      { loops: 17 },
      { loops: 0 },
      { threshold: 1 },
      { sampling: { top_p: 2 } },
      { stopTexts: [""] },
    ]) {
      await expect(collect(ask(new Talk(model), [], [1], wrong))).rejects.toThrow(EngineError);
    }
    await expect(collect(ask(new Talk(model), [], [], {}))).rejects.toThrow(EngineError);
    expect(model.host.executed).toEqual(before);
  });
});

describe("self-test", () => {
  test.each(["parcae-tiny", "rounded", "exact-shared"])("passes on %s", async (name) => {
    const { manifest, files } = await bundled(name);
    const model = await openModel(manifest, files, RUNTIME);
    expect(model.way).toBe("in place");
    const report = await selfTest(model, () => {});
    expect(report.rows.length).toBeGreaterThan(0);
    console.log(name, report.rows.map((row) => `T=${row.loops}: ${row.maxAbs.toExponential(1)}`).join(", "));
    expect(report.passed).toBe(true);
    await model.host.dispose();
  });

  test("fails for weights that are not those of the golden values", async () => {
    const { manifest, files } = await bundled("exact-shared");
    const weights = new Float32Array(files.get("weights.data")!.buffer);
    for (let place = 0; place < weights.length; place += 97) weights[place]! *= 1.05;
    const report = await selfTest(await openModel(manifest, files, RUNTIME), () => {});
    expect(report.passed).toBe(false);
  });
});

describe("what cannot be loaded is refused by name", () => {
  test("a manifest of another form", async () => {
    const { manifest, files } = await bundled("exact-shared");
    const scan = { ...manifest, loops: { ...manifest.loops, form: "scan" } };
    await expect(openModel(scan, files, RUNTIME)).rejects.toThrow(/dynamic/);
  });

  test("a later runtime", async () => {
    const { manifest, files } = await bundled("exact-shared");
    const later = { ...manifest, runtime: { ...manifest.runtime, minimum: "9.0" } };
    await expect(openModel(later, files, RUNTIME)).rejects.toMatchObject({ kind: "runtime" });
  });

  test("a graph that is none", async () => {
    const { manifest, files } = await bundled("exact-shared");
    files.set("model_recur.onnx", new TextEncoder().encode("not a graph"));
    await expect(openModel(manifest, files, RUNTIME)).rejects.toMatchObject({ kind: "session" });
  });

  test("files of another model in its place", async () => {
    const { manifest } = await bundled("exact-shared");
    const other = folderSource(path.join(MODELS, "parcae-tiny"));
    const failure: unknown = await readFiles(manifest, other).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(EngineError);
    const { kind, where } = failure as EngineError;
    expect(["size", "checksum"]).toContain(kind); // whichever differs first
    expect(Object.keys(manifest.files)).toContain(where);
  });

  test("the kit's base manifest reads", () => {
    const { base } = JSON.parse(readFileSync(path.join(KIT, "vectors/manifest.json"), "utf8")) as { base: unknown };
    expect(readManifest(JSON.stringify(base)).name).toBe("tiny-onnx-dynamic-int4");
  });
});
