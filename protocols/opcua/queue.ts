import type { Reading } from "../reading.ts";

/**
 * What the server has sent and the collector has not taken yet, in the order of arrival, bounded by the number of
 * readings. When it overflows, the oldest batches go.
 */
export class ReadingQueue {
  readonly #batches: (readonly Reading[])[] = [];
  readonly #limit: number;
  readonly #overflow: (lost: number) => void;
  #readings = 0;
  #wake: (() => void) | undefined;

  /** @param limit how many readings to hold; a single larger batch is held all the same */
  constructor(limit: number, overflow: (lost: number) => void) {
    this.#limit = limit;
    this.#overflow = overflow;
  }

  /** How many readings wait. */
  get size(): number {
    return this.#readings;
  }

  push(batch: readonly Reading[]): void {
    // A sign of life is worth a batch of its own only where no other batch waits.
    if (batch.length === 0 && this.#batches.length > 0) return;
    this.#batches.push(batch);
    this.#readings += batch.length;
    let lost = 0;
    while (this.#readings > this.#limit && this.#batches.length > 1) lost += this.shift()!.length;
    if (lost > 0) this.#overflow(lost);
    this.wake();
  }

  /** The oldest batch; undefined when there is none. */
  shift(): readonly Reading[] | undefined {
    const batch = this.#batches.shift();
    this.#readings -= batch?.length ?? 0;
    return batch;
  }

  /** Resolves at the next `push` or `wake`. One waits at a time. */
  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
