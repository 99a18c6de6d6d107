/**
 * onnxruntime-web's WebAssembly module and the functions that it exports.
 *
 *     const ort = await openRuntime("https://host/runtime/");
 *
 * The functions below the public API are not documented: package.json pins the version, the tests run both ways of
 * handing over caches, and `open.ts` falls back to the public API.
 */
import { EngineError } from "./errors.ts";

export const ORT_VERSION = "1.30.0";
export const ORT_NAME = "onnxruntime";

/** The module as Emscripten gives it; addresses are byte offsets in its heap. */
export interface OrtModule {
  readonly HEAPU8: Uint8Array<ArrayBuffer>;
  _malloc(bytes: number): number;
  _free(address: number): void;
  stackSave(): number;
  stackAlloc(bytes: number): number;
  stackRestore(stack: number): void;
  getValue(address: number, type: "i32" | "*"): number;
  setValue(address: number, value: number, type: "i32" | "*"): void;
  UTF8ToString(address: number): string;
  stringToUTF8(text: string, address: number, bytes: number): void;
  lengthBytesUTF8(text: string): number;
  mountExternalData(name: string, data: Uint8Array): void;
  unmountExternalData(): void;
  _OrtInit(threads: number, logLevel: number): number;
  _OrtGetLastError(code: number, text: number): number;
  _OrtCreateSessionOptions(
    optimization: number,
    arena: number,
    memoryPattern: number,
    executionMode: number,
    profiling: number,
    profilePrefix: number,
    logId: number,
    logSeverity: number,
    logVerbosity: number,
    optimizedPath: number,
  ): number;
  _OrtAddSessionConfigEntry(options: number, name: number, value: number): number;
  _OrtReleaseSessionOptions(options: number): number;
  _OrtCreateSession(model: number, bytes: number, options: number): number | Promise<number>;
  _OrtReleaseSession(session: number): number;
  _OrtGetInputOutputCount(session: number, inputs: number, outputs: number): number;
  _OrtGetInputOutputMetadata(session: number, index: number, name: number, metadata: number): number;
  _OrtFree(address: number): void;
  _OrtCreateTensor(type: number, data: number, bytes: number, dims: number, rank: number, location: number): number;
  _OrtReleaseTensor(tensor: number): void;
  _OrtRun(
    session: number,
    inputNames: number,
    inputs: number,
    inputCount: number,
    outputNames: number,
    outputCount: number,
    outputs: number,
    options: number,
  ): number | Promise<number>;
}

type Factory = (options: Record<string, unknown>) => Promise<OrtModule>;

// A function of one v128 instruction: valid only where SIMD is known.
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

/** Throw `EngineError` of kind simd where WebAssembly or its SIMD instructions are missing. */
export function checkPlatform(): void {
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(new Uint8Array(SIMD))) {
    throw new EngineError("simd", "", "this browser has no WebAssembly SIMD; use one of the last three years");
  }
}

const opened = new Map<string, Promise<OrtModule>>();

/**
 * Load the module from the folder at `base` (a URL that ends in a slash), once.
 *
 * More than one thread needs a page that is isolated from other origins. The page asks for one: `make web-bench`.
 */
export function openRuntime(base: string, threads = 1): Promise<OrtModule> {
  const key = `${base} ${threads}`;
  let module = opened.get(key);
  if (!module) {
    module = instantiate(base, threads);
    opened.set(key, module);
    module.catch(() => opened.delete(key));
  }
  return module;
}

async function instantiate(base: string, threads: number): Promise<OrtModule> {
  checkPlatform();
  const glue = (await import(/* @vite-ignore */ `${base}ort-wasm-simd-threaded.mjs`)) as { default: Factory };
  const module = await glue.default({ numThreads: threads, locateFile: (name: string) => base + name });
  if (module._OrtInit(threads, 3) !== 0) throw lastError(module);
  return module;
}

/** The runtime's last error; kind memory where it says that there was none. */
export function lastError(module: OrtModule): EngineError {
  const place = module._malloc(8);
  let text = "unknown error";
  if (place) {
    module._OrtGetLastError(place, place + 4);
    const address = module.getValue(place + 4, "*");
    if (address) text = module.UTF8ToString(address);
    module._free(place);
  }
  return sessionError(text);
}

/** An error of the runtime with the kind that an app needs to know. */
export function sessionError(text: string): EngineError {
  const memory = /bad_alloc|allocat|out of memory|OOM|memory access out of bounds/i.test(text);
  return new EngineError(memory ? "memory" : "session", "", text);
}
