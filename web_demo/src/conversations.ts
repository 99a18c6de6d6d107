/** The list of conversations: search, choose, export, delete. */
import { announce, download, el } from "./dom.ts";
import { matches, textOf, titleOf, type Conversation, type Store } from "./store.ts";
import { STRINGS } from "./strings.ts";

export class ConversationList {
  readonly element: HTMLElement;
  private readonly list = el("ul");
  private readonly search: HTMLInputElement;
  private readonly dialog: HTMLDialogElement;
  private all: Conversation[] = [];
  private current: string | null = null;
  private remove: (() => void) | null = null;

  constructor(
    private readonly store: Store,
    private readonly onChoose: (conversation: Conversation | null) => void,
  ) {
    this.search = el("input", { type: "search", id: "search", oninput: () => this.draw() });
    this.dialog = el(
      "dialog",
      { "aria-labelledby": "remove-text" },
      el("p", { id: "remove-text" }),
      el("button", { type: "button", onclick: () => this.dialog.close() }, STRINGS.cancel),
      el("button", { type: "button", class: "danger", onclick: () => this.remove?.() }, STRINGS.remove),
    );
    this.element = el(
      "nav",
      { class: "conversations", "aria-label": STRINGS.conversations },
      el("button", { type: "button", class: "new", onclick: () => this.onChoose(null) }, STRINGS.newChat),
      el("label", { for: "search", class: "visually-hidden" }, STRINGS.search),
      this.search,
      this.list,
      this.dialog,
    );
    this.search.placeholder = STRINGS.search;
  }

  async refresh(current: string | null): Promise<void> {
    this.current = current;
    this.all = await this.store.all();
    this.draw();
  }

  get conversations(): readonly Conversation[] {
    return this.all;
  }

  private draw(): void {
    const query = this.search.value.trim();
    const found = this.all.filter((conversation) => !query || matches(conversation, query));
    if (!found.length) {
      this.list.replaceChildren(el("li", { class: "hint" }, query ? STRINGS.notFound : STRINGS.none));
      return;
    }
    this.list.replaceChildren(...found.map((conversation) => this.entry(conversation)));
  }

  private entry(conversation: Conversation): HTMLElement {
    const title = titleOf(conversation) || STRINGS.untitled;
    const current = conversation.id === this.current;
    const button = (label: string, action: () => void): HTMLElement =>
      el("button", { type: "button", class: "plain", "aria-label": `${label}: ${title}`, onclick: action }, label);
    return el(
      "li",
      { class: current ? "current" : "" },
      el(
        "button",
        {
          type: "button",
          class: "title",
          "aria-current": current ? "true" : undefined,
          onclick: () => this.onChoose(conversation),
        },
        title,
      ),
      current &&
        el(
          "div",
          { class: "actions" },
          button(STRINGS.exportJson, () => save(conversation, "json")),
          button(STRINGS.exportText, () => save(conversation, "text")),
          button(STRINGS.remove, () => this.ask(conversation, title)),
        ),
    );
  }

  private ask(conversation: Conversation, title: string): void {
    this.dialog.firstElementChild!.textContent = STRINGS.removeAsk(title);
    this.remove = () => {
      this.dialog.close();
      void this.store.remove(conversation.id).then(() => {
        announce(STRINGS.removed);
        this.onChoose(null);
      });
    };
    this.dialog.showModal();
  }
}

function save(conversation: Conversation, kind: "json" | "text"): void {
  const name = `parcae-${new Date(conversation.updated).toISOString().slice(0, 19).replaceAll(":", "-")}`;
  if (kind === "json") {
    download(`${name}.json`, "application/json", `${JSON.stringify({ format: 1, ...conversation }, null, 1)}\n`);
    return;
  }
  const parts = conversation.exchanges.flatMap(({ text, answers }) => [
    `## ${STRINGS.you}\n\n${text}`,
    ...answers.map((answer) => `## ${STRINGS.answer}, T = ${answer.turn.loops}\n\n${textOf(answer)}`),
  ]);
  download(`${name}.md`, "text/markdown", `${parts.join("\n\n")}\n`);
}
