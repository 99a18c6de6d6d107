/** One answer on the page: its text as it comes, T, what was measured, and the convergence meter. */
import type { Metrics } from "../engine/metrics.ts";
import { announce, copyText, el, fact, showError } from "./dom.ts";
import { ConvergenceMeter } from "./meter.ts";
import { textOf, type StoredAnswer } from "./store.ts";
import { rate, STRINGS, time } from "./strings.ts";

/** Facts about an answer, as they are shown beside it and kept with it. */
export function factsOf(metrics: Metrics, loopsUsed: number[], context: number): HTMLElement[] {
  const average = loopsUsed.reduce((sum, loops) => sum + loops, 0) / Math.max(loopsUsed.length, 1);
  return [
    fact(STRINGS.firstToken, time(metrics.firstToken)),
    fact(STRINGS.prefill, rate(metrics.prefillRate)),
    fact(STRINGS.decode, rate(metrics.decodeRate)),
    fact(STRINGS.loopRate, rate(metrics.loopRate)),
    fact(STRINGS.averageLoops, loopsUsed.length ? average.toFixed(average % 1 ? 2 : 0) : "–"),
    fact(STRINGS.executed, String(metrics.executedLoops)),
    fact(STRINGS.memory, STRINGS.memoryValue(metrics)),
    fact(STRINGS.context, STRINGS.contextValue(metrics.context, context)),
  ];
}

/** Place of the first token in which two answers differ; null if they are the same. */
export function firstDifference(one: StoredAnswer, other: StoredAnswer): number | null {
  const [a, b] = [one.turn.tokens, other.turn.tokens];
  const place = a.findIndex((token, index) => token !== b[index]);
  if (place >= 0) return place;
  return a.length === b.length ? null : a.length;
}

export interface AnswerOptions {
  context: number;
  /** The answer that this one is compared with, where several stand side by side. */
  reference: StoredAnswer | null;
  /** Shown where another answer of the same exchange is the chosen one. */
  use: (() => void) | null;
}

/** A finished answer. */
export function answerElement(answer: StoredAnswer, { context, reference, use }: AnswerOptions): HTMLElement {
  const { turn, pieces } = answer;
  const text = el("p", { class: "text" }, pieces.join(""));
  let note: string | null = null;
  if (reference && reference !== answer) {
    const place = firstDifference(answer, reference);
    note = place === null ? STRINGS.same(reference.turn.loops) : STRINGS.differs(place, reference.turn.loops);
    if (place !== null) {
      text.replaceChildren(
        pieces.slice(0, place).join(""),
        el("mark", {}, pieces[place] || "∎"),
        pieces.slice(place + 1).join(""),
      );
    }
  } else if (reference) {
    note = STRINGS.reference;
  }
  const meter = new ConvergenceMeter();
  const details = el(
    "details",
    { class: "measured" },
    el("summary", {}, STRINGS.live),
    el("dl", { class: "facts" }, ...factsOf(answer.metrics, turn.loopsUsed, context)),
    el("h4", {}, STRINGS.meter),
    meter.element,
  );
  details.addEventListener("toggle", () => meter.show(answer.changes, pieces));
  const copy = (): void => {
    void copyText(textOf(answer)).then(
      () => announce(STRINGS.copied),
      (error: unknown) => showError(STRINGS.notCopied(String(error))),
    );
  };
  return el(
    "article",
    {
      class: "answer",
      "data-loops": turn.loops,
      "aria-label": `${STRINGS.answer} ${STRINGS.answerAt(turn.loops, false)}`,
    },
    el(
      "header",
      {},
      el("span", { class: "badge" }, STRINGS.answerAt(turn.loops, answer.threshold > 0)),
      el("span", { class: "hint" }, STRINGS.endings[answer.ending]),
    ),
    text,
    note && el("p", { class: "hint difference" }, note),
    el(
      "div",
      { class: "actions" },
      el("button", { type: "button", class: "plain", onclick: copy }, STRINGS.copy),
      use && el("button", { type: "button", class: "plain", onclick: use }, STRINGS.use),
    ),
    details,
  );
}

/** An answer that is coming. */
export class LiveAnswer {
  readonly element: HTMLElement;
  private readonly text = el("p", { class: "text" });
  private readonly facts = el("dl", { class: "facts live" });
  private readonly meter = new ConvergenceMeter();
  private drawn = 0;

  constructor(
    loops: number,
    threshold: number,
    private readonly context: number,
  ) {
    const badge = el("span", { class: "badge" }, STRINGS.answerAt(loops, threshold > 0));
    const wait = el("span", { class: "hint" }, STRINGS.working);
    this.element = el(
      "article",
      { class: "answer coming", "aria-busy": "true" },
      el("header", {}, badge, wait),
      this.text,
      this.facts,
      this.meter.element,
    );
  }

  add(piece: string, metrics: Metrics, loopsUsed: number[], changes: number[][], pieces: string[]): void {
    this.text.append(piece);
    const now = performance.now();
    if (now - this.drawn < 100) return; // a picture for each token would cost more than the token
    this.drawn = now;
    this.facts.replaceChildren(...factsOf(metrics, loopsUsed, this.context));
    this.meter.show(changes.slice(-96), pieces.slice(-96));
  }
}
