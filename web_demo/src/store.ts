/** Conversations in IndexedDB: messages, every answer to them, and what has to be given again to go on. */
import { bytesToHex } from "@noble/hashes/utils.js";

import type { Ending, Turn } from "../engine/generate.ts";
import type { Metrics } from "../engine/metrics.ts";
import type { Sampling } from "../engine/sampler.ts";

export interface StoredAnswer {
  turn: Turn;
  /** Text that was shown by each token. */
  pieces: string[];
  ending: Ending;
  threshold: number;
  sampling: Partial<Sampling>;
  /** Relative state change by token and loop. */
  changes: number[][];
  metrics: Metrics;
}

export interface Exchange {
  text: string;
  answers: StoredAnswer[];
  /** The answer that the conversation goes on from. */
  chosen: number;
}

export interface Conversation {
  id: string;
  updated: number;
  model: { name: string; weights: string };
  exchanges: Exchange[];
}

const DATABASE = "parcae";
const STORE = "conversations";

/** 128 random bits as hexadecimal digits. (`crypto.randomUUID` is missing on a page that came by plain http.) */
export function newId(): string {
  return bytesToHex(crypto.getRandomValues(new Uint8Array(16)));
}

export function textOf(answer: StoredAnswer): string {
  return answer.pieces.join("");
}

export function titleOf(conversation: Conversation): string {
  return conversation.exchanges[0]?.text.trim().split("\n")[0]?.slice(0, 60) ?? "";
}

/** Turns of the exchanges before `end`, as they were chosen. */
export function historyOf(conversation: Conversation, end = conversation.exchanges.length): Turn[] {
  return conversation.exchanges
    .slice(0, end)
    .flatMap(({ answers, chosen }) => (answers[chosen] ? [answers[chosen].turn] : []));
}

/** Whether all words of a query are somewhere in the texts. */
export function matches(conversation: Conversation, query: string): boolean {
  const texts = conversation.exchanges.flatMap(({ text, answers }) => [text, ...answers.map(textOf)]);
  const all = texts.join("\n").toLocaleLowerCase();
  return query
    .toLocaleLowerCase()
    .split(/\s+/)
    .every((word) => all.includes(word));
}

export class Store {
  private constructor(private readonly database: IDBDatabase) {}

  static open(): Promise<Store> {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    return settled(request).then((database) => new Store(database));
  }

  /** All conversations, the last one first. */
  async all(): Promise<Conversation[]> {
    const found = await settled(this.table("readonly").getAll() as IDBRequest<Conversation[]>);
    return found.sort((one, other) => other.updated - one.updated);
  }

  async put(conversation: Conversation): Promise<void> {
    await settled(this.table("readwrite").put(conversation));
  }

  async remove(id: string): Promise<void> {
    await settled(this.table("readwrite").delete(id));
  }

  private table(mode: IDBTransactionMode): IDBObjectStore {
    return this.database.transaction(STORE, mode).objectStore(STORE);
  }
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's storage failed"));
  });
}
