/** Elements without a framework. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | ((event: Event) => void) | undefined>;

/** An element: attributes by name, listeners as `onclick` and the like, children in order. */
export function el<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child): child is Node | string => Boolean(child)));
  return element;
}

export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** Give a person a file. */
export function download(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Put a text on the clipboard. Rejects with what the browser says. */
export async function copyText(text: string): Promise<void> {
  // Both ways are typed as if every browser had both; a page that came by plain http has no `clipboard`.
  const clipboard = navigator.clipboard as Clipboard | undefined;
  if (clipboard) return clipboard.writeText(text);
  const area = el("textarea", { class: "visually-hidden", readonly: true, "aria-hidden": "true" });
  const before = document.activeElement as HTMLElement | null;
  area.value = text;
  area.style.whiteSpace = "pre"; // or blanks at the beginning of lines are not copied
  document.body.append(area);
  area.select();
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- nothing else copies without https
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  if (!done) throw new Error("open the page by https");
}

/** Say something to those who listen, and show it. */
export function announce(text: string): void {
  byId("status").textContent = text;
}

export function showError(text: string): void {
  const place = byId("error");
  place.textContent = text;
  place.hidden = !text;
}

/** A labelled pair of a list of facts. */
export function fact(name: string, value: Child, id?: string): HTMLElement {
  return el("div", { class: "fact" }, el("dt", {}, name), el("dd", { id }, value));
}
