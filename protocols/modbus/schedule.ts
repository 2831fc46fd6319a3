import type { Block } from "./plan.ts";

interface Rate {
  readonly everyMs: number;
  blocks: readonly Block[];
  /** What the present scan has still to read, the first one last. */
  unread: Block[];
  /** When the present scan was due. */
  tickMs: number;
  /** How many scans in a row began so late that others were left out. */
  late: number;
}

/** So many scans in a row that leave others out mean that the rate cannot be kept. */
const lateInARow = 3;

/**
 * Which block is to be read when. Each rate has a grid of its own, fixed at the start: a scan that begins late does not
 * move the following ones, and those that cannot begin at all are left out rather than piled up.
 *
 * Times are milliseconds of a clock that never jumps.
 */
export class Schedule {
  readonly #rates: Rate[];
  readonly #onOverrun: (everyMs: number) => void;

  /** The first scan of every rate is due at `startMs`. `onOverrun` is told when a rate begins to be too fast. */
  constructor(ratesMs: Iterable<number>, startMs: number, onOverrun: (everyMs: number) => void) {
    this.#rates = [...new Set(ratesMs)].map((everyMs) => ({
      everyMs,
      blocks: [],
      unread: [],
      tickMs: startMs - everyMs,
      late: 0,
    }));
    this.#onOverrun = onOverrun;
  }

  /** Replaces the blocks. What the present scans have not read yet stays to be read. */
  plan(blocks: readonly Block[]): void {
    for (const rate of this.#rates) {
      const unread = new Set(rate.unread.flatMap((block) => block.tags));
      rate.blocks = blocks.filter((block) => block.everyMs === rate.everyMs);
      rate.unread = rate.blocks.filter((block) => block.tags.some((tag) => unread.has(tag))).toReversed();
    }
  }

  /** The block to be read now, that of the scan which has to be done first; else the time until which there is none. */
  next(nowMs: number): Block | number {
    for (const rate of this.#rates) {
      const ticks = Math.floor((nowMs - rate.tickMs) / rate.everyMs);
      if (rate.unread.length > 0 || ticks < 1) continue;
      rate.tickMs += ticks * rate.everyMs;
      rate.unread = rate.blocks.toReversed();
      rate.late = ticks > 1 ? rate.late + 1 : 0;
      if (rate.late === lateInARow) this.#onOverrun(rate.everyMs);
    }
    const due = this.#rates.filter((rate) => rate.unread.length > 0);
    if (due.length === 0) return Math.min(...this.#rates.map((rate) => rate.tickMs + rate.everyMs));
    return due.reduce((a, b) => (b.tickMs + b.everyMs < a.tickMs + a.everyMs ? b : a)).unread.pop()!;
  }
}
