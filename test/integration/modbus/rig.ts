import { afterEach, beforeEach, expect, vi } from "vitest";
import { type Running, run } from "./device.ts";
import { ModbusServer } from "./server.ts";

/** What a test file works with; `server` is another one in each test. */
export interface Rig {
  readonly server: ModbusServer;
  /** Connects a new driver and reads on until the test ends. */
  start(...args: Parameters<typeof run>): Promise<Running>;
}

/** A fresh server for each test of the file. After it, all that was started is stopped, and no connection is left. */
export function useModbusServer(): Rig {
  let server: ModbusServer;
  const running: Running[] = [];
  beforeEach(async () => {
    server = await new ModbusServer().start();
  });
  afterEach(async () => {
    for (const one of running.splice(0)) await one.stop();
    await vi.waitFor(() => expect(server.connections).toBe(0));
    await server.stop();
  });
  return {
    get server() {
      return server;
    },
    async start(device, protocol) {
      const one = await run(device, protocol);
      running.push(one);
      return one;
    },
  };
}

/** Waits until an expectation holds. */
export const until = (check: () => void) => vi.waitFor(check, { timeout: 8000, interval: 5 });
