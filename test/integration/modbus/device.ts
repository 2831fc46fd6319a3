import { pino } from "pino";
import type { z } from "zod";
import type { Driver } from "../../../protocols/driver.ts";
import { modbusTcpDevice } from "../../../protocols/modbus/config.ts";
import { modbusTcp } from "../../../protocols/modbus/driver.ts";
import type { Reading } from "../../../protocols/reading.ts";

type Input = z.input<typeof modbusTcpDevice>;

/** A driver at work for a test: what it has given so far, what it has logged, and how it ended. */
export interface Running {
  readonly driver: Driver;
  readonly readings: Reading[];
  readonly log: { readonly level: number; readonly msg: string }[];
  /** Settles when the readings end. */
  ended: Promise<void>;
  /** What the readings threw. */
  error: unknown;
  of(tag: string): Reading[];
  last(tag: string): Reading | undefined;
  stop(): Promise<void>;
}

/** Connects a new driver and reads on until it is stopped. */
export async function run(device: Omit<Input, "protocol" | "name" | "host">, protocol = modbusTcp()): Promise<Running> {
  const log: Running["log"] = [];
  const logger = pino({ level: "debug" }, { write: (line: string) => log.push(JSON.parse(line)) });
  const parsed = modbusTcpDevice.parse({ protocol: "modbus-tcp", name: "device", host: "127.0.0.1", ...device });
  const driver = protocol.driver(parsed, { log: logger, overflow: () => {} });
  const abort = new AbortController();
  try {
    await driver.connect(abort.signal);
  } catch (error) {
    await driver.close();
    throw error;
  }
  const readings: Reading[] = [];
  const running: Running = {
    driver,
    readings,
    log,
    error: undefined,
    ended: Promise.resolve(),
    of: (tag) => readings.filter((reading) => reading.tag === tag),
    last: (tag) => readings.findLast((reading) => reading.tag === tag),
    stop: async () => {
      abort.abort();
      await running.ended;
      await driver.close();
    },
  };
  const read = async () => {
    try {
      for await (const batch of driver.readings(abort.signal)) readings.push(...batch);
    } catch (error) {
      running.error = error;
    }
  };
  running.ended = read();
  return running;
}
