/** What the page and the worker say to each other. */
import type { Plan, Table } from "../engine/bench.ts";
import type { ErrorKind } from "../engine/errors.ts";
import type { Ending, Step, Turn } from "../engine/generate.ts";
import type { Manifest } from "../engine/manifest.ts";
import type { Metrics } from "../engine/metrics.ts";
import type { Way } from "../engine/open.ts";
import type { Sampling } from "../engine/sampler.ts";
import type { SelfTestReport } from "../engine/selftest.ts";

export interface LoadArguments {
  manifest: Manifest;
  /** A URL that ends in a slash, or the files that a person chose. */
  source: string | Map<string, Blob>;
  runtime: string;
}

export interface AskArguments {
  history: Turn[];
  text: string;
  loops: number;
  threshold: number;
  most: number;
  sampling: Partial<Sampling>;
  stopTexts: string[];
}

export interface Calls {
  load: { given: LoadArguments; event: LoadEvent; result: LoadResult };
  ask: { given: AskArguments; event: AskEvent; result: AskResult };
  selfTest: { given: null; event: Share; result: SelfTestReport };
  bench: { given: Pick<Plan, "loops" | "contexts" | "device">; event: Share; result: Table };
}

export interface Share {
  done: number;
  total: number;
}

export type LoadEvent = Share & { name: string };

export interface LoadResult {
  way: Way;
  heapBytes: number;
  seconds: number;
}

export type AskEvent =
  { kind: "replay"; done: number; total: number } | { kind: "step"; step: Step; tokenText: string; metrics: Metrics };

export interface AskResult {
  turn: Turn;
  ending: Ending;
  metrics: Metrics;
}

export type Name = keyof Calls;
export type Request = { [N in Name]: { id: number; name: N; given: Calls[N]["given"] } }[Name] | { stop: number };

export interface Failure {
  kind: ErrorKind | "cancelled" | "other";
  where: string;
  message: string;
}

export interface Response {
  id: number;
  event?: unknown;
  result?: unknown;
  error?: Failure;
}
