/** The page: its views, the conversation list, and what connects them. */
import "./style.css";

import { ChatView } from "./chat.ts";
import { BenchView, SelfTestView } from "./checks.ts";
import { ConversationList } from "./conversations.ts";
import { announce, byId, el, showError } from "./dom.ts";
import { ModelView, reasonOf, type Loaded } from "./models.ts";
import { Store } from "./store.ts";
import { STRINGS } from "./strings.ts";

const VIEWS = { "#chat": STRINGS.views.chat, "#model": STRINGS.views.model } as const;
const CHECKS = { "#self-test": STRINGS.views.selfTest, "#bench": STRINGS.views.bench } as const;
const CURRENT = "conversation";

async function start(): Promise<void> {
  const store = await Store.open();
  const chat = new ChatView(store, async (id) => {
    localStorage.setItem(CURRENT, id);
    await list.refresh(id);
  });
  const list = new ConversationList(store, (conversation) => {
    localStorage.setItem(CURRENT, conversation?.id ?? "");
    chat.show(conversation);
    void list.refresh(conversation?.id ?? null);
    location.hash = "#chat";
    byId("prompt").focus();
  });
  const checks = [new SelfTestView(), new BenchView()];
  let loaded: Loaded | null = null;
  const models = new ModelView((model) => {
    loaded?.client.close();
    loaded = model;
    chat.setModel(model);
    checks.forEach((check) => check.setModel(model));
    byId("model-name").textContent = model ? model.manifest.name : "";
    if (model && location.hash === "#model") location.hash = "#chat";
  });
  byId("aside").append(list.element);
  byId("views").append(chat.element, models.element, ...checks.map((check) => check.element));
  byId("tabs").append(
    ...Object.entries({ ...VIEWS, ...CHECKS }).map(([hash, name]) => el("a", { href: hash, "data-view": hash }, name)),
  );
  addEventListener("hashchange", () => {
    announce(""); // what was said belongs to the view that is left
    showView();
  });
  const current = localStorage.getItem(CURRENT);
  await list.refresh(current);
  chat.show(list.conversations.find((conversation) => conversation.id === current) ?? null);
  if (!location.hash) location.hash = "#model";
  showView();
  await models.open();
}

function showView(): void {
  const chosen = document.querySelector(`#view-${location.hash.slice(1)}`) ? location.hash : "#chat";
  for (const view of document.querySelectorAll<HTMLElement>("#views > section")) {
    view.hidden = `#${view.id.replace("view-", "")}` !== chosen;
  }
  if (document.activeElement?.closest("#views > section[hidden]")) {
    const shown = byId(`view-${chosen.slice(1)}`); // the view that was left had the keyboard
    shown.tabIndex = -1;
    shown.focus();
  }
  for (const link of document.querySelectorAll<HTMLElement>("#tabs a")) {
    if (link.dataset.view === chosen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function register(): Promise<void> {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  const updated = navigator.serviceWorker.controller !== null;
  await navigator.serviceWorker.register(new URL("sw.js", document.baseURI));
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (updated) byId("status").textContent = STRINGS.updated;
  });
}

byId("skip").textContent = STRINGS.skip;
byId("local").textContent = STRINGS.local;
start().catch((error: unknown) => showError(reasonOf(error)));
register().catch(() => {}); // without it the page works, but not offline
