import { setTimeout as sleep } from "node:timers/promises";
import type { Driver, DriverContext, Protocol } from "../driver.ts";
import { LinkError } from "../errors.ts";
import type { Reading } from "../reading.ts";
import type { ModbusTcpDevice } from "./config.ts";
import { type Link, Links } from "./link.ts";
import { meaningOf } from "./meaning.ts";
import { planDevice } from "./plan.ts";
import { Poll, quietMsOf } from "./poll.ts";

/** Modbus TCP. Devices with the same host and port share one connection. */
export function modbusTcp(): Protocol<ModbusTcpDevice> {
  const links = new Links();
  return { driver: (device, context) => new ModbusDriver(device, context, links) };
}

class ModbusDriver implements Driver {
  readonly quietMs: number;
  readonly #device: ModbusTcpDevice;
  readonly #context: DriverContext;
  readonly #links: Links;
  readonly #closing = new AbortController();
  #link: Link | undefined;

  constructor(device: ModbusTcpDevice, context: DriverContext, links: Links) {
    this.#device = device;
    this.#context = context;
    this.#links = links;
    this.quietMs = quietMsOf(device);
  }

  /** Done when one unit has answered: gateways and half-dead devices accept connections too. */
  async connect(signal: AbortSignal): Promise<void> {
    const { host, port } = this.#device;
    const either = AbortSignal.any([signal, this.#closing.signal]);
    either.throwIfAborted();
    const link = this.#links.acquire(host, port);
    this.#link = link;
    try {
      await this.#greet(link, either);
    } catch (error) {
      throw this.#named(error);
    }
  }

  async *readings(signal: AbortSignal): AsyncGenerator<readonly Reading[]> {
    const either = AbortSignal.any([signal, this.#closing.signal]);
    if (!this.#link || either.aborted) return;
    const poll = new Poll(this.#device, this.#link, this.#context.log, either);
    try {
      while (!either.aborted) {
        const next = poll.next();
        if (typeof next === "number") await sleep(Math.max(0, next - performance.now()), undefined, { signal: either });
        else yield* next;
      }
    } catch (error) {
      if (!either.aborted) throw this.#named(error);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    if (this.#link) this.#links.release(this.#link);
    this.#link = undefined;
  }

  /** Waits until one unit has answered. */
  async #greet(link: Link, signal: AbortSignal): Promise<void> {
    const { timeout } = this.#device;
    await link.open(timeout, signal);
    const troubles: string[] = [];
    for (const [unitId, blocks] of Map.groupBy(planDevice(this.#device), (block) => block.unitId)) {
      const meaning = meaningOf(await link.read(blocks[0]!, timeout, signal));
      if (meaning.is !== "unanswered") return;
      troubles.push(`unit ${unitId}: ${meaning.why}`);
    }
    throw new LinkError(`connections are accepted, but no unit answers (${troubles.join("; ")})`);
  }

  /** A lost link may be shared by several devices: its error is given the name of this one. */
  #named(error: unknown): unknown {
    if (!(error instanceof LinkError)) return error;
    return new LinkError(`${this.#device.name}: ${error.message}`, { cause: error.cause });
  }
}
