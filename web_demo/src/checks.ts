/** The self-test and the benchmark. */
import type { Table } from "../engine/bench.ts";
import type { SelfTestReport } from "../engine/selftest.ts";
import type { Call } from "./client.ts";
import { announce, download, el, showError } from "./dom.ts";
import { reasonOf, type Loaded } from "./models.ts";
import { megabytes, percent, rate, STRINGS } from "./strings.ts";

const LOOPS = [1, 2, 4, 8, 16];
const CONTEXTS = [32, 128, 512];

function table(caption: string, columns: readonly string[], rows: readonly (readonly string[])[]): HTMLElement {
  const head = el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell))));
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body)),
  );
}

/** A page with one button that works for a while. */
class Check {
  readonly element: HTMLElement;
  protected readonly result = el("div", { class: "result" });
  protected readonly run: HTMLButtonElement;
  protected loaded: Loaded | null = null;
  private readonly progress = el("progress", { hidden: true, max: 1, value: 0, "aria-label": STRINGS.working });
  private readonly line = el("p", { class: "hint" });

  constructor(name: "selfTest" | "bench", help: string, start: string, ...fields: HTMLElement[]) {
    const id = name === "bench" ? "view-bench" : "view-self-test";
    this.run = el("button", { type: "button", class: "primary", onclick: () => void this.start() }, start);
    this.element = el(
      "section",
      { id, "aria-labelledby": `${id}-heading` },
      el("h2", { id: `${id}-heading` }, STRINGS.views[name]),
      el("p", {}, help),
      ...fields,
      this.run,
      this.progress,
      this.line,
      this.result,
    );
    this.setModel(null);
  }

  setModel(loaded: Loaded | null): void {
    this.loaded = loaded;
    this.run.disabled = !loaded;
    this.line.textContent = loaded ? "" : STRINGS.needsModel;
    this.result.replaceChildren();
  }

  protected work(): Promise<void> {
    return Promise.resolve();
  }

  protected readonly tell = ({ done, total }: { done: number; total: number }): void => {
    this.progress.value = done / total;
    this.line.textContent = STRINGS.progress(done, total);
  };

  private async start(): Promise<void> {
    const pressed = document.activeElement === this.run;
    this.run.disabled = true;
    this.progress.hidden = false;
    showError("");
    try {
      await this.work();
    } catch (error) {
      showError(reasonOf(error));
    } finally {
      this.progress.hidden = true;
      this.line.textContent = "";
      this.run.disabled = !this.loaded;
      // A button that is disabled loses the keyboard: give it back unless it went elsewhere.
      if (pressed && [document.body, this.run].includes(document.activeElement as HTMLElement)) this.run.focus();
    }
  }
}

export class SelfTestView extends Check {
  constructor() {
    super("selfTest", STRINGS.selfTestHelp, STRINGS.selfTestRun);
  }

  protected override async work(): Promise<void> {
    const report = await this.loaded!.client.call("selfTest", null, this.tell).result;
    const verdict = report.passed ? STRINGS.passed : STRINGS.failed;
    const answers = greedyTable(report);
    this.result.replaceChildren(
      el("p", { class: report.passed ? "verdict good" : "verdict wrong" }, verdict),
      logitsTable(report),
      ...(answers ? [answers] : []),
    );
    announce(verdict);
  }
}

function logitsTable(report: SelfTestReport): HTMLElement {
  const columns = [STRINGS.tLoops, STRINGS.maxAbs, STRINGS.klMean, STRINGS.top1, STRINGS.verdict];
  const rows = report.rows.map((row) => [
    String(row.loops),
    row.maxAbs.toExponential(1),
    row.klMean.toExponential(1),
    percent(row.top1),
    row.passed ? STRINGS.yes : STRINGS.no,
  ]);
  const { maxAbs, klMean, top1 } = report;
  const limit = (value: number | null, text: (value: number) => string): string => (value === null ? "–" : text(value));
  const small = (value: number): string => `≤ ${value.toExponential(1)}`;
  rows.push([
    STRINGS.allowed,
    limit(maxAbs, small),
    limit(klMean, small),
    limit(top1, (value) => `≥ ${percent(value)}`),
    "",
  ]);
  return table(STRINGS.logitsHeading, columns, rows);
}

function greedyTable(report: SelfTestReport): HTMLElement | null {
  if (!report.greedy.length) return null;
  const rows = report.greedy.map((row) => [
    String(row.loops),
    row.firstDifference === null ? STRINGS.greedySame : STRINGS.greedyDiffers(row.firstDifference),
    STRINGS.greedyPromise(report.exact),
  ]);
  return table(STRINGS.greedyHeading, [STRINGS.tLoops, STRINGS.verdict, STRINGS.greedyColumn], rows);
}

export class BenchView extends Check {
  private readonly boxes: { kind: "loops" | "contexts"; value: number; box: HTMLInputElement }[];
  private readonly stop: HTMLButtonElement;
  private call: Call<"bench"> | null = null;

  constructor() {
    const boxes: { kind: "loops" | "contexts"; value: number; box: HTMLInputElement }[] = [];
    const field = (kind: "loops" | "contexts", legend: string, values: number[], checked: number[]): HTMLElement => {
      const labels = values.map((value) => {
        const box = el("input", { type: "checkbox", checked: checked.includes(value), value });
        boxes.push({ kind, value, box });
        return el("label", { class: "box" }, box, String(value));
      });
      return el("fieldset", {}, el("legend", {}, legend), ...labels);
    };
    const fields = [
      field("loops", STRINGS.benchLoops, LOOPS, [1, 4, 8]),
      field("contexts", STRINGS.benchContexts, CONTEXTS, [32, 128]),
    ];
    super("bench", STRINGS.benchHelp, STRINGS.benchRun, ...fields);
    this.boxes = boxes;
    this.stop = el("button", { type: "button", hidden: true, onclick: () => this.call?.stop() }, STRINGS.stop);
    this.run.after(this.stop);
  }

  protected override async work(): Promise<void> {
    const { manifest, client } = this.loaded!;
    const chosen = (kind: "loops" | "contexts"): number[] =>
      this.boxes.filter((each) => each.kind === kind && each.box.checked).map((each) => each.value);
    const { min, max } = manifest.loops;
    const loops = chosen("loops").filter((count) => count >= min && count <= max);
    const device = { processor: navigator.userAgent, cores: navigator.hardwareConcurrency };
    this.stop.hidden = false;
    try {
      this.call = client.call("bench", { loops, contexts: chosen("contexts"), device }, this.tell);
      this.show(await this.call.result);
    } finally {
      this.stop.hidden = true;
    }
  }

  private show(measured: Table): void {
    const rows = measured.rows.map(({ variant, context, speeds, cache_bytes }) => {
      const speed = speeds[0]!;
      const perSecond = 1000 / speed.decode_ms;
      return [
        String(variant.loops),
        String(context),
        speed.first_token_ms.toFixed(0),
        rate(perSecond),
        rate(perSecond * Number(variant.loops)),
        megabytes(cache_bytes),
      ];
    });
    const text = `${JSON.stringify(measured, null, 1)}\n`;
    this.result.replaceChildren(
      table(STRINGS.timesHeading, STRINGS.benchColumns, rows),
      el(
        "button",
        { type: "button", onclick: () => download("bench.json", "application/json", text) },
        STRINGS.benchSave,
      ),
    );
  }
}
