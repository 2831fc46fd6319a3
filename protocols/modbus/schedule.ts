import type { Block } from "./plan.ts";

interface Rate {
  readonly everyMs: number;
  blocks: readonly Block[];
  /** What the present scan has still to read, the first one last. */
  unread: Block[];
  /** When the present scan was due. */
  tickMs: number;
  /** Rises by 1 with each scan that began so late that others were left out, and falls by a tenth with each other. */
  lateness: number;
  isTooFast: boolean;
}

/** From here on a rate is too fast: not for a single hitch, but surely where more than a tenth is left out. */
const tooLate = 3;

/**
 * Which block is to be read when. Each rate has a grid of its own, fixed at the start: a scan that begins late does not
 * move the following ones, and those that cannot begin at all are left out rather than piled up.
 *
 * Times are milliseconds of a clock that never jumps.
 */
export class Schedule {
  readonly #rates: Rate[];
  readonly #onOverrun: (everyMs: number) => void;

  /** The first scan of every rate is due at `startMs`. `onOverrun` is told, once, of a rate that is too fast. */
  constructor(ratesMs: Iterable<number>, startMs: number, onOverrun: (everyMs: number) => void) {
    this.#rates = [...new Set(ratesMs)].map((everyMs) => ({
      everyMs,
      blocks: [],
      unread: [],
      tickMs: startMs - everyMs,
      lateness: 0,
      isTooFast: false,
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
      rate.lateness = ticks > 1 ? rate.lateness + 1 : Math.max(0, rate.lateness - 0.1);
      if (rate.lateness < tooLate || rate.isTooFast) continue;
      rate.isTooFast = true;
      this.#onOverrun(rate.everyMs);
    }
    const due = this.#rates.filter((rate) => rate.unread.length > 0);
    if (due.length === 0) return Math.min(...this.#rates.map((rate) => rate.tickMs + rate.everyMs));
    return due.reduce((a, b) => (b.tickMs + b.everyMs < a.tickMs + a.everyMs ? b : a)).unread.pop()!;
  }
}
