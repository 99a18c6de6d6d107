/** The page's side of the worker: calls that give events on the way and a result or a `CallError` at the end. */
import type { Calls, Failure, Name, Response } from "./protocol.ts";

export class CallError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message);
    this.name = "CallError";
  }
}

interface Waiting {
  tell: (event: unknown) => void;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

export interface Call<N extends Name> {
  result: Promise<Calls[N]["result"]>;
  stop(): void;
}

/** One worker, with at most one model in it. A new model needs a new one: a heap never shrinks. */
export class Client {
  private readonly worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor() {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Response>) => {
      const call = this.waiting.get(data.id);
      if (!call) return;
      if ("event" in data) {
        call.tell(data.event);
        return;
      }
      this.waiting.delete(data.id);
      if (data.error) call.reject(new CallError(data.error));
      else call.resolve(data.result);
    });
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.fail(event.message || "the worker could not be started");
    });
  }

  call<N extends Name>(name: N, given: Calls[N]["given"], tell: (event: Calls[N]["event"]) => void): Call<N> {
    const id = ++this.last;
    const result = new Promise<Calls[N]["result"]>((resolve, reject) => {
      this.waiting.set(id, { tell: tell as Waiting["tell"], resolve: resolve as Waiting["resolve"], reject });
    });
    this.worker.postMessage({ id, name, given });
    return { result, stop: () => this.worker.postMessage({ stop: id }) };
  }

  close(): void {
    this.worker.terminate();
    this.fail("the model was unloaded");
  }

  private fail(message: string): void {
    const kind = /memory/i.test(message) ? "memory" : "other";
    for (const call of this.waiting.values()) call.reject(new CallError({ kind, where: "", message }));
    this.waiting.clear();
  }
}
