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
    const { name, host, port, timeout } = this.#device;
    const either = AbortSignal.any([signal, this.#closing.signal]);
    either.throwIfAborted();
    const link = this.#links.acquire(host, port);
    this.#link = link;
    await link.open(timeout, either);
    const troubles: string[] = [];
    for (const [unitId, blocks] of Map.groupBy(planDevice(this.#device), (block) => block.unitId)) {
      const meaning = meaningOf(await link.read(blocks[0]!, timeout, either));
      if (meaning.is !== "unanswered") return;
      troubles.push(`unit ${unitId}: ${meaning.why}`);
    }
    throw new LinkError(`${name}: ${host}:${port} accepts connections, but no unit answers (${troubles.join("; ")})`);
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
      if (!either.aborted) throw error;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    if (this.#link) this.#links.release(this.#link);
    this.#link = undefined;
  }
}
