/** One graph in onnxruntime's module, with its inputs and outputs bound to addresses that the caller names. */
import { EngineError } from "./errors.ts";
import { lastError, sessionError, type OrtModule } from "./runtime.ts";

export type ElementType = "float32" | "int8" | "int32" | "int64";

/** An input or output: open dimensions are names. */
export interface Port {
  name: string;
  type: ElementType;
  dims: (number | string)[];
}

/** Where a port's numbers lie. */
export interface Place {
  address: number;
  dims: number[];
}

interface NamedPort extends Port {
  nameAddress: number;
}

/** A call with all inputs and outputs bound: `run` copies and allocates nothing. */
export interface Bound {
  run(): Promise<void>;
  release(): void;
}

const CODES: Record<ElementType, number> = { float32: 1, int8: 3, int32: 6, int64: 7 };
const TYPES: Record<number, ElementType> = { 1: "float32", 3: "int8", 6: "int32", 7: "int64" };
export const ITEM_BYTES: Record<ElementType, number> = { float32: 4, int8: 1, int32: 4, int64: 8 };
export const WEIGHTS = "weights.data";
const NO_OPTIMIZATION = 0;
const ALL_OPTIMIZATION = 99;
const CPU = 1;

/** How a graph is loaded. */
export interface GraphOptions {
  /** onnxruntime's session entries. */
  settings: Record<string, string>;
  /** Whether the runtime may rewrite the graph: graphs of contrib operators are written as they shall run. */
  optimize: boolean;
}

export function byteLength(type: ElementType, dims: readonly number[]): number {
  return dims.reduce((product, size) => product * size, ITEM_BYTES[type]);
}

/** Memory in the module's heap. Throws `EngineError` of kind memory. */
export function allocate(module: OrtModule, bytes: number): number {
  const address = module._malloc(Math.max(bytes, 1));
  if (!address) throw new EngineError("memory", "", `${bytes} bytes more than this browser gives`);
  return address;
}

export class Session {
  private constructor(
    private readonly module: OrtModule,
    private readonly handle: number,
    readonly inputs: readonly NamedPort[],
    readonly outputs: readonly NamedPort[],
  ) {}

  /** Load a graph. Throws `EngineError` of kind session or memory. */
  static async open(
    module: OrtModule,
    graph: Uint8Array,
    weights: Uint8Array,
    options: GraphOptions,
  ): Promise<Session> {
    const level = options.optimize ? ALL_OPTIMIZATION : NO_OPTIMIZATION;
    const settings = module._OrtCreateSessionOptions(level, 1, 1, 0, 0, 0, 0, 3, 0, 0);
    const texts: number[] = [];
    for (const pair of Object.entries(options.settings)) {
      const [name, value] = pair.map((text) => textAt(module, text)) as [number, number];
      texts.push(name, value);
      if (module._OrtAddSessionConfigEntry(settings, name, value) !== 0) throw lastError(module);
    }
    const address = allocate(module, graph.length);
    module.HEAPU8.set(graph, address);
    module.mountExternalData(WEIGHTS, weights);
    let handle: number;
    try {
      handle = await module._OrtCreateSession(address, graph.length, settings);
    } catch (error) {
      throw sessionError(String(error));
    } finally {
      module.unmountExternalData();
      module._free(address);
      module._OrtReleaseSessionOptions(settings);
      texts.forEach((text) => module._free(text));
    }
    if (!handle) throw lastError(module);
    const [inputs, outputs] = portsOf(module, handle);
    return new Session(module, handle, inputs, outputs);
  }

  /** Bind every input and output to where `place` says. */
  bind(place: (port: Port) => Place): Bound {
    const { module, handle, inputs, outputs } = this;
    const ports = [...inputs, ...outputs];
    const names = allocate(module, 8 * ports.length);
    const values = names + 4 * ports.length;
    const tensors = ports.map((port, index) => {
      const { address, dims } = place(port);
      const tensor = tensorAt(module, port.type, address, dims);
      module.setValue(names + 4 * index, port.nameAddress, "*");
      module.setValue(values + 4 * index, tensor, "*");
      return tensor;
    });
    const first = 4 * inputs.length;
    return {
      async run() {
        let code: number;
        try {
          code = await module._OrtRun(
            handle,
            names,
            values,
            inputs.length,
            names + first,
            outputs.length,
            values + first,
            0,
          );
        } catch (error) {
          throw sessionError(String(error));
        }
        if (code !== 0) throw lastError(module);
      },
      release() {
        tensors.forEach((tensor) => module._OrtReleaseTensor(tensor));
        module._free(names);
      },
    };
  }

  release(): void {
    for (const port of [...this.inputs, ...this.outputs]) this.module._OrtFree(port.nameAddress);
    this.module._OrtReleaseSession(this.handle);
  }
}

function textAt(module: OrtModule, text: string): number {
  const bytes = module.lengthBytesUTF8(text) + 1;
  const address = allocate(module, bytes);
  module.stringToUTF8(text, address, bytes);
  return address;
}

function tensorAt(module: OrtModule, type: ElementType, address: number, dims: number[]): number {
  const stack = module.stackSave();
  const sizes = module.stackAlloc(4 * dims.length + 4);
  dims.forEach((size, place) => module.setValue(sizes + 4 * place, size, "i32"));
  const bytes = byteLength(type, dims);
  const tensor = module._OrtCreateTensor(CODES[type], address, bytes, sizes, dims.length, CPU);
  module.stackRestore(stack);
  if (!tensor) throw lastError(module);
  return tensor;
}

function portsOf(module: OrtModule, session: number): [NamedPort[], NamedPort[]] {
  const pair = allocate(module, 8);
  if (module._OrtGetInputOutputCount(session, pair, pair + 4) !== 0) throw lastError(module);
  const inputs = module.getValue(pair, "i32");
  const count = inputs + module.getValue(pair + 4, "i32");
  const ports: NamedPort[] = [];
  for (let index = 0; index < count; index++) {
    if (module._OrtGetInputOutputMetadata(session, index, pair, pair + 4) !== 0) throw lastError(module);
    const nameAddress = module.getValue(pair, "*");
    const metadata = module.getValue(pair + 4, "*");
    const type = TYPES[module.getValue(metadata, "i32")];
    const name = module.UTF8ToString(nameAddress);
    if (!type) throw new EngineError("session", name, `${name} has a type that this app does not know`);
    const rank = module.getValue(metadata + 4, "i32");
    const dims: (number | string)[] = [];
    for (let axis = 0; axis < rank; axis++) {
      const symbol = module.getValue(metadata + 8 + 4 * axis, "*");
      const size = module.getValue(metadata + 8 + 4 * (axis + rank), "i32");
      dims.push(symbol ? module.UTF8ToString(symbol) : size);
    }
    module._OrtFree(metadata);
    ports.push({ name, nameAddress, type, dims });
  }
  module._free(pair);
  return [ports.slice(0, inputs), ports.slice(inputs)];
}
