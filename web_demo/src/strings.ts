/** Everything that a person reads. */
import type { Ending } from "../engine/generate.ts";
import type { Metrics } from "../engine/metrics.ts";
import type { Failure } from "./protocol.ts";

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
export const megabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
export const rate = (value: number): string => (value ? value.toFixed(value < 10 ? 1 : 0) : "–");
export const time = (seconds: number): string =>
  seconds < 1 ? `${(1000 * seconds).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
const small = (value: number): string => (value >= 0.001 ? value.toPrecision(2) : value.toExponential(1));

export const STRINGS = {
  title: "Parcae",
  skip: "Skip to the conversation",
  views: { chat: "Chat", model: "Model", selfTest: "Self-test", bench: "Benchmark" },
  local: "Everything runs on this device. Nothing is sent anywhere.",

  conversations: "Conversations",
  newChat: "New conversation",
  search: "Search conversations",
  none: "No conversation yet.",
  notFound: "No conversation has these words.",
  untitled: "New conversation",
  exportJson: "Export as JSON",
  exportText: "Export as text",
  remove: "Delete",
  removeAsk: (title: string) => `Delete “${title}”? This cannot be undone.`,
  cancel: "Cancel",
  removed: "Conversation deleted.",

  prompt: "Your text",
  promptHint: "The model goes on with your text. Ctrl+Enter sends it.",
  send: "Send",
  stop: "Stop",
  compare: "Compare T = 1, 2, 4, 8",
  loopsLabel: "Think longer: loops T",
  loopsValue: (loops: number, trained: number) => `T = ${loops}${loops === trained ? " (as trained)" : ""}`,
  you: "You",
  answer: "Answer",
  answerAt: (loops: number, most: boolean) => `T ${most ? "≤" : "="} ${loops}`,
  answersHeading: "Answers",
  regenerate: (loops: number) => `Regenerate at T = ${loops}`,
  copy: "Copy",
  copied: "Copied.",
  notCopied: (reason: string) => `The browser did not copy it: ${reason}`,
  use: "Go on from this answer",
  differs: (place: number, reference: number) => `Differs from T = ${reference} from token ${place + 1} on (marked).`,
  same: (reference: number) => `Same tokens as T = ${reference}.`,
  reference: "Reference of the comparison.",
  replay: (done: number, total: number) => `Reading the conversation again: ${done} of ${total} tokens`,
  endings: {
    token: "ended by itself",
    text: "ended at a stop text",
    length: "as long as the settings allow",
    context: "the context is full; start a new conversation",
    user: "stopped",
  } satisfies Record<Ending, string>,
  finished: (tokens: number, loops: number, ending: Ending) =>
    `${tokens} tokens at T = ${loops}: ${STRINGS.endings[ending]}.`,
  otherModel: (name: string) => `This conversation was held with ${name}. Load that model to go on with it.`,
  noTokenizer: "This model came without a tokenizer, so it cannot read text. Self-test and benchmark work.",

  live: "Measured",
  firstToken: "First token",
  prefill: "Prompt, tokens/s",
  decode: "Answer, tokens/s",
  loopRate: "Loops/s",
  averageLoops: "Loops per token",
  executed: "Loops executed",
  memory: "Memory",
  memoryValue: ({ heapBytes, weightBytes, cacheBytes }: Metrics) =>
    `${heapBytes ? `${megabytes(heapBytes)}: ` : ""}weights ${megabytes(weightBytes)}, cache ${megabytes(cacheBytes)}`,
  context: "Context",
  contextValue: (used: number, whole: number) => `${used} of ${whole}`,
  meter: "Convergence",
  meterHelp:
    "A column for each token, a cell for each loop that it ran. Bright cells: the state still changed. Dark: it stands still.",
  meterLabel: (tokens: number, average: number) =>
    `Loops and state change of ${tokens} tokens, ${average.toFixed(1)} loops on average. Arrow keys choose a token.`,
  meterToken: (place: number, token: string, loops: number, changes: number[]) =>
    `Token ${place + 1} ${JSON.stringify(token)}: ${loops} loops; state changed by ${changes.map(small).join(", ")}`,

  settings: "Settings",
  temperature: "Temperature (0: always the likeliest token)",
  top_k: "Top-k (0: off)",
  top_p: "Top-p (1: off)",
  min_p: "Min-p (0: off)",
  repetition_penalty: "Repetition penalty (1: off)",
  seed: "Seed (same seed, same answer)",
  most: "Most tokens of an answer",
  threshold: "Early exit: end a token's loop once its state changes by less than this share (0: off)",
  stopTexts: "Stop texts, one on a line (\\n for a line break)",
  reset: "Back to defaults",
  badSetting: (message: string) => `A setting is out of range: ${message}.`,

  modelHeading: "Model",
  choose: "Bundled models",
  noModels: "No model is bundled. Put one in with parcae-export bundle, or open a folder below.",
  estimate: (bytes: number, loops: number, tokens: number) =>
    `needs about ${megabytes(bytes)} of memory at T = ${loops} and ${tokens} tokens of text`,
  size: (bytes: number) => `${megabytes(bytes)} of files`,
  load: (name: string) => `Load ${name}`,
  loaded: (name: string) => `${name} is loaded.`,
  ownFolder: "Open a folder of your own",
  ownFolderHelp: "A folder with app.json, made by parcae-export bundle ARTIFACT --platform web.",
  loading: (name: string, done: number, total: number) =>
    done < total
      ? `Checking ${name}: ${megabytes(done)} of ${megabytes(total)}`
      : "Files are whole. Preparing the model",
  ready: (name: string, seconds: number) => `${name} is ready after ${time(seconds)}.`,
  ways: { "in place": "caches in place", presents: "caches copied by the public API (slower)" },
  facts: {
    recipe: "Weights",
    loops: "Loops",
    loopsValue: (min: number, max: number, trained: number) => `${min} to ${max}, trained at ${trained}`,
    cache: "Cache",
    cacheValue: (policy: string, dtype: string, context: number) => `${policy}, ${dtype}, ${context} tokens`,
    runtime: "Runtime",
    runtimeValue: (version: string, way: string) => `onnxruntime-web ${version}, WebAssembly, one thread, ${way}`,
    promise: "Promise",
    verified: "Gates",
    verifiedYes: "passed when it was exported",
    verifiedNo: "not run when it was exported",
    signed: "Signed by",
    signedValue: (key: string) => `${key}…, the key that this app was built with`,
  },

  selfTestHelp:
    "Computes known texts on this device and compares with what the exporter's PyTorch computed with the same weights.",
  selfTestRun: "Run the self-test",
  passed: "Passed. This device computes what it should.",
  failed: "Failed. Answers on this device are not what the model says; do not trust them.",
  tLoops: "T",
  maxAbs: "Greatest difference",
  klMean: "Mean KL, nats",
  top1: "Same likeliest token",
  allowed: "Allowed",
  verdict: "Verdict",
  yes: "passed",
  no: "failed",
  logitsHeading: "Logits",
  timesHeading: "Times",
  greedyHeading: "Greedy answers",
  greedyColumn: "Equality",
  greedySame: "equal",
  greedyDiffers: (place: number) => `differs from token ${place + 1} on`,
  greedyPromise: (exact: boolean) => (exact ? "promised" : "not promised on other devices"),

  benchHelp: "Times this model on this device: prompts of random tokens, then single tokens, medians of three rounds.",
  benchLoops: "Loops",
  benchContexts: "Contexts, tokens",
  benchRun: "Run the benchmark",
  benchSave: "Save bench.json",
  benchColumns: ["T", "Context", "First token, ms", "Answer, tokens/s", "Loops/s", "Cache"],
  progress: (done: number, total: number) => `${done} of ${total}`,
  needsModel: "Load a model first.",
  working: "Working",
  updated: "A new version of this page is ready. Reload to use it.",
};

/** What went wrong and what to do, in plain words. */
export function explain(failure: Failure): string {
  const { kind, where, message } = failure;
  switch (kind) {
    case "memory":
      return "There is not enough memory. Close other tabs, start a new conversation, or choose a smaller model.";
    case "simd":
      return "This browser is too old: it has no WebAssembly SIMD. Use one of the last three years.";
    case "runtime":
      return `This model cannot run here: it ${message}. Update this app.`;
    case "platform":
      return `This model cannot run here: it was ${message}. Bundle it again with --platform web.`;
    case "format":
    case "json":
    case "field":
    case "path":
      return `This model's app.json cannot be read (${message}). Bundle it again with this version of parcae-export.`;
    case "missing":
      return `The file ${where} is missing. Copy the model again.`;
    case "size":
      return `The file ${where} is not whole: ${message}. Copy the model again.`;
    case "checksum":
      return `The file ${where} is damaged or belongs to another model. Copy the model again.`;
    case "signature":
      return `This model was refused: ${message}.`;
    case "network":
      return `The file ${where} could not be fetched. Check the connection and try again.`;
    case "session":
      return `The runtime refused the model: ${message}`;
    case "context":
      return `The text is too long: ${message}. Shorten it, or start a new conversation.`;
    case "usage":
      return STRINGS.badSetting(message);
    case "logits":
      return "The model gave no numbers. Run the self-test.";
    case "tokenizer":
      return `The tokenizer cannot be used: ${message}`;
    case "cancelled":
      return "Stopped.";
    case "other":
      return `Something failed: ${message}`;
  }
}

export const tooLarge = (needed: number, limit: number): string =>
  `This model needs about ${megabytes(needed)} of memory; this browser gives a page ${megabytes(limit)} at most. ` +
  "Choose a smaller model, or export this one with --quant int4-small or a shorter --context.";
