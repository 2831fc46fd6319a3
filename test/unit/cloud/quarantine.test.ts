import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { Quarantine } from "../../../cloud/quarantine.ts";
import type { RefusedMessage, Store } from "../../../cloud/store/store.ts";
import { DataError, LinkError } from "../../../protocols/errors.ts";

const log = pino({ level: "silent" });
const message = (seq: number, bytes = 10): RefusedMessage => ({
  topic: "t",
  edge: "a",
  stream: null,
  seq,
  reason: "because",
  payload: new Uint8Array(bytes),
});

/** A quarantine whose store fails as told; with what the store was given. */
function quarantineWith(keepRefused: (messages: readonly RefusedMessage[]) => Promise<void>) {
  const transactions: number[][] = [];
  const store = {
    keepRefused: async (messages: readonly RefusedMessage[]) => {
      transactions.push(messages.map(({ seq }) => seq!));
      await keepRefused(messages);
    },
  } as Store;
  const failures: unknown[] = [];
  const quarantine = new Quarantine(store, log, (error) => failures.push(error));
  const stopping = new AbortController();
  const running = quarantine.run(stopping.signal);
  const stop = () => {
    stopping.abort();
    return running;
  };
  return { quarantine, transactions, failures, stop };
}

describe("Quarantine", () => {
  it("keeps in one transaction all that came while another was under way", async () => {
    const first = Promise.withResolvers<void>();
    const { quarantine, transactions, stop } = quarantineWith(([oldest]) =>
      oldest?.seq === 1 ? first.promise : Promise.resolve(),
    );
    const kept: number[] = [];
    for (const seq of [1, 2, 3]) quarantine.keep(message(seq), () => kept.push(seq));
    await expect.poll(() => transactions.length).toBe(1);
    for (const seq of [4, 5]) quarantine.keep(message(seq), () => kept.push(seq));
    expect(kept).toEqual([]);
    first.resolve();
    await expect.poll(() => kept).toEqual([1, 2, 3, 4, 5]);
    expect(transactions).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
    await stop();
  });

  it("holds a bounded number of messages, and bounded bytes, while the database is away", async () => {
    for (const [bytes, most] of [
      [10, 100],
      [1024 * 1024, 4],
      [6 * 1024 * 1024, 1],
    ] as const) {
      let down = true;
      const { quarantine, transactions, failures, stop } = quarantineWith(async () => {
        if (down) throw new LinkError("away");
      });
      const kept: number[] = [];
      for (let seq = 1; seq <= 300; seq++) quarantine.keep(message(seq, bytes), () => kept.push(seq));
      await expect.poll(() => failures.length).toBeGreaterThan(0);
      down = false;
      await expect.poll(() => kept.length).toBe(most);
      // There is room again.
      quarantine.keep(message(301), () => kept.push(301));
      await expect.poll(() => kept).toContain(301);
      expect(transactions.at(-1)).toEqual([301]);
      await stop();
    }
  });

  it("gives up a transaction that can never be written, and goes on with the next", async () => {
    const { quarantine, failures, stop } = quarantineWith(async ([first]) => {
      if (first?.seq === 1) throw new DataError("impossible");
    });
    const kept: number[] = [];
    quarantine.keep(message(1), () => kept.push(1));
    await new Promise(setImmediate);
    quarantine.keep(message(2), () => kept.push(2));
    await expect.poll(() => kept).toEqual([2]);
    expect(failures).toEqual([]);
    await stop();
  });

  it("stops at once while the database is away, and writes what it has when it is there", async () => {
    const away = quarantineWith(async () => {
      throw new LinkError("away");
    });
    away.quarantine.keep(message(1));
    await expect.poll(() => away.failures.length).toBeGreaterThan(3);
    const started = performance.now();
    await away.stop();
    expect(performance.now() - started).toBeLessThan(500);

    const there = quarantineWith(async () => undefined);
    const kept: number[] = [];
    there.quarantine.keep(message(1), () => kept.push(1));
    await there.stop();
    expect(kept).toEqual([1]);
  });
});
