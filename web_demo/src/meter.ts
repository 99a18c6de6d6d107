/**
 * The picture that only a looped model has: a column for each token, a cell for each loop that it ran, as bright as the
 * state still changed in that loop. Arrow keys or a click choose a token, whose numbers are then written below.
 */
import { el } from "./dom.ts";
import { STRINGS } from "./strings.ts";

const CELL = 7;
const LEAST = -3; // log10 of the change that is drawn darkest
const SCALE = 2; // device pixels for one of the drawing

export class ConvergenceMeter {
  readonly element: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly line: HTMLElement;
  private chosen = -1;
  private changes: number[][] = [];
  private pieces: string[] = [];

  constructor() {
    this.canvas = el("canvas", {
      class: "meter",
      role: "slider",
      tabindex: 0,
      "aria-valuemin": 1,
      onkeydown: (event) => this.onKey(event as KeyboardEvent),
      onclick: (event) => this.choose(Math.floor((event as MouseEvent).offsetX / CELL)),
    });
    this.line = el("p", { class: "meter-token" });
    const help = el("p", { class: "hint" }, STRINGS.meterHelp);
    this.element = el("div", { class: "meter-box" }, help, el("div", { class: "scroll" }, this.canvas), this.line);
  }

  show(changes: number[][], pieces: string[]): void {
    this.changes = changes;
    this.pieces = pieces;
    this.draw();
  }

  private onKey(event: KeyboardEvent): void {
    const moves: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 };
    const ends: Record<string, number> = { Home: 0, End: this.changes.length - 1 };
    const place = ends[event.key] ?? (event.key in moves ? this.chosen + moves[event.key]! : null);
    if (place === null) return;
    event.preventDefault();
    this.choose(Math.min(Math.max(place, 0), this.changes.length - 1));
  }

  private choose(place: number): void {
    const changes = this.changes[place];
    if (!changes) return;
    this.chosen = place;
    this.line.textContent = STRINGS.meterToken(place, this.pieces[place] ?? "", changes.length, changes);
    this.draw();
  }

  private draw(): void {
    const { canvas, changes } = this;
    const loops = changes.map((token) => token.length);
    const width = Math.max(changes.length, 1) * CELL;
    const height = Math.max(1, ...loops) * CELL;
    canvas.width = width * SCALE;
    canvas.height = height * SCALE;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const average = loops.reduce((sum, count) => sum + count, 0) / Math.max(changes.length, 1);
    canvas.setAttribute("aria-label", STRINGS.meterLabel(changes.length, average));
    canvas.setAttribute("aria-valuemax", String(Math.max(changes.length, 1)));
    canvas.setAttribute("aria-valuenow", String(Math.max(this.chosen + 1, 1)));
    canvas.setAttribute("aria-valuetext", this.line.textContent || canvas.getAttribute("aria-label")!);
    const context = canvas.getContext("2d")!;
    context.scale(SCALE, SCALE);
    changes.forEach((token, column) => {
      token.forEach((change, loop) => {
        const share = 1 - Math.min(Math.max(Math.log10(Math.max(change, 1e-9)) / LEAST, 0), 1);
        context.fillStyle = `hsl(${260 - 215 * share} 75% ${22 + 40 * share}%)`;
        context.fillRect(column * CELL, height - (loop + 1) * CELL, CELL - 1, CELL - 1);
      });
    });
    if (this.chosen >= 0 && this.chosen < changes.length) {
      context.strokeStyle = getComputedStyle(canvas).color;
      context.strokeRect(this.chosen * CELL + 0.5, 0.5, CELL - 2, height - 2);
    }
  }
}
