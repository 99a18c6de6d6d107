/** What goes wrong in the engine, by kind: an app chooses its words by the kind and fills in the place. */

export type ErrorKind =
  | "json" // the manifest is no JSON object
  | "format" // a manifest of another format
  | "path" // a file name that leads out of the folder
  | "field" // a field that is missing or cannot be
  | "platform" // bundled for another platform
  | "runtime" // needs another runtime or a later version
  | "missing" // a file is not there
  | "size" // a file has another size
  | "checksum" // a file has another content
  | "signature" // not signed by the key that the app pins
  | "tokenizer" // no tokenizer, or one that cannot be read
  | "memory" // more memory than there is
  | "simd" // a browser without WebAssembly SIMD
  | "session" // the runtime refused a graph or failed in one
  | "logits" // the model gave no numbers
  | "usage" // a setting outside of its range
  | "context" // the text does not fit
  | "network"; // a file could not be fetched

/** An error with its kind and the thing that it is about (a file, a field, a setting). */
export class EngineError extends Error {
  constructor(
    readonly kind: ErrorKind,
    readonly where: string,
    message: string,
  ) {
    super(message);
    this.name = "EngineError";
  }
}

/** Thrown where a running computation was asked to stop. */
export class Cancelled extends Error {
  constructor() {
    super("cancelled");
    this.name = "Cancelled";
  }
}
