/** `measure(asked)` on a page: this project's engine in a worker, or wllama, which brings a worker of its own. */
import { Wllama } from "@wllama/wllama";

export interface Asked {
  engine: "parcae" | "wllama";
  /** URL of the site, which ends in a slash. */
  base: string;
  loops: number;
  /** Tokens of the prompt. */
  context: number;
  threads: number;
}

export interface Times {
  /** Reading the files (with their checksums), and opening them. */
  readSeconds: number;
  openSeconds: number;
  firstTokenSeconds: number;
  tokensPerSecond: number;
  /** Of the runtime; 0 where it does not say. */
  heapBytes: number;
}

const ROUNDS = 3;
const STEPS = 16;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";

declare global {
  var measure: (asked: Asked) => Promise<Times>;
}

globalThis.measure = (asked) => (asked.engine === "parcae" ? ours(asked) : theirs(asked));

function ours(asked: Asked): Promise<Times> {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }: MessageEvent<{ times: Times } | { error: string }>) => {
      if ("times" in data) resolve(data.times);
      else reject(new Error(data.error));
    };
    worker.postMessage(asked);
  });
}

/** The Llama of equal depth: a letter is a token, so a prompt of letters has as many tokens as it is long. */
async function theirs({ base, loops, context, threads }: Asked): Promise<Times> {
  const started = performance.now();
  const blob = await (await fetch(`${base}llama/T${loops}.gguf`)).blob();
  const read = performance.now();
  const wllama = new Wllama({ default: `${base}wllama/wllama.wasm` }, { suppressNativeLog: true });
  await wllama.loadModel([blob], { n_ctx: 256, n_threads: threads, n_gpu_layers: 0, n_parallel: 1, warmup: true });
  const opened = performance.now();
  const first: number[] = [];
  const speed: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    // Another first letter in each round: what the one before left in the cache cannot be used again.
    const prompt = Array.from({ length: context - 1 }, (_, place) => LETTERS[(place * 7 + round) % 26]!).join("");
    const before = performance.now();
    const answer = await wllama.createCompletion({ prompt, max_tokens: 1, temperature: 0 });
    first.push((performance.now() - before) / 1000);
    const given = answer.usage.prompt_tokens;
    if (Math.abs(given - context) > 2) throw new Error(`${given} tokens, not ${context}`);
    const longer = await wllama.createCompletion({ prompt, max_tokens: STEPS, temperature: 0 });
    if (!longer.timings) throw new Error("wllama says no times");
    // The first of the tokens comes of the prompt, and its time is counted there.
    speed.push((1000 * (longer.timings.predicted_n - 1)) / longer.timings.predicted_ms);
  }
  const middle = (values: number[]): number => values.sort((one, other) => one - other)[1]!;
  return {
    readSeconds: (read - started) / 1000,
    openSeconds: (opened - read) / 1000,
    firstTokenSeconds: middle(first),
    tokensPerSecond: middle(speed),
    heapBytes: 0,
  };
}
