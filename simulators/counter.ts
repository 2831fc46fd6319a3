import type { OpcUaServer, PlantVariable } from "./opcua.ts";
import type { RegisterPoint } from "./registers.ts";

export interface CounterOptions {
  /** Time between two counts, in whole milliseconds. */
  readonly periodMs: number;
  /** How many tags count; at most 10,000. */
  readonly tags: number;
}

/**
 * Every tag counts 1, 2, 3 … together, so that whoever reads them can tell from the values alone what is missing or
 * doubled. Count n is taken at exactly `startedAt + n × periodMs`: when the process was late it catches up, value by
 * value, with the times at which they were due.
 */
export class Counter {
  readonly options: CounterOptions;
  /** The last count given out; 0 before the first. */
  count = 0;
  /** Milliseconds since 1970 at which count 0 would have been. */
  startedAt = 0;

  readonly #ids: readonly string[];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: CounterOptions) {
    const { periodMs, tags } = options;
    if (!Number.isInteger(periodMs) || periodMs < 1)
      throw new RangeError("a counter's periodMs is a whole number from 1");
    if (!Number.isInteger(tags) || tags < 1 || tags > 10_000) throw new RangeError("a counter has 1 to 10,000 tags");
    this.options = options;
    this.#ids = Array.from({ length: tags }, (_, index) => `Counter.${String(index + 1).padStart(4, "0")}`);
  }

  /** The variables on OPC UA: `Counter.0001` and so on. */
  get variables(): PlantVariable[] {
    return this.#ids.map((id) => ({ id, type: "UInt32", description: "Counts 1, 2, 3 …" }));
  }

  /** The registers of unit 1: tag n as uint32 at holding 2(n-1) and as float64 at input 4(n-1). */
  get points(): RegisterPoint[] {
    const read = () => this.count;
    return this.#ids.flatMap((_, index): RegisterPoint[] => [
      { table: "holding", address: 2 * index, type: "uint32", read },
      { table: "input", address: 4 * index, type: "float64", read },
    ]);
  }

  /** Begins to count. */
  start(server: OpcUaServer): void {
    this.startedAt = Date.now();
    const started = performance.now();
    this.#timer = setInterval(() => {
      const due = Math.floor((performance.now() - started) / this.options.periodMs);
      while (this.count < due) this.#next(server);
    }, this.options.periodMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #next(server: OpcUaServer): void {
    this.count += 1;
    const time = new Date(this.startedAt + this.count * this.options.periodMs);
    for (const id of this.#ids) server.set(id, this.count, time);
  }
}
