/**
 * The manifest of a bundled model, `app.json`: its types, and a reader that names the first thing that is wrong.
 *
 *     const manifest = readManifest(text);
 *     checkRuntime(manifest, "web", "onnxruntime", "1.30.0");
 *
 * Unknown fields are ignored; another `format` is refused. `docs/apps.md` explains the fields.
 */
import { EngineError } from "./errors.ts";

export interface FileEntry {
  bytes: number;
  sha256: string;
}

export interface Loops {
  form: string;
  min: number;
  max: number;
  trained: number;
  built: number[];
  early_exit: boolean;
  /** A token leaves the loop after this one at the earliest. */
  exit_from: number;
}

export type Stage = "prelude" | "recur" | "coda";

export interface CacheStage {
  layers: number;
  heads: number;
  head_size: number;
  slots: number;
}

export type Policy = "full" | "shared" | "first1+shared" | "first2+shared";

export interface Cache extends Record<Stage, CacheStage> {
  policy: Policy;
  dtype: "fp32" | "fp16" | "int8";
  context: number;
  prefill_chunk: number;
}

export interface Memory {
  weights: number;
  cache_per_token: number;
  cache_per_token_and_slot: number;
  slots: number;
  work_per_chunk_token: number;
  work: number;
  overhead_percent: number;
}

export interface LogitRows {
  offset: number;
  shape: [number, number];
}

export interface Greedy {
  prompt: number[];
  tokens: Record<string, number[]>;
  exact: boolean;
}

export interface SelfTest {
  file: string;
  input_ids: number[];
  positions: number[];
  logits: Record<string, LogitRows>;
  max_abs: number | null;
  kl_mean: number | null;
  top1: number | null;
  greedy: Greedy | null;
}

export interface TokenizerFacts {
  file: string;
  kind: string;
  vocab_size: number;
  bos: number;
  add_bos: boolean;
  stop: number[];
}

export interface Manifest {
  format: 1;
  name: string;
  model: string;
  platform: "web" | "android" | "ios";
  target: "onnx" | "executorch" | "coreml";
  runtime: { name: string; minimum: string; reason: string; settings: Record<string, string> };
  loops: Loops;
  graphs: Record<string, { file: string; function: string | null }>;
  recipe: string;
  compute: string;
  promise: string;
  token_parity: boolean;
  verified: boolean;
  portable: boolean;
  last_logits: boolean;
  state_width: number;
  vocab_size: number;
  padded_vocab_size: number;
  cache: Cache;
  memory: Memory;
  tokenizer: TokenizerFacts | null;
  self_test: SelfTest | null;
  weights_sha256: string;
  files: Record<string, FileEntry>;
}

export const APP_MANIFEST = "app.json";
/** Bytes that an `app.json` may have: two hundred times what a bundled model's has. Read no further. */
export const MOST_MANIFEST = 1_000_000;
const FORMAT = 1;
const PART = /^[A-Za-z0-9_][A-Za-z0-9_. -]*$/;
const STAGES: readonly Stage[] = ["prelude", "recur", "coda"];

type Check = (value: unknown, where: string) => void;
type Values = Record<string, unknown>;

/** Throw `EngineError` of kind json for an `app.json` of more bytes than one may have. */
export function checkManifestSize(bytes: number): void {
  if (bytes <= MOST_MANIFEST) return;
  throw new EngineError("json", "", `${APP_MANIFEST} has more than ${MOST_MANIFEST} bytes; bundle the artifact again`);
}

/** Validate the text of an `app.json`. Throws `EngineError` of kind json, format, path or field. */
export function readManifest(text: string): Manifest {
  checkManifestSize(new TextEncoder().encode(text).length);
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch {
    values = null;
  }
  if (!isObject(values)) {
    throw new EngineError("json", "", `${APP_MANIFEST} is not a JSON object; bundle the artifact again`);
  }
  if (values.format !== FORMAT) {
    const found = values.format === undefined ? "none" : JSON.stringify(values.format);
    throw new EngineError("format", "format", `${APP_MANIFEST} has format ${found}, this app reads ${FORMAT}`);
  }
  const unsafe = namesOf(values).find((name) => !isSafe(name));
  if (unsafe !== undefined) {
    throw new EngineError(
      "path",
      unsafe,
      `${APP_MANIFEST} names ${JSON.stringify(unsafe)}, a path that leads elsewhere`,
    );
  }
  MANIFEST(values, "");
  const manifest = values as unknown as Manifest;
  const { loops, runtime } = values as { loops: Partial<Loops>; runtime: Partial<Manifest["runtime"]> };
  loops.built ??= [];
  loops.exit_from ??= 1;
  runtime.settings ??= {};
  checkFit(manifest);
  return manifest;
}

/** Throw `EngineError` of kind platform or runtime if an app of this platform and runtime cannot run it. */
export function checkRuntime(manifest: Manifest, platform: string, name: string, version: string): void {
  if (manifest.platform !== platform) {
    const message = `bundled for ${manifest.platform}, this app is for ${platform}`;
    throw new EngineError("platform", "platform", message);
  }
  const needed = manifest.runtime;
  if (needed.name !== name || !isAtLeast(version, needed.minimum)) {
    const message = `needs ${needed.name} ${needed.minimum} (${needed.reason}); this app has ${name} ${version}`;
    throw new EngineError("runtime", "runtime", message);
  }
}

/** Whether a version is not below another, by its leading numbers; missing ones are 0. */
export function isAtLeast(version: string, minimum: string): boolean {
  const [have, need] = [version, minimum].map((text) => (/^[0-9.]*/.exec(text)?.[0] ?? "").split(".").map(Number));
  for (let place = 0; place < Math.max(have!.length, need!.length); place++) {
    const difference = (have![place] ?? 0) - (need![place] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** Bytes at `loops` loops with caches that hold `tokens` tokens and chunks of `chunk`, before anything is loaded. */
export function estimateMemory(memory: Memory, loops: number, tokens: number, chunk: number): number {
  const cache = tokens * (memory.cache_per_token + memory.cache_per_token_and_slot * Math.min(loops, memory.slots));
  const total = memory.weights + cache + memory.work + chunk * memory.work_per_chunk_token;
  return total + Math.floor((total * memory.overhead_percent) / 100);
}

function isObject(value: unknown): value is Values {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function namesOf(values: Values): string[] {
  const parts: unknown[] = [values.tokenizer, values.self_test];
  if (isObject(values.graphs)) parts.push(...Object.values(values.graphs));
  const named = parts.filter(isObject).map((part) => part.file);
  const files = isObject(values.files) ? Object.keys(values.files) : [];
  return [...files, ...named].filter((name) => typeof name === "string");
}

function isSafe(name: string): boolean {
  return name !== "manifest.json" && name.split("/").every((part) => PART.test(part));
}

function fail(where: string, message: string): never {
  throw new EngineError("field", where, `${APP_MANIFEST}: ${where}: ${message}`);
}

const number: Check = (value, where) => {
  if (typeof value !== "number" || !Number.isFinite(value)) fail(where, "not a number");
};
const integer =
  (least: number): Check =>
  (value, where) => {
    if (!Number.isSafeInteger(value) || (value as number) < least)
      fail(where, `not a whole number of ${least} or more`);
  };
const count = integer(0);
const positive = integer(1);
const text: Check = (value, where) => {
  if (typeof value !== "string") fail(where, "not a text");
};
const flag: Check = (value, where) => {
  if (typeof value !== "boolean") fail(where, "neither true nor false");
};
const matching =
  (pattern: RegExp): Check =>
  (value, where) => {
    if (typeof value !== "string" || !pattern.test(value)) fail(where, `not of the form ${pattern.source}`);
  };
const among =
  (...choices: string[]): Check =>
  (value, where) => {
    if (typeof value !== "string" || !choices.includes(value)) fail(where, `not one of ${choices.join(", ")}`);
  };
const nullable =
  (check: Check): Check =>
  (value, where) => {
    if (value !== null) check(value, where);
  };
const optional =
  (check: Check): Check =>
  (value, where) => {
    if (value !== undefined) check(value, where);
  };
const listOf =
  (check: Check): Check =>
  (value, where) => {
    if (!Array.isArray(value)) fail(where, "not a list");
    value.forEach((item, place) => check(item, `${where}.${place}`));
  };
const mapOf =
  (check: Check): Check =>
  (value, where) => {
    if (!isObject(value)) fail(where, "not an object");
    for (const [name, item] of Object.entries(value)) check(item, `${where}.${name}`);
  };
const object =
  (fields: Record<string, Check>): Check =>
  (value, where) => {
    if (!isObject(value)) fail(where, "not an object");
    for (const [name, check] of Object.entries(fields)) check(value[name], where ? `${where}.${name}` : name);
  };

const cacheStage = object({ layers: count, heads: positive, head_size: positive, slots: positive });
const sha256 = matching(/^[0-9a-f]{64}$/);
const shape: Check = (value, where) => {
  listOf(positive)(value, where);
  if ((value as unknown[]).length !== 2) fail(where, "not two sizes");
};

const MANIFEST = object({
  name: matching(PART),
  model: text,
  platform: among("web", "android", "ios"),
  target: among("onnx", "executorch", "coreml"),
  runtime: object({
    name: among("onnxruntime", "executorch", "coreml"),
    minimum: matching(/^[0-9]+(\.[0-9]+)*$/),
    reason: text,
    settings: optional(mapOf(text)),
  }),
  loops: object({
    form: among("stages", "scan", "while", "unrolled"),
    min: positive,
    max: positive,
    trained: positive,
    built: optional(listOf(positive)),
    early_exit: flag,
    exit_from: optional(positive),
  }),
  graphs: mapOf(object({ file: text, function: optional(nullable(text)) })),
  recipe: text,
  compute: among("fp32", "fp16", "int8"),
  promise: text,
  token_parity: flag,
  verified: flag,
  portable: flag,
  last_logits: flag,
  state_width: positive,
  vocab_size: positive,
  padded_vocab_size: positive,
  cache: object({
    policy: among("full", "shared", "first1+shared", "first2+shared"),
    dtype: among("fp32", "fp16", "int8"),
    context: positive,
    prefill_chunk: positive,
    prelude: cacheStage,
    recur: cacheStage,
    coda: cacheStage,
  }),
  memory: object({
    weights: count,
    cache_per_token: count,
    cache_per_token_and_slot: count,
    slots: positive,
    work_per_chunk_token: count,
    work: count,
    overhead_percent: count,
  }),
  tokenizer: nullable(
    object({ file: text, kind: text, vocab_size: positive, bos: count, add_bos: flag, stop: listOf(count) }),
  ),
  self_test: nullable(
    object({
      file: text,
      input_ids: listOf(count),
      positions: listOf(count),
      logits: mapOf(object({ offset: count, shape })),
      max_abs: nullable(number),
      kl_mean: nullable(number),
      top1: nullable(number),
      greedy: nullable(object({ prompt: listOf(count), tokens: mapOf(listOf(count)), exact: flag })),
    }),
  ),
  weights_sha256: sha256,
  files: mapOf(object({ bytes: count, sha256 })),
});

/** Rules between fields. */
function checkFit(manifest: Manifest): void {
  const { loops, tokenizer, self_test: test } = manifest;
  if (loops.min > loops.max || loops.built.some((built) => built < loops.min || built > loops.max)) {
    fail("loops", "min, max and built do not fit together");
  }
  if (loops.early_exit && loops.exit_from < loops.min) fail("loops", "exit_from is below min");
  const wanted = loops.form === "stages" ? [...STAGES] : loops.built.length ? loops.built.map(String) : ["model"];
  if (Object.keys(manifest.graphs).sort().join() !== wanted.sort().join()) {
    fail("graphs", `${loops.form} needs ${wanted.join(", ")}`);
  }
  const named = [...Object.values(manifest.graphs), tokenizer, test].flatMap((part) => (part ? [part.file] : []));
  for (const name of named) {
    const listed = Object.keys(manifest.files).some((file) => file === name || file.startsWith(`${name}/`));
    if (!listed) fail("files", `${name} is not among the files`);
  }
  if (manifest.vocab_size > manifest.padded_vocab_size) fail("vocab_size", "above padded_vocab_size");
  if (tokenizer && Math.max(tokenizer.bos, ...tokenizer.stop) >= manifest.vocab_size) {
    fail("tokenizer", "an id is not in the vocabulary");
  }
  if (!test) return;
  for (const rows of Object.values(test.logits)) {
    const [positions, vocabulary] = rows.shape;
    if (rows.offset + 4 * positions * vocabulary > manifest.files[test.file]!.bytes) {
      fail("self_test", "rows lie outside of the file");
    }
    if (positions !== test.positions.length || vocabulary !== manifest.padded_vocab_size) {
      fail("self_test", "shape is not (positions, padded_vocab_size)");
    }
  }
}
