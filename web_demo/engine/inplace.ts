/**
 * Caches in place: past and present of a graph are one address in the module's heap, so that a decoding step copies and
 * allocates nothing. It calls the module's own functions, because the public API cannot write to given memory.
 */
import { EngineError } from "./errors.ts";
import type { Files } from "./files.ts";
import type { Manifest, Stage } from "./manifest.ts";
import type { OrtModule } from "./runtime.ts";
import { allocate, byteLength, ITEM_BYTES, Session, WEIGHTS } from "./session.ts";
import type { Bound, ElementType, GraphOptions, Place, Port } from "./session.ts";
import type { Executed, Stages } from "./stages.ts";

const ROLES: readonly Stage[] = ["coda", "recur", "prelude"]; // the head first: loading it takes the most, in passing

/** Buffers and bindings of chunks of one length. */
interface Workspace {
  tokens: number;
  buffers: Map<string, Place>;
  bound: Map<string, Bound>;
}

export class InPlaceStages implements Stages {
  readonly executed: Executed = { prelude: 0, recur: 0, coda: 0 };
  private readonly caches = new Map<string, number[]>(); // stage, layer and part to the addresses of their slots
  private capacity = 0;
  private slots = 0;
  private readonly work: { step: Workspace | null; prompt: Workspace | null } = { step: null, prompt: null };
  private current: Workspace | null = null;
  private turn = 0;

  private constructor(
    private readonly module: OrtModule,
    private readonly manifest: Manifest,
    private readonly sessions: Record<Stage, Session>,
  ) {}

  static async open(module: OrtModule, manifest: Manifest, files: Files, options: GraphOptions): Promise<Stages> {
    const sessions: Partial<Record<Stage, Session>> = {};
    for (const role of ROLES) {
      const graph = files.get(manifest.graphs[role]!.file)!;
      sessions[role] = await Session.open(module, graph, files.get(WEIGHTS)!, options);
    }
    return new InPlaceStages(module, manifest, sessions as Record<Stage, Session>);
  }

  get cacheBytes(): number {
    return ROLES.reduce((sum, stage) => {
      const { layers } = this.manifest.cache[stage];
      return sum + 2 * layers * this.slotsOf(stage) * this.slotBytes(stage, this.capacity);
    }, 0);
  }

  reserve(capacity: number, slots: number, held: number): void {
    if (capacity <= this.capacity && slots <= this.slots) return;
    const grown = Math.max(capacity, this.capacity);
    const wanted = Math.max(slots, this.slots);
    this.dropWork();
    for (const stage of ROLES) {
      for (let layer = 0; layer < this.manifest.cache[stage].layers; layer++) {
        for (const part of ["key", "value"]) this.growCache(stage, `${layer}.${part}`, grown, wanted, held);
      }
    }
    this.capacity = grown;
    this.slots = wanted;
  }

  async begin(ids: readonly number[], held: number): Promise<void> {
    const work = (this.current = this.workspace(ids.length));
    this.turn = 0;
    const prelude = this.bound("prelude", 0, 0);
    this.bound("recur", 0, 0);
    this.bound("coda", 0, 0);
    const { module } = this;
    const tokens = work.buffers.get("input_ids")!.address;
    ids.forEach((id, place) => this.writeInt64(tokens + 8 * place, id));
    module.setValue(work.buffers.get("total")!.address, held + ids.length, "i32");
    const state = work.buffers.get("state.0")!;
    module.HEAPU8.fill(0, state.address, state.address + byteLength("float32", state.dims));
    await prelude.run();
    this.executed.prelude += 1;
  }

  async loop(slot: number): Promise<void> {
    await this.bound("recur", slot, this.turn).run();
    this.executed.recur += 1;
    this.turn = 1 - this.turn;
  }

  states(): { before: Float32Array; after: Float32Array } {
    const [before, after] = [1 - this.turn, this.turn].map((turn) => {
      const { address, dims } = this.current!.buffers.get(`state.${turn}`)!;
      return new Float32Array(
        this.module.HEAPU8.buffer,
        address,
        dims.reduce((product, size) => product * size, 1),
      );
    });
    return { before: before!, after: after! };
  }

  async logits(position: number): Promise<Float32Array> {
    const { buffers } = this.current!;
    const coda = this.bound("coda", 0, this.turn);
    this.writeInt64(buffers.get("positions")!.address, position);
    await coda.run();
    this.executed.coda += 1;
    const { address } = buffers.get("logits")!;
    return new Float32Array(this.module.HEAPU8.buffer, address, this.manifest.padded_vocab_size).slice();
  }

  fillAbove(from: number, start: number, end: number): void {
    const { heads, head_size } = this.manifest.cache.recur;
    const row = head_size * this.itemBytes;
    for (const [name, slots] of this.caches) {
      if (!name.startsWith("recur.")) continue;
      for (const slot of slots.slice(from + 1)) {
        for (let head = 0; head < heads; head++) {
          const offset = (head * this.capacity + start) * row;
          this.copy(slots[from]! + offset, slot + offset, (end - start) * row);
        }
      }
    }
  }

  dispose(): Promise<void> {
    this.dropWork();
    for (const slots of this.caches.values()) slots.forEach((address) => this.module._free(address));
    this.caches.clear();
    for (const role of ROLES) this.sessions[role].release();
    return Promise.resolve();
  }

  private get itemType(): ElementType {
    return this.manifest.cache.dtype === "int8" ? "int8" : "float32";
  }

  private get itemBytes(): number {
    return ITEM_BYTES[this.itemType];
  }

  private slotsOf(stage: Stage): number {
    return stage === "recur" ? this.slots : this.capacity ? 1 : 0;
  }

  private slotBytes(stage: Stage, capacity: number): number {
    const { heads, head_size } = this.manifest.cache[stage];
    return heads * capacity * head_size * this.itemBytes;
  }

  /** Move a cache to arrays of `capacity` tokens; slots that are new begin as copies of the last one. */
  private growCache(stage: Stage, part: string, capacity: number, slots: number, held: number): void {
    const { heads, head_size } = this.manifest.cache[stage];
    const row = head_size * this.itemBytes;
    const name = `${stage}.${part}`;
    const old = this.caches.get(name) ?? [];
    const bytes = this.slotBytes(stage, capacity);
    const fresh = Array.from({ length: stage === "recur" ? slots : 1 }, (_, slot) => {
      if (capacity === this.capacity && slot < old.length) return old[slot]!;
      const address = allocate(this.module, bytes);
      this.module.HEAPU8.fill(0, address, address + bytes);
      const source = old[Math.min(slot, old.length - 1)];
      for (let head = 0; source !== undefined && head < heads; head++) {
        this.copy(source + head * this.capacity * row, address + head * capacity * row, held * row);
      }
      return address;
    });
    old.filter((address) => !fresh.includes(address)).forEach((address) => this.module._free(address));
    this.caches.set(name, fresh);
  }

  private bound(stage: Stage, slot: number, turn: number): Bound {
    const work = this.current!;
    const key = `${stage}.${slot}.${turn}`;
    let bound = work.bound.get(key);
    if (!bound) {
      bound = this.sessions[stage].bind((port) => this.place(work, stage, slot, turn, port));
      work.bound.set(key, bound);
    }
    return bound;
  }

  private place(work: Workspace, stage: Stage, slot: number, turn: number, port: Port): Place {
    const [kind, ...rest] = port.name.split(".");
    if (kind === "past" || kind === "present") {
      const dims = port.dims.map((size) => (typeof size === "number" ? size : this.capacity));
      return { address: this.caches.get(`${stage}.${rest.join(".")}`)![slot]!, dims };
    }
    const states: Record<string, string> = { state: `state.${turn}`, next_state: `state.${1 - turn}` };
    const name = states[port.name] ?? port.name;
    let buffer = work.buffers.get(name);
    if (!buffer) {
      const dims = port.dims.map((size) => {
        if (typeof size === "number") return size;
        const open: Record<string, number> = { sequence: work.tokens, positions: 1 };
        const found = open[size];
        if (found === undefined) throw new EngineError("session", port.name, `${port.name}: dimension ${size}?`);
        return found;
      });
      buffer = { address: allocate(this.module, byteLength(port.type, dims)), dims };
      work.buffers.set(name, buffer);
    }
    return buffer;
  }

  private workspace(tokens: number): Workspace {
    const kind = tokens === 1 ? "step" : "prompt";
    const found = this.work[kind];
    if (found?.tokens === tokens) return found;
    if (found) this.drop(found);
    return (this.work[kind] = { tokens, buffers: new Map(), bound: new Map() });
  }

  private dropWork(): void {
    for (const kind of ["step", "prompt"] as const) {
      if (this.work[kind]) this.drop(this.work[kind]);
      this.work[kind] = null;
    }
    this.current = null;
  }

  private drop(work: Workspace): void {
    for (const bound of work.bound.values()) bound.release();
    for (const { address } of work.buffers.values()) this.module._free(address);
  }

  private copy(from: number, to: number, bytes: number): void {
    this.module.HEAPU8.copyWithin(to, from, from + bytes);
  }

  private writeInt64(address: number, value: number): void {
    this.module.setValue(address, value, "i32");
    this.module.setValue(address + 4, 0, "i32");
  }
}
