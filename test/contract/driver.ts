import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Driver, DriverContext } from "../../protocols/driver.ts";
import { LinkError } from "../../protocols/errors.ts";
import { isBad, isGood, now, type Reading } from "../../protocols/reading.ts";

/** A real device on a real wire, and how to make drivers for it. Made once per suite. */
export interface DriverFixture {
  /** A new driver of the device, with the tags `good`, `refused` and `unusable`. */
  driver(context: DriverContext): Driver;
  /** Tags with a usable value, each of which gives a new reading at least every second. */
  readonly good: readonly string[];
  /** A tag that the device refuses: illegal register, unknown node. */
  readonly refused: string;
  /** A tag that the device answers with something unusable: not a number, a bad status. */
  readonly unusable: string;
  /** The device dies: its connections are cut and nobody listens any more. */
  kill(): Promise<void>;
  /** The device comes back at the same address. */
  restart(): Promise<void>;
  /** How many connections the device sees. */
  connections(): number;
  /** Frees everything. The device may be dead or alive. */
  dispose(): Promise<void>;
}

/** What every driver owes to the collector (protocols/driver.ts), tried on a real device. */
export function driverContract(protocol: string, start: () => Promise<DriverFixture>): void {
  describe(`${protocol}: the driver contract`, () => {
    let device: DriverFixture;
    const opened: Driver[] = [];
    const context: DriverContext = { log: pino({ level: "silent" }), overflow: () => {} };

    const make = (): Driver => {
      const driver = device.driver(context);
      opened.push(driver);
      return driver;
    };

    const connected = async (): Promise<Driver> => {
      const driver = make();
      await driver.connect(new AbortController().signal);
      return driver;
    };

    beforeAll(async () => {
      device = await start();
    });
    afterEach(async () => {
      for (const driver of opened.splice(0)) await driver.close();
      await expect.poll(() => device.connections(), { timeout: 10_000 }).toBe(0);
    });
    afterAll(async () => {
      await device.dispose();
    });

    it("reads every tag, the values good and of this moment", async () => {
      const began = now();
      const driver = await connected();
      const readings = await collect(driver, (seen) => device.good.every((tag) => of(seen, tag).length >= 2));
      for (const tag of device.good) {
        for (const reading of of(readings, tag)) {
          expect(reading.value).not.toBeNull();
          expect(isGood(reading.quality)).toBe(true);
          expect(Number.isSafeInteger(reading.time)).toBe(true);
          expect(reading.time).toBeGreaterThan(began - 60_000_000);
          expect(reading.time).toBeLessThanOrEqual(now() + 60_000_000);
        }
      }
    });

    it("gives a refused tag once, as null with bad quality, while the others go on", async () => {
      const driver = await connected();
      const readings = await collect(
        driver,
        (seen) =>
          of(seen, device.refused).length > 0 &&
          device.good.every((tag) => after(seen, device.refused).filter((one) => one.tag === tag).length >= 3),
      );
      const refused = of(readings, device.refused);
      expect(refused).toHaveLength(1);
      expect(refused[0]!.value).toBeNull();
      expect(isBad(refused[0]!.quality)).toBe(true);
    });

    it("gives an unusable value as null with bad quality, never as a number", async () => {
      const driver = await connected();
      const readings = await collect(
        driver,
        (seen) => of(seen, device.unusable).length > 0 && device.good.every((tag) => of(seen, tag).length >= 2),
      );
      for (const reading of of(readings, device.unusable)) {
        expect(reading.value).toBeNull();
        expect(isBad(reading.quality)).toBe(true);
      }
    });

    it("gives at least one batch in each quiet time", async () => {
      const driver = await connected();
      const batches = driver.readings(new AbortController().signal)[Symbol.asyncIterator]();
      for (let count = 0; count < 3; count++) {
        expect(await within(driver.quietMs, batches.next())).toMatchObject({ done: false });
      }
      await within(1000, batches.return!());
    });

    it("ends the readings at once when they are aborted", async () => {
      const driver = await connected();
      const abort = new AbortController();
      const batches = driver.readings(abort.signal)[Symbol.asyncIterator]();
      await batches.next();
      const pending = drain(batches);
      abort.abort();
      await within(500, pending);
    });

    it("ends the readings without a batch when they are aborted before they begin", async () => {
      const driver = await connected();
      expect(await within(500, drain(driver.readings(AbortSignal.abort())[Symbol.asyncIterator]()))).toBe(0);
    });

    it("gives up connecting when that is aborted", async () => {
      await expect(within(500, make().connect(AbortSignal.abort()))).rejects.toThrow();
      const abort = new AbortController();
      const pending = make().connect(abort.signal);
      abort.abort();
      // Either is right: it was aborted, or it was quicker than that.
      await within(500, Promise.allSettled([pending]));
    });

    it("frees its connections when the reader stops in the middle", async () => {
      const driver = await connected();
      for await (const _batch of driver.readings(new AbortController().signal)) break;
      await within(5000, driver.close());
      await expect.poll(() => device.connections(), { timeout: 10_000 }).toBe(0);
    });

    it("closes without a complaint: twice, unconnected, in the middle of a read", async () => {
      const never = make();
      await never.close();
      await never.close();

      const twice = await connected();
      await Promise.all([twice.close(), twice.close()]);

      const driver = await connected();
      const batches = driver.readings(new AbortController().signal)[Symbol.asyncIterator]();
      await batches.next();
      const rest = Promise.allSettled([drain(batches)]);
      await within(5000, driver.close());
      await within(5000, rest);
    });

    it("reports a killed device as a lost link, and reads again once it is back", async () => {
      const driver = await connected();
      const batches = driver.readings(new AbortController().signal)[Symbol.asyncIterator]();
      await batches.next();
      await device.kill();
      try {
        await expect(within(20_000, drain(batches))).rejects.toThrow(LinkError);
        await within(5000, driver.close());

        const unlucky = make();
        await expect(within(20_000, unlucky.connect(new AbortController().signal))).rejects.toThrow(LinkError);
        await within(5000, unlucky.close());
      } finally {
        await device.restart();
      }
      const again = await connected();
      const readings = await collect(again, (seen) => device.good.every((tag) => of(seen, tag).length >= 1));
      expect(readings.length).toBeGreaterThan(0);
    });
  });
}

function of(readings: readonly Reading[], tag: string): Reading[] {
  return readings.filter((reading) => reading.tag === tag);
}

/** The readings that arrived after the first one of `tag`. */
function after(readings: readonly Reading[], tag: string): readonly Reading[] {
  return readings.slice(readings.findIndex((reading) => reading.tag === tag) + 1);
}

/** Reads until `enough` is said of everything seen so far. */
async function collect(driver: Driver, enough: (seen: readonly Reading[]) => boolean): Promise<readonly Reading[]> {
  const abort = new AbortController();
  const seen: Reading[] = [];
  const reading = (async () => {
    for await (const batch of driver.readings(abort.signal)) {
      seen.push(...batch);
      if (enough(seen)) return;
    }
  })();
  try {
    await within(15_000, reading, () => `saw ${JSON.stringify(seen.slice(-20))}`);
  } finally {
    abort.abort();
  }
  return seen;
}

/** Reads on to the end; the number of batches. */
async function drain(batches: AsyncIterator<readonly Reading[]>): Promise<number> {
  let count = 0;
  while (!(await batches.next()).done) count++;
  return count;
}

/** The outcome of `work`, or an error when it takes longer than `ms`. */
async function within<T>(ms: number, work: Promise<T>, detail = () => ""): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${ms} ms ${detail()}`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
