/**
 * Texts that end an answer, wherever the pieces that it arrives in are cut.
 *
 * An answer ends with the first character that completes a stop; of several the longest counts. What is shown ends
 * before the stop. Held back is the shortest end of the text that may still become one.
 */
import { EngineError } from "./errors.ts";

export class StopTexts {
  found: string | null = null;
  private readonly stops: string[];
  private held = "";

  /** Throws `EngineError` of kind usage for an empty stop. */
  constructor(stops: readonly string[]) {
    if (stops.some((stop) => !stop)) throw new EngineError("usage", "stop", "a stop text needs a character");
    this.stops = [...stops].sort((one, other) => other.length - one.length);
  }

  /** What of the text so far can be shown and was not. After a stop: nothing. */
  feed(piece: string): string {
    if (this.found !== null) return "";
    let shown = "";
    for (const character of piece) {
      this.held += character;
      this.found = this.stops.find((stop) => this.held.endsWith(stop)) ?? null;
      if (this.found !== null) {
        shown += this.held.slice(0, this.held.length - this.found.length);
        this.held = "";
        break;
      }
      const kept = this.kept();
      shown += this.held.slice(0, this.held.length - kept);
      this.held = this.held.slice(this.held.length - kept);
    }
    return shown;
  }

  /** What was held back when the answer ended otherwise. */
  finish(): string {
    const held = this.held;
    this.held = "";
    return held;
  }

  /** Code units at the end of the held text that begin a stop. */
  private kept(): number {
    const longest = Math.max(1, ...this.stops.map((stop) => stop.length));
    for (let length = Math.min(this.held.length, longest - 1); length > 0; length--) {
      const end = this.held.slice(this.held.length - length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
