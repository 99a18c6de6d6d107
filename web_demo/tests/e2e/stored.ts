/** Conversations as the page keeps them, and what has to be true of each answer. */
import { expect } from "vitest";

export interface StoredConversation {
  id: string;
  updated: number;
  exchanges: StoredExchange[];
}

export interface StoredExchange {
  text: string;
  chosen: number;
  answers: StoredAnswer[];
}

export interface StoredAnswer {
  turn: { given: number[]; loops: number; tokens: number[]; loopsUsed: number[] };
  changes: number[][];
  ending: string;
  pieces: string[];
  metrics: { executedLoops: number; firstToken: number; heapBytes: number; weightBytes: number; cacheBytes: number };
}

/** The last exchange of the conversation that changed last. */
export function lastExchange(stored: StoredConversation[]): StoredExchange {
  return stored[0]!.exchanges.at(-1)!;
}

/** Loops that the message's chunks and each token took, by what the page shows. */
export function shownLoops({ turn }: StoredAnswer, chunk = 128): number {
  const { given, loops, loopsUsed } = turn;
  return loopsUsed.slice(1).reduce((total, used) => total + used, Math.ceil(given.length / chunk) * loops);
}

/** What the page says it executed, against what it says each token took. */
export function expectExecuted(answer: StoredAnswer): void {
  expect(answer.metrics.executedLoops).toBe(shownLoops(answer));
  expect(answer.changes.map((changes) => changes.length)).toEqual(answer.turn.loopsUsed);
}
