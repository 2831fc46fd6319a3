import type { PlacedTag, Span } from "./plan.ts";

const firstRetryMs = 1000;
const lastRetryMs = 60_000;

/** At most one part in so many of the time is spent on asking again, so that the dead cannot starve the living. */
const shareOfTime = 10;

/** Something that is not read for the time being, and the request that tells whether it can be read again. */
export interface Case {
  /** What was put aside: a whole unit, or the tags that stand at a place the device refuses. */
  readonly scope: "unit" | "tags";
  readonly unitId: number;
  readonly tags: readonly PlacedTag[];
  readonly probe: Span;
}

interface Entry {
  readonly case: Case;
  retryMs: number;
  dueMs: number;
}

/** What a device does not give at present, asked for again from time to time: after 1 s, 2 s, 4 s … 60 s each. */
export class Quarantine {
  readonly #entries = new Map<Case, Entry>();
  #idleUntilMs = 0;

  get cases(): readonly Case[] {
    return [...this.#entries.keys()];
  }

  add(one: Case, nowMs: number): void {
    this.#entries.set(one, { case: one, retryMs: firstRetryMs, dueMs: nowMs + firstRetryMs });
  }

  remove(one: Case): void {
    this.#entries.delete(one);
  }

  /** When the next case is to be tried, and which; undefined while there is none. */
  next(): { readonly case: Case; readonly dueMs: number } | undefined {
    const silent = new Set(this.cases.filter((one) => one.scope === "unit").map((one) => one.unitId));
    let first: Entry | undefined;
    for (const entry of this.#entries.values()) {
      // While a unit is silent, it makes no sense to ask for its single registers.
      if (entry.case.scope === "tags" && silent.has(entry.case.unitId)) continue;
      if (!first || entry.dueMs < first.dueMs) first = entry;
    }
    return first && { case: first.case, dueMs: Math.max(first.dueMs, this.#idleUntilMs) };
  }

  /** A case was tried, and it took its time. If it still stands, it waits twice as long as before. */
  tried(one: Case, beganMs: number, nowMs: number): void {
    this.#idleUntilMs = nowMs + (nowMs - beganMs) * (shareOfTime - 1);
    const entry = this.#entries.get(one);
    if (!entry) return;
    entry.retryMs = Math.min(entry.retryMs * 2, lastRetryMs);
    entry.dueMs = nowMs + entry.retryMs;
  }
}
