/** The engine in a worker of its own, so that the page answers while it computes. A call waits for the one before it. */
import { bench } from "../engine/bench.ts";
import { Cancelled, EngineError } from "../engine/errors.ts";
import { fileSource, readFiles, urlSource } from "../engine/files.ts";
import { generate, pendingOf, Talk } from "../engine/generate.ts";
import { checkRuntime } from "../engine/manifest.ts";
import { Meter, type Metrics } from "../engine/metrics.ts";
import { openModel, type Model } from "../engine/open.ts";
import { checkPlatform, ORT_NAME, ORT_VERSION } from "../engine/runtime.ts";
import { selfTest } from "../engine/selftest.ts";
import type { AskArguments, AskResult, Calls, Failure, LoadArguments, LoadResult, Name, Request } from "./protocol.ts";

type Tell<N extends Name> = (event: Calls[N]["event"]) => void;

let talk: Talk | null = null;
const running = new Map<number, AbortController>();
let before: Promise<unknown> = Promise.resolve();
const send = (message: unknown): void => {
  postMessage(message);
};

async function load({ manifest, source, runtime }: LoadArguments, tell: Tell<"load">): Promise<LoadResult> {
  checkPlatform();
  checkRuntime(manifest, "web", ORT_NAME, ORT_VERSION);
  const started = performance.now();
  const from = typeof source === "string" ? urlSource(source, manifest) : fileSource(source);
  let told = 0;
  const files = await readFiles(manifest, from, (done, total, name) => {
    if (done < total && performance.now() - told < 50) return;
    told = performance.now();
    tell({ done, total, name });
  });
  const model = await openModel(manifest, files, runtime);
  files.clear(); // the runtime has its own copies
  talk = new Talk(model);
  return { way: model.way, heapBytes: model.heapBytes(), seconds: (performance.now() - started) / 1000 };
}

async function ask(given: AskArguments, tell: Tell<"ask">, signal: AbortSignal): Promise<AskResult> {
  const model = loaded();
  const { manifest, tokenizer, host } = model;
  if (!tokenizer || !manifest.tokenizer) {
    throw new EngineError("tokenizer", "", "this model came without a tokenizer, so it cannot read a text");
  }
  const message = tokenizer.encode(given.text);
  const { add_bos, bos } = manifest.tokenizer;
  if (given.history.length === 0 && add_bos && message[0] !== bos) message.unshift(bos);
  let meter: Meter | null = null;
  const measure = (): Metrics =>
    (meter ?? newMeter()).read({
      executed: host.executed,
      cacheBytes: host.cacheBytes,
      heapBytes: model.heapBytes(),
      context: host.length,
    });
  const newMeter = (): Meter =>
    new Meter(pendingOf(given.history).length + message.length, host.executed, manifest.memory.weights);
  meter = newMeter();
  const steps = generate(talk!, {
    ...given,
    message,
    signal,
    onReplay: (done, total) => {
      tell({ kind: "replay", done, total });
      if (done === total) meter = newMeter(); // what was read again is no part of this answer
    },
  });
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return { turn: value.turn, ending: value.ending, metrics: measure() };
    meter.add(value.seconds, value.loops);
    tell({ kind: "step", step: value, tokenText: tokenizer.token(value.token), metrics: measure() });
  }
}

function loaded(): Model {
  if (!talk) throw new EngineError("usage", "model", "no model is loaded");
  return talk.model;
}

async function answer(request: Exclude<Request, { stop: number }>, signal: AbortSignal): Promise<unknown> {
  const tell = (event: unknown): void => send({ id: request.id, event });
  switch (request.name) {
    case "load":
      return load(request.given, tell);
    case "ask":
      return ask(request.given, tell, signal);
    case "selfTest": {
      const { model } = (talk = new Talk(loaded())); // what the caches held is gone afterwards
      return selfTest(model, (done, total) => tell({ done, total }));
    }
    case "bench": {
      const { model } = (talk = new Talk(loaded()));
      return bench(model, { ...request.given, signal, progress: (done, total) => tell({ done, total }) });
    }
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof EngineError) return { kind: error.kind, where: error.where, message: error.message };
  if (error instanceof Cancelled) return { kind: "cancelled", where: "", message: error.message };
  const message = String(error);
  const memory = error instanceof RangeError || /out of memory|OOM|allocation/i.test(message);
  return { kind: memory ? "memory" : "other", where: "", message };
}

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  if ("stop" in data) {
    running.get(data.stop)?.abort();
    return;
  }
  const stop = new AbortController();
  running.set(data.id, stop);
  // All calls share one cache: one that began inside of another would change what the other reads.
  before = before
    .then(() => answer(data, stop.signal))
    .then((result) => send({ id: data.id, result }))
    .catch((error: unknown) => send({ id: data.id, error: failureOf(error) }))
    .finally(() => running.delete(data.id));
});
