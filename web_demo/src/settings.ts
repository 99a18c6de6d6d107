/** How answers are made: the settings panel, kept between visits. */
import type { Sampling } from "../engine/sampler.ts";
import { el } from "./dom.ts";
import { STRINGS } from "./strings.ts";

export interface Settings extends Sampling {
  most: number;
  threshold: number;
  stopTexts: string;
}

const KEY = "settings";
const DEFAULTS: Settings = {
  temperature: 0.7,
  top_k: 40,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  seed: 1,
  most: 64,
  threshold: 0,
  stopTexts: "",
};
const STEPS: Record<keyof Omit<Settings, "stopTexts">, [number, number | undefined, number | "any"]> = {
  temperature: [0, undefined, "any"],
  top_k: [0, undefined, 1],
  top_p: [0, 1, "any"],
  min_p: [0, 1, "any"],
  repetition_penalty: [0, undefined, "any"],
  seed: [0, 0xffffffff, 1],
  most: [1, undefined, 1],
  threshold: [0, 0.99, "any"],
};

export class SettingsPanel {
  readonly element: HTMLElement;
  private readonly inputs = new Map<keyof Settings, HTMLInputElement | HTMLTextAreaElement>();

  constructor() {
    const rows = Object.entries(STEPS).map(([name, [min, max, step]]) =>
      this.row(name as keyof Settings, el("input", { type: "number", min, max, step, inputmode: "decimal" })),
    );
    rows.push(this.row("stopTexts", el("textarea", { rows: 2, spellcheck: "false" })));
    const reset = el("button", { type: "button", onclick: () => this.show(DEFAULTS) }, STRINGS.reset);
    this.element = el("details", { class: "settings" }, el("summary", {}, STRINGS.settings), ...rows, reset);
    let kept: Partial<Settings> = {};
    try {
      kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>;
    } catch {
      localStorage.removeItem(KEY);
    }
    this.show({ ...DEFAULTS, ...kept });
  }

  read(): Settings {
    const values: Record<string, number | string> = {};
    for (const [name, input] of this.inputs) {
      values[name] = name === "stopTexts" ? input.value : input.value === "" ? DEFAULTS[name] : Number(input.value);
    }
    return values as unknown as Settings;
  }

  private show(settings: Settings): void {
    for (const [name, input] of this.inputs) input.value = String(settings[name]);
    this.keep();
  }

  private keep(): void {
    localStorage.setItem(KEY, JSON.stringify(this.read()));
  }

  private row(name: keyof Settings, input: HTMLInputElement | HTMLTextAreaElement): HTMLElement {
    input.id = `setting-${name}`;
    input.addEventListener("change", () => this.keep());
    this.inputs.set(name, input);
    return el("div", { class: "row" }, el("label", { for: input.id }, STRINGS[name]), input);
  }
}

/** Stop texts as they are typed: one on a line, with \n and \t for what a line cannot hold. */
export function stopTextsOf(settings: Settings): string[] {
  const lines = settings.stopTexts.split("\n").filter(Boolean);
  return lines.map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
}
