/** Models: the bundled ones, a person's own folder, the estimate before anything is loaded, and the loading itself. */
import { EngineError } from "../engine/errors.ts";
import { readStart } from "../engine/files.ts";
import { chooseLoops } from "../engine/loops.ts";
import { APP_MANIFEST, estimateMemory, MOST_MANIFEST, type Manifest } from "../engine/manifest.ts";
import { ORT_VERSION } from "../engine/runtime.ts";
import { APP_SIGNATURE, short, SIGNATURE_BYTES } from "../engine/signature.ts";
import { CallError, Client } from "./client.ts";
import { announce, el, fact, showError } from "./dom.ts";
import type { LoadArguments, LoadResult } from "./protocol.ts";
import { SIGNED_BY, signedManifest } from "./signed.ts";
import { explain, STRINGS, tooLarge } from "./strings.ts";

const WASM_BYTES = 2 ** 32; // what 32-bit addresses reach
const LAST = "model";

export interface Loaded {
  manifest: Manifest;
  client: Client;
  result: LoadResult;
}

interface Index {
  models: { name: string }[];
}

export class ModelView {
  readonly element: HTMLElement;
  private readonly list = el("ul", { class: "models" });
  private readonly progress = el("progress", { hidden: true, max: 1, value: 0, "aria-label": STRINGS.working });
  private readonly line = el("p", { class: "hint", id: "load-line" });
  private readonly facts = el("dl", { class: "facts" });
  private loading: Client | null = null;

  constructor(private readonly onLoad: (loaded: Loaded | null) => void) {
    const picker = el("input", {
      type: "file",
      id: "own-folder",
      multiple: true,
      webkitdirectory: true,
      onchange: () => void this.openFolder(picker.files),
    });
    this.element = el(
      "section",
      { id: "view-model", "aria-labelledby": "model-heading" },
      el("h2", { id: "model-heading" }, STRINGS.modelHeading),
      this.progress,
      this.line,
      this.facts,
      el("h3", {}, STRINGS.choose),
      this.list,
      el("h3", {}, el("label", { for: "own-folder" }, STRINGS.ownFolder)),
      el("p", { class: "hint" }, STRINGS.ownFolderHelp),
      picker,
    );
  }

  /** Show the bundled models, and load the one of the last visit. */
  async open(): Promise<void> {
    const index = await fetchIndex("models/models.json").catch(() => ({ models: [] }));
    const manifests: [string, Manifest][] = [];
    for (const { name } of index.models) {
      const base = new URL(`models/${encodeURIComponent(name)}/`, document.baseURI).href;
      try {
        const signature = () => fetchStart(base + APP_SIGNATURE, SIGNATURE_BYTES).catch(() => null);
        const manifest = await signedManifest(await fetchStart(base + APP_MANIFEST, MOST_MANIFEST), signature);
        manifests.push([base, manifest]);
        this.list.append(this.entry(base, manifest));
      } catch (error) {
        this.list.append(el("li", { class: "wrong" }, `${name}: ${reasonOf(error)}`));
      }
    }
    if (!index.models.length) this.list.replaceWith(el("p", { class: "hint" }, STRINGS.noModels));
    const last = manifests.find(([, manifest]) => manifest.name === localStorage.getItem(LAST));
    if (last) await this.load(last[1], last[0]);
  }

  private entry(base: string, manifest: Manifest): HTMLElement {
    const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
    const refusal = refusalOf(manifest);
    const button = el(
      "button",
      { type: "button", disabled: refusal !== null, onclick: () => void this.load(manifest, base) },
      STRINGS.load(manifest.name),
    );
    const needs = `${STRINGS.size(bytes)}, ${estimateOf(manifest)}.`;
    return el("li", {}, button, el("p", {}, needs), refusal && el("p", { class: "wrong" }, refusal));
  }

  private async openFolder(chosen: FileList | null): Promise<void> {
    if (!chosen?.length) return;
    // Paths begin with the name of the chosen folder.
    const files = new Map([...chosen].map((file) => [file.webkitRelativePath.split("/").slice(1).join("/"), file]));
    const folder = chosen[0]!.webkitRelativePath.split("/")[0]!;
    const manifestFile = files.get(APP_MANIFEST) ?? [...chosen].find((file) => file.name === APP_MANIFEST);
    try {
      if (!manifestFile) throw new EngineError("missing", `${folder}/${APP_MANIFEST}`, "");
      const signature = files.get(APP_SIGNATURE);
      const manifest = await signedManifest(await readStart(manifestFile.stream(), MOST_MANIFEST), async () =>
        signature ? readStart(signature.stream(), SIGNATURE_BYTES) : null,
      );
      const refusal = refusalOf(manifest);
      if (refusal) showError(refusal);
      else await this.load(manifest, files);
    } catch (error) {
      showError(reasonOf(error));
    }
  }

  private async load(manifest: Manifest, source: LoadArguments["source"]): Promise<void> {
    showError("");
    this.onLoad(null); // a heap never shrinks: the old model's worker goes first
    this.loading?.close();
    const client = (this.loading = new Client());
    this.progress.hidden = false;
    const runtime = new URL("runtime/", document.baseURI).href;
    try {
      const call = client.call("load", { manifest, source, runtime }, ({ done, total, name }) => {
        this.progress.value = done / total;
        this.line.textContent = STRINGS.loading(name, done, total);
      });
      const result = await call.result;
      this.loading = null;
      this.line.textContent = STRINGS.ready(manifest.name, result.seconds);
      announce(STRINGS.loaded(manifest.name));
      this.showFacts(manifest, result);
      if (typeof source === "string") localStorage.setItem(LAST, manifest.name);
      this.onLoad({ manifest, client, result });
    } catch (error) {
      client.close();
      if (this.loading !== client) return; // another model was chosen in between
      this.loading = null;
      this.line.textContent = "";
      localStorage.removeItem(LAST);
      await forgetCopies(source);
      showError(`${manifest.name}: ${reasonOf(error)}`);
    } finally {
      if (!this.loading) this.progress.hidden = true;
    }
  }

  private showFacts(manifest: Manifest, result: LoadResult): void {
    const { loops, cache } = manifest;
    const names = STRINGS.facts;
    this.facts.replaceChildren(
      fact(names.recipe, `${manifest.model}, ${manifest.recipe}${manifest.portable ? ", portable" : ""}`),
      fact(names.loops, names.loopsValue(loops.min, loops.max, loops.trained)),
      fact(names.cache, names.cacheValue(cache.policy, cache.dtype, cache.context)),
      fact(names.runtime, names.runtimeValue(ORT_VERSION, STRINGS.ways[result.way])),
      fact(names.promise, manifest.promise),
      fact(names.verified, manifest.verified ? names.verifiedYes : names.verifiedNo),
      ...(SIGNED_BY ? [fact(names.signed, names.signedValue(short(SIGNED_BY)))] : []),
    );
  }
}

function needOf(manifest: Manifest): { loops: number; bytes: number } {
  const { cache, memory } = manifest;
  const loops = chooseLoops(manifest.loops, null);
  return { loops, bytes: estimateMemory(memory, loops, cache.context, cache.prefill_chunk) };
}

function estimateOf(manifest: Manifest): string {
  const { loops, bytes } = needOf(manifest);
  return STRINGS.estimate(bytes, loops, manifest.cache.context);
}

/** Why a model is not even tried; null if it may fit. */
function refusalOf(manifest: Manifest): string | null {
  // Chromium says roughly how much memory the device has; others do not.
  const device = (navigator as { deviceMemory?: number }).deviceMemory;
  const limit = Math.min(WASM_BYTES, device === undefined ? Infinity : device * 2 ** 30);
  const { bytes } = needOf(manifest);
  return bytes > limit ? tooLarge(bytes, limit) : null;
}

export function reasonOf(error: unknown): string {
  if (error instanceof CallError) return explain(error.failure);
  if (error instanceof EngineError) return explain({ kind: error.kind, where: error.where, message: error.message });
  return explain({ kind: "other", where: "", message: String(error) });
}

/** What the service worker kept of files that turned out to be damaged would be damaged the next time too. */
async function forgetCopies(source: LoadArguments["source"]): Promise<void> {
  if (typeof source !== "string" || !("caches" in globalThis)) return;
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) if (request.url.startsWith(source)) await cache.delete(request);
  }
}

async function fetchStart(url: string, most: number): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(new URL(url, document.baseURI));
  if (!response.ok || !response.body) throw new EngineError("missing", url.split("/").at(-1)!, "");
  return readStart(response.body, most);
}

async function fetchIndex(url: string): Promise<Index> {
  return JSON.parse(new TextDecoder().decode(await fetchStart(url, MOST_MANIFEST))) as Index;
}
