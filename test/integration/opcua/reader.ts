import { pino } from "pino";
import { expect } from "vitest";
import type { z } from "zod";
import type { Driver } from "../../../protocols/driver.ts";
import { opcuaDevice } from "../../../protocols/opcua/config.ts";
import { opcua } from "../../../protocols/opcua/driver.ts";
import type { Reading } from "../../../protocols/reading.ts";

/** A device as it stands in the device map, without what every test gives alike. */
export type DeviceInput = Omit<z.input<typeof opcuaDevice>, "name" | "protocol">;

/** Reads a device as the collector does, and keeps what it sees. */
export class Reader {
  readonly driver: Driver;
  readonly readings: Reading[] = [];
  readonly overflows: { tag: string | null; detail: string }[] = [];
  readonly logged: string[] = [];
  batches = 0;
  readonly #abort = new AbortController();
  #ended: Promise<unknown> = Promise.resolve();

  constructor(device: DeviceInput, settings?: Parameters<typeof opcua>[0]) {
    const log = pino({ level: "info" }, { write: (line: string) => this.logged.push(line) });
    this.driver = opcua(settings).driver(
      opcuaDevice.parse({
        name: "reactor-1",
        protocol: "opcua",
        sampling: "10 ms",
        publishing: "50 ms",
        timeout: "1 s",
        ...device,
      }),
      { log, overflow: (tag, detail) => this.overflows.push({ tag, detail }) },
    );
  }

  connect(): Promise<void> {
    return this.driver.connect(this.#abort.signal);
  }

  /** Connects and reads in the background; what ends it is the result of `end`. */
  async start(): Promise<this> {
    await this.connect();
    this.read();
    return this;
  }

  read(): void {
    this.#ended = (async () => {
      for await (const batch of this.driver.readings(this.#abort.signal)) {
        this.batches++;
        this.readings.push(...batch);
      }
    })().catch((error) => error);
  }

  /** What ended the reading: an error, or undefined after `close`. */
  end(): Promise<unknown> {
    return this.#ended;
  }

  of(tag: string): Reading[] {
    return this.readings.filter((reading) => reading.tag === tag);
  }

  /** Waits until a tag has given so many readings; these. */
  async atLeast(tag: string, count: number): Promise<Reading[]> {
    await expect.poll(() => this.of(tag).length, { timeout: 5000, interval: 10 }).toBeGreaterThanOrEqual(count);
    return this.of(tag);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#ended;
    await this.driver.close();
  }
}
