/** The conversation: messages and answers, the loop slider, stop, regenerate at another T, and T side by side. */
import { chooseLoops } from "../engine/loops.ts";
import { answerElement, LiveAnswer } from "./answer.ts";
import type { Call } from "./client.ts";
import { announce, el, showError } from "./dom.ts";
import { reasonOf, type Loaded } from "./models.ts";
import type { AskEvent } from "./protocol.ts";
import { SettingsPanel, stopTextsOf } from "./settings.ts";
import { historyOf, newId, type Conversation, type Exchange, type Store, type StoredAnswer } from "./store.ts";
import { STRINGS } from "./strings.ts";

const COMPARED = [1, 2, 4, 8];

export class ChatView {
  readonly element: HTMLElement;
  private readonly log = el("div", { class: "log", id: "log" });
  private readonly input: HTMLTextAreaElement;
  private readonly slider: HTMLInputElement;
  private readonly sliderValue = el("output", { for: "loops", class: "badge" });
  private readonly send: HTMLButtonElement;
  private readonly compare: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly note = el("p", { class: "hint", id: "chat-note" });
  private readonly settings = new SettingsPanel();
  private loaded: Loaded | null = null;
  private conversation: Conversation | null = null;
  private running: Call<"ask"> | null = null;
  private stopped = false;

  constructor(
    private readonly store: Store,
    private readonly onChange: (id: string) => Promise<void>,
  ) {
    this.input = el("textarea", { id: "prompt", rows: 3, spellcheck: "false", "aria-describedby": "prompt-hint" });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void this.ask([this.loops]);
    });
    this.slider = el("input", {
      type: "range",
      id: "loops",
      min: 1,
      max: 16,
      step: 1,
      oninput: () => this.showLoops(),
    });
    this.send = el("button", { type: "submit", class: "primary" }, STRINGS.send);
    this.compare = el("button", { type: "button", onclick: () => void this.ask(this.compared) }, STRINGS.compare);
    this.stop = el("button", { type: "button", class: "danger", onclick: () => this.halt() }, STRINGS.stop);
    this.element = el(
      "section",
      { id: "view-chat", "aria-labelledby": "chat-heading" },
      el("h2", { id: "chat-heading", class: "visually-hidden" }, STRINGS.views.chat),
      this.log,
      this.note,
      el(
        "form",
        {
          class: "composer",
          onsubmit: (event) => {
            event.preventDefault();
            void this.ask([this.loops]);
          },
        },
        el("label", { for: "prompt" }, STRINGS.prompt),
        this.input,
        el("p", { class: "hint", id: "prompt-hint" }, STRINGS.promptHint),
        el("div", { class: "loops" }, el("label", { for: "loops" }, STRINGS.loopsLabel), this.slider, this.sliderValue),
        el("div", { class: "actions" }, this.send, this.compare, this.stop),
        this.settings.element,
      ),
    );
    this.enable();
  }

  setModel(loaded: Loaded | null): void {
    this.loaded = loaded;
    if (loaded) {
      const { loops } = loaded.manifest;
      this.slider.min = String(loops.min);
      this.slider.max = String(loops.max);
      this.slider.value = String(chooseLoops(loops, null));
      this.showLoops();
    }
    this.draw();
  }

  show(conversation: Conversation | null): void {
    this.halt();
    this.conversation = conversation;
    showError("");
    this.draw();
    this.log.lastElementChild?.scrollIntoView({ block: "end" });
  }

  private get loops(): number {
    return Number(this.slider.value);
  }

  private get compared(): number[] {
    const loops = this.loaded?.manifest.loops;
    return COMPARED.filter((count) => loops && count >= loops.min && count <= loops.max);
  }

  private showLoops(): void {
    const text = STRINGS.loopsValue(this.loops, this.loaded?.manifest.loops.trained ?? 0);
    this.sliderValue.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    const again = this.log.querySelector(".regenerate");
    if (again) again.textContent = STRINGS.regenerate(this.loops);
  }

  private halt(): void {
    this.stopped = true;
    this.running?.stop();
  }

  private isStopped(): boolean {
    return this.stopped;
  }

  /** A new message, answered at each of the loop counts. */
  private async ask(counts: number[]): Promise<void> {
    const text = this.input.value;
    if (!text || this.running || this.why() !== null) return;
    const { manifest } = this.loaded!;
    this.conversation ??= {
      id: newId(),
      updated: Date.now(),
      model: { name: manifest.name, weights: manifest.weights_sha256 },
      exchanges: [],
    };
    const exchange: Exchange = { text, answers: [], chosen: 0 };
    this.conversation.exchanges.push(exchange);
    this.input.value = "";
    await this.answer(this.conversation, exchange, counts);
    if (!exchange.answers.length) {
      // Nothing came: the text goes back to where it was typed.
      this.conversation.exchanges.pop();
      this.input.value = text;
      this.draw();
    }
  }

  private async regenerate(exchange: Exchange): Promise<void> {
    if (this.running || this.why() !== null) return;
    await this.answer(this.conversation!, exchange, [this.loops]);
  }

  private async answer(conversation: Conversation, exchange: Exchange, counts: number[]): Promise<void> {
    this.stopped = false;
    const pressed = this.pressed();
    showError("");
    try {
      for (const loops of counts) {
        if (this.isStopped()) break;
        const coming = this.generate(conversation, exchange, loops);
        if (pressed) this.stop.focus(); // the button that was pressed is disabled or gone
        const answer = await coming;
        if (!answer) break;
        exchange.answers = exchange.answers.filter((old) => !isSameRequest(old, answer));
        exchange.answers.push(answer);
        exchange.chosen = exchange.answers.length - 1;
        conversation.updated = Date.now();
        await this.store.put(conversation);
        announce(STRINGS.finished(answer.turn.tokens.length, loops, answer.ending));
      }
    } catch (error) {
      showError(reasonOf(error));
    } finally {
      this.running = null;
      const waits = document.activeElement === this.stop;
      if (this.conversation === conversation) this.draw();
      if (waits) (pressed === "again" ? this.log.querySelector<HTMLElement>(".regenerate") : pressed)?.focus();
      await this.onChange(this.conversation?.id ?? "");
    }
  }

  /** The button that the keyboard is on: where it goes back to after the answer. */
  private pressed(): HTMLElement | "again" | null {
    const held = document.activeElement;
    if (held?.matches(".regenerate")) return "again";
    return held === this.send || held === this.compare ? (held as HTMLElement) : null;
  }

  private async generate(conversation: Conversation, exchange: Exchange, loops: number): Promise<StoredAnswer | null> {
    const { client, manifest } = this.loaded!;
    const settings = this.settings.read();
    const { temperature, top_k, top_p, min_p, repetition_penalty, seed, most, threshold } = settings;
    const sampling = { temperature, top_k, top_p, min_p, repetition_penalty, seed };
    const end = conversation.exchanges.indexOf(exchange);
    const given = { history: historyOf(conversation, end), text: exchange.text, loops, threshold, most, sampling };
    const live = new LiveAnswer(loops, threshold, manifest.cache.context);
    const pieces: string[] = [];
    const changes: number[][] = [];
    const used: number[] = [];
    const onEvent = (event: AskEvent): void => {
      if (event.kind === "replay") {
        this.note.textContent = event.done < event.total ? STRINGS.replay(event.done, event.total) : "";
        return;
      }
      const { step, metrics } = event;
      pieces.push(step.piece);
      changes.push(step.changes);
      used.push(step.loops);
      live.add(step.piece, metrics, used, changes, pieces);
    };
    this.running = client.call("ask", { ...given, stopTexts: stopTextsOf(settings) }, onEvent);
    this.draw(live);
    const { turn, ending, metrics } = await this.running.result;
    if (!turn.tokens.length) return null;
    const rounded = changes.map((token) => token.map((change) => Number(change.toPrecision(4))));
    return { turn, pieces, ending, threshold, sampling, changes: rounded, metrics };
  }

  /** Why nothing can be sent now. */
  private why(): string | null {
    if (!this.loaded) return STRINGS.needsModel;
    const { manifest } = this.loaded;
    if (!manifest.tokenizer) return STRINGS.noTokenizer;
    const held = this.conversation?.model;
    return held && held.weights !== manifest.weights_sha256 ? STRINGS.otherModel(held.name) : null;
  }

  private draw(live: LiveAnswer | null = null): void {
    const exchanges = this.conversation?.exchanges ?? [];
    const drawn = exchanges.map((exchange, place) => {
      const last = place === exchanges.length - 1;
      return this.exchangeElement(exchange, last && !live, last ? live : null);
    });
    this.log.replaceChildren(...drawn);
    this.note.textContent = this.why() ?? "";
    this.enable();
    live?.element.scrollIntoView({ block: "nearest" });
  }

  private exchangeElement(exchange: Exchange, editable: boolean, live: LiveAnswer | null): HTMLElement {
    const { answers } = exchange;
    const many = answers.length + (live ? 1 : 0) > 1;
    // Of several the deepest one is what the others are compared with.
    const deepest = answers.reduce<StoredAnswer | null>(
      (best, one) => (one.turn.loops > (best?.turn.loops ?? 0) ? one : best),
      null,
    );
    const elements = answers.map((answer, place) => {
      const use = (): void => {
        exchange.chosen = place;
        void this.store.put(this.conversation!).then(() => {
          this.draw();
          this.input.focus(); // the button is gone
        });
      };
      const element = answerElement(answer, {
        context: this.loaded?.manifest.cache.context ?? answer.metrics.context,
        reference: many ? deepest : null,
        use: editable && many && place !== exchange.chosen ? use : null,
      });
      if (many && place === exchange.chosen) element.classList.add("chosen");
      return element;
    });
    const again = el(
      "button",
      { type: "button", class: "plain regenerate", onclick: () => void this.regenerate(exchange) },
      STRINGS.regenerate(this.loops),
    );
    return el(
      "div",
      { class: "exchange" },
      el(
        "div",
        { class: "message" },
        el("h3", { class: "visually-hidden" }, STRINGS.you),
        el("p", { class: "text" }, exchange.text),
      ),
      el("div", { class: many ? "answers many" : "answers" }, ...elements, live?.element),
      editable && this.why() === null && again,
    );
  }

  private enable(): void {
    const free = !this.running && this.why() === null;
    this.send.disabled = this.compare.disabled = !free;
    this.stop.hidden = !this.running;
  }
}

/** Whether an answer stands for another one: same T and settings. */
function isSameRequest(one: StoredAnswer, other: StoredAnswer): boolean {
  const key = ({ turn, threshold, sampling }: StoredAnswer): string =>
    JSON.stringify([turn.loops, threshold, sampling]);
  return key(one) === key(other);
}
