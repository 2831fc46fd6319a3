import { setTimeout as delay } from "node:timers/promises";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import { type CollectorOptions, DeviceCollector } from "../../../edge/collect.ts";
import { FrameWriter } from "../../../edge/frames.ts";
import type { TagConfig } from "../../../protocols/device.ts";
import type { Driver, DriverContext, Protocol } from "../../../protocols/driver.ts";
import { ConfigError, LinkError } from "../../../protocols/errors.ts";
import { type Gap, now, Quality, type Reading } from "../../../protocols/reading.ts";
import { mapHash, openBuffer, testLog } from "./parts.ts";

const tags: TagConfig[] = [{ name: "speed" }, { name: "fault" }, { name: "force", deadband: 1 }];
const quietMs = 200;

/** What one life of the scripted device does; what it leaves out goes well. */
interface Life {
  connect?(signal: AbortSignal): Promise<void>;
  readings?(signal: AbortSignal, context: DriverContext): AsyncIterable<readonly Reading[]>;
  close?(): Promise<void>;
}

const reading = (tag: string, value: Reading["value"] = 1, quality: number = Quality.Good, time = now()): Reading => ({
  tag,
  time,
  value,
  quality,
});
const never = () => new Promise<never>(() => undefined);
const untilAborted = (signal: AbortSignal) => delay(2 ** 30, undefined, { signal }).catch(() => undefined);
/** Well, with a batch every 20 ms. */
async function* well(signal: AbortSignal) {
  while (!signal.aborted) {
    yield [reading("speed"), reading("fault", false)];
    await delay(20, undefined, { signal }).catch(() => undefined);
  }
}

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

/** A collector on a device that lives through `lives`, the last one again and again. */
async function collect(
  lives: readonly Life[],
  options: Partial<CollectorOptions> & { whenFull?: "stop_collecting" } = {},
) {
  const { buffer } = await openBuffer({
    whenFull: options.whenFull,
    maxBytes: options.whenFull ? 1024 * 1024 : undefined,
  });
  const { log, said } = testLog();
  const writer = new FrameWriter({
    buffer,
    limits: { maxReadings: 1000, lingerMs: 5 },
    mapHash,
    deviceOf: ["other", "press", "press", "press"],
    losses: [],
    log,
    appended: () => undefined,
  });
  const begun: number[] = [];
  const closed: number[] = [];
  const protocol: Protocol<never> = {
    driver(_device, context): Driver {
      const life = lives[Math.min(begun.length, lives.length - 1)]!;
      const number = begun.push(performance.now());
      return {
        quietMs,
        connect: async (signal) => life.connect?.(signal),
        readings: (signal) => life.readings?.(signal, context) ?? well(signal),
        close: async () => {
          closed.push(number);
          await life.close?.();
        },
      };
    },
  };
  const collector = new DeviceCollector({
    device: { name: "press", protocol: "scripted", tags },
    protocol,
    firstTag: 1,
    writer,
    backoff: { firstMs: 20, longestMs: 100 },
    watermark: undefined,
    openGaps: [],
    log,
    connectTimeoutMs: 200,
    letGoMs: 100,
    ...options,
  });
  const stopping = new AbortController();
  writer.start();
  const run = collector.run(stopping.signal);
  let stopped = false;
  /** Stops it; resolves with how long that took. */
  const stop = async () => {
    const began = performance.now();
    stopping.abort();
    await run;
    const tookMs = performance.now() - began;
    if (!stopped) await writer.close();
    stopped = true;
    return tookMs;
  };
  stops.push(async () => {
    await stop();
  });
  return { buffer, writer, collector, said, begun, closed, stop, run };
}

const gapOf = (reason: Gap["reason"], from: number, to: number | null) =>
  expect.objectContaining({ device: "press", tag: null, reason, from, to });
const up = (collector: DeviceCollector) =>
  expect.poll(() => collector.state, { timeout: 5000, interval: 5 }).toBe("up");

describe("a device that is well", () => {
  it("has its readings in frames, under their numbers in the device map, and its watermark with them", async () => {
    let batch: Reading[] = [];
    const { buffer, collector, said, stop } = await collect([
      {
        async *readings(signal) {
          batch = [reading("speed", 5), reading("fault", true), reading("force", 7), reading("force", 7.5)];
          yield batch;
          await untilAborted(signal);
        },
      },
    ]);
    await up(collector);
    await stop();
    expect((await buffer.rows()).map(({ tag, value }) => [tag, value])).toEqual([
      [1, 5],
      [2, true],
      [3, 7],
    ]);
    expect(collector).toMatchObject({ readings: 4, reported: 3 });
    expect(buffer.appended[0]!.watermarks.get("press")).toBe(batch[3]!.time);
    expect(await buffer.gaps()).toEqual([]);
    expect(said).toEqual(["info the device answers"]);
  });

  it("is closed once when the agent stops, and stops at once", async () => {
    const { closed, collector, stop } = await collect([{}]);
    await up(collector);
    expect(await stop()).toBeLessThan(80);
    expect(closed).toEqual([1]);
  });
});

describe("a device that is lost", () => {
  const dies: Life = {
    async *readings() {
      yield [reading("speed"), reading("fault", false), reading("force", 5)];
      throw new LinkError("the cable is cut");
    },
  };

  it("gives each tag one bad reading without a value, and one gap from the last reading to the first new one", async () => {
    const refuses: Life = { connect: () => Promise.reject(new LinkError("connection refused")) };
    const { buffer, collector, stop } = await collect([dies, refuses, refuses, refuses, {}]);
    await expect.poll(() => collector.state, { interval: 5 }).toBe("down");
    await up(collector);
    const foundAt = now();
    await stop();
    const rows = await buffer.rows();
    const bad = rows.filter(({ quality }) => quality !== Quality.Good);
    expect(bad.map(({ tag, value, quality }) => [tag, value, quality])).toEqual(
      [1, 2, 3].map((tag) => [tag, null, Quality.BadNoCommunication]),
    );
    const lastGood = rows[0]!.time;
    const gaps = await buffer.gaps();
    expect(gaps).toEqual([gapOf("device_down", lastGood, null), gapOf("device_down", lastGood, expect.any(Number))]);
    const firstNew = rows.find(({ tag, time, quality }) => tag === 1 && quality === 0 && time > bad[0]!.time)!.time;
    expect(gaps[1]!.to).toBeGreaterThanOrEqual(firstNew);
    expect(gaps[1]!.to).toBeLessThanOrEqual(foundAt);
    expect(gaps[0]!.detail).toBe("the cable is cut");
  });

  it("is tried again with a growing pause, not in step with others, up to the longest", async () => {
    const { begun, stop } = await collect([{ connect: () => Promise.reject(new LinkError("refused")) }]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBeGreaterThan(7);
    await stop();
    const pauses = begun.slice(1).map((at, n) => at - begun[n]!);
    for (const [n, pause] of pauses.entries()) {
      const nominal = Math.min(20 * 2 ** n, 100);
      expect(pause).toBeGreaterThan(nominal * 0.75 - 3);
    }
    expect(pauses.slice(3).some((pause) => Math.abs(pause - 100) > 1)).toBe(true);
  });

  it("is tried seldom when a person has to mend something", async () => {
    const { begun, collector, stop } = await collect([
      { connect: () => Promise.reject(new ConfigError("the password is wrong")) },
    ]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBe(2);
    await stop();
    expect(begun[1]! - begun[0]!).toBeGreaterThan(72);
    expect(collector.state).toBe("down");
  });

  it("is said in the log once for each cause, and when it is over", async () => {
    const refuses = (message: string): Life => ({ connect: () => Promise.reject(new LinkError(message)) });
    const { said, collector } = await collect([
      refuses("refused"),
      refuses("refused"),
      refuses("no route"),
      refuses("no route"),
      {},
    ]);
    await up(collector);
    expect(said).toEqual([
      "warn the device is lost and will be tried again: refused",
      "warn the device is lost and will be tried again: no route",
      "info the device answers again",
    ]);
  });

  it("stays lost without another bad reading when it comes up and dies without a word", async () => {
    const mute: Life = {
      // biome-ignore lint/correctness/useYield: it dies before its first batch
      async *readings() {
        throw new LinkError("reset");
      },
    };
    const { buffer, begun, stop } = await collect([dies, mute, mute, mute]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBeGreaterThan(4);
    await stop();
    expect((await buffer.rows()).filter(({ quality }) => quality !== Quality.Good)).toHaveLength(3);
    expect(await buffer.gaps()).toHaveLength(1);
  });

  it("does not keep the agent from stopping while it waits to try again", async () => {
    const { collector, stop } = await collect([dies, { connect: never }], {
      backoff: { firstMs: 60_000, longestMs: 60_000 },
    });
    await expect.poll(() => collector.state, { interval: 5 }).toBe("down");
    expect(await stop()).toBeLessThan(80);
  });
});

describe("a link that looks open", () => {
  it("is given up when the device has been silent three times as long as it may be", async () => {
    const mute: Life = {
      async *readings(signal) {
        yield [reading("speed")];
        await untilAborted(signal);
      },
    };
    const { said, begun, closed } = await collect([mute, {}]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBe(2);
    expect(begun[1]! - begun[0]!).toBeGreaterThan(3 * quietMs);
    expect(begun[1]! - begun[0]!).toBeLessThan(3 * quietMs + 2 * quietMs + 300);
    expect(said[1]).toMatch(/silent for/);
    expect(closed).toEqual([1]);
  });

  it("is kept for as long as the device shows signs of life, though it has nothing new", async () => {
    const quiet: Life = {
      async *readings(signal) {
        while (!signal.aborted) {
          yield [];
          await delay(quietMs / 2, undefined, { signal }).catch(() => undefined);
        }
      },
    };
    const { begun, collector } = await collect([quiet]);
    await delay(quietMs * 5);
    expect(begun).toHaveLength(1);
    expect(collector.state).toBe("up");
  });
});

describe("a driver at fault", () => {
  it("that connects for ever is given up in time", async () => {
    const { said, begun, closed, collector } = await collect([{ connect: never }, {}]);
    await up(collector);
    expect(said[0]).toMatch(/no connection within 0.2 s/);
    expect(begun[1]! - begun[0]!).toBeGreaterThan(190);
    expect(closed).toEqual([1]);
  });

  it("that obeys the time limit for connecting is told apart from a stop", async () => {
    const obeys: Life = {
      connect: (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
    };
    const { said, collector } = await collect([obeys, {}]);
    await up(collector);
    expect(said[0]).toMatch(/no connection within 0.2 s/);
  });

  it("that throws what it should not is retried like a lost link", async () => {
    const { said, collector } = await collect([
      {
        connect: () => {
          throw new TypeError("undefined is no function");
        },
      },
      {
        async *readings() {
          yield null as never;
        },
      },
      {
        readings: () => {
          throw "a string";
        },
      },
      {},
    ]);
    await up(collector);
    expect(said).toEqual([
      expect.stringContaining("undefined is no function"),
      "info the device answers again",
      expect.stringMatching(/lost.*iterable/),
      expect.stringContaining("a string"),
      "info the device answers again",
    ]);
  });

  it("whose close hangs is left to itself, and its device is tried again", async () => {
    const hangs: Life = {
      async *readings() {
        yield [reading("speed")];
        throw new LinkError("cut");
      },
      close: never,
    };
    const { said, begun, stop } = await collect([hangs, hangs, {}]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBe(3);
    expect(said).toContainEqual(expect.stringMatching(/^error the driver cannot be closed and is left to itself/));
    expect(await stop()).toBeLessThan(300);
  });

  it("whose close throws does no harm", async () => {
    const { begun } = await collect([
      {
        connect: () => Promise.reject(new LinkError("refused")),
        close: () => Promise.reject(new Error("closed twice")),
      },
      {},
    ]);
    await expect.poll(() => begun.length).toBe(2);
  });

  it("that does not end when it is asked to holds up neither the reconnecting nor the agent's stop, and is not heard again", async () => {
    const late = Promise.withResolvers<void>();
    const deaf: Life = {
      async *readings(_signal, context) {
        yield [reading("speed", 1)];
        await late.promise;
        context.overflow(null, "too late");
        yield [reading("speed", 666)];
      },
    };
    const { buffer, collector, begun, stop } = await collect([deaf, {}]);
    await expect.poll(() => begun.length, { timeout: 5000 }).toBe(2);
    await up(collector);
    late.resolve();
    await delay(50);
    await stop();
    const rows = await buffer.rows();
    expect(rows.map(({ value }) => value)).not.toContain(666);
    expect((await buffer.gaps()).map(({ reason }) => reason)).not.toContain("overflow");
  });

  it("that never lets go is left when the agent stops", async () => {
    const { collector, stop } = await collect([
      {
        async *readings() {
          yield [reading("speed")];
          await never();
        },
        close: never,
      },
    ]);
    await up(collector);
    expect(await stop()).toBeLessThan(400);
  });

  it("that gives a tag nobody knows loses that reading and no other, and is told of once", async () => {
    const { buffer, said, collector, stop } = await collect([
      {
        async *readings(signal, context) {
          yield [reading("speed", 1), reading("spead", 2), reading("fault", false)];
          yield [reading("spead", 2), reading("speed", 3)];
          context.overflow("spead", "dropped");
          await untilAborted(signal);
        },
      },
    ]);
    await expect.poll(() => collector.readings).toBe(5);
    await stop();
    expect((await buffer.rows()).map(({ tag, value }) => [tag, value])).toEqual([
      [1, 1],
      [1, 3],
      [2, false],
    ]);
    expect(said.filter((line) => line.startsWith("error"))).toHaveLength(1);
    expect(collector.state).toBe("up");
  });

  it("that gives impossible times and values does not stop the frames", async () => {
    const { buffer, collector, stop } = await collect([
      {
        async *readings(signal) {
          yield [
            reading("speed", Number.NaN),
            reading("force", Number.NaN),
            reading("fault", true, 0, Number.NaN),
            reading("speed", 1, 0, 1e18),
            reading("speed", 1, 0, now() + 0.5),
          ];
          await untilAborted(signal);
        },
      },
    ]);
    await up(collector);
    await stop();
    const rows = await buffer.rows();
    expect(rows).toHaveLength(5);
    for (const { time } of rows) expect(Math.abs(time - now())).toBeLessThan(10_000_000);
    expect(rows.filter(({ quality }) => quality === Quality.BadDecodingError).map(({ tag }) => tag)).toEqual([1, 3]);
    expect((await buffer.gaps()).map(({ tag, reason }) => [tag, reason])).toEqual([
      ["speed", "tag_bad"],
      ["force", "tag_bad"],
      ["speed", "tag_bad"],
    ]);
  });
});

describe("values that were lost on the way", () => {
  it("are a gap of their tag", async () => {
    const { buffer, collector, stop } = await collect([
      {
        async *readings(signal, context) {
          yield [reading("speed")];
          context.overflow("speed", "the queue of 10 was full");
          yield [reading("speed")];
          await untilAborted(signal);
        },
      },
    ]);
    await expect.poll(() => collector.readings).toBe(2);
    await stop();
    expect(await buffer.gaps()).toEqual([
      expect.objectContaining({ tag: "speed", reason: "overflow", detail: "the queue of 10 was full" }),
    ]);
  });
});

describe("a buffer that takes nothing", () => {
  it("makes the device wait without taking it for lost, and is a gap", async () => {
    const { buffer, writer, collector, begun, said, stop } = await collect([
      {
        async *readings(signal) {
          for (let n = 0; !signal.aborted; n++) {
            yield Array.from({ length: 1000 }, () => reading("speed", n));
            await delay(20, undefined, { signal }).catch(() => undefined);
          }
        },
      },
    ]);
    await up(collector);
    buffer.refusing = true;
    await expect.poll(() => writer.blocked, { timeout: 5000 }).toBe(true);
    const { readings } = collector;
    await delay(quietMs * 4);
    expect(collector.readings).toBeLessThanOrEqual(readings + 1000);
    expect(begun).toHaveLength(1);
    buffer.refusing = false;
    await expect.poll(() => collector.readings, { timeout: 5000 }).toBeGreaterThan(readings + 2000);
    await stop();
    const gaps = await buffer.gaps();
    expect(gaps).toEqual([gapOf("buffer_full", expect.any(Number), expect.any(Number))]);
    expect(gaps[0]!.to! - gaps[0]!.from).toBeGreaterThan(quietMs * 4 * 1000);
    // What was taken before is there.
    expect((await buffer.rows()).length).toBe(collector.readings);
    expect(said).not.toContainEqual(expect.stringContaining("silent"));
    expect(collector.state).toBe("up");
  });

  it("does not keep the agent from stopping", async () => {
    const { buffer, writer, collector, stop } = await collect([
      {
        async *readings(signal) {
          while (!signal.aborted) yield Array.from({ length: 1000 }, () => reading("speed"));
        },
      },
    ]);
    await up(collector);
    buffer.refusing = true;
    await expect.poll(() => writer.blocked, { timeout: 5000 }).toBe(true);
    await delay(20);
    expect(await stop()).toBeLessThan(150);
  });
});

describe("a restart", () => {
  it("tells from when to when the agent was stopped", async () => {
    const watermark = now() - 60_000_000;
    const { buffer, collector, stop } = await collect([{}], { watermark });
    await up(collector);
    await stop();
    const gaps = await buffer.gaps();
    expect(gaps).toEqual([
      gapOf("agent_stopped", watermark, null),
      gapOf("agent_stopped", watermark, expect.any(Number)),
    ]);
    expect(gaps[1]!.to).toBeGreaterThan(now() - 10_000_000);
  });
});

it("leaves no timer and no listener behind", async () => {
  const stopping = new AbortController();
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on("warning", warn);
  onTestFinished(() => void process.off("warning", warn));
  const before = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const { begun, stop } = await collect(
    [
      {
        async *readings() {
          yield [reading("speed")];
        },
      },
    ],
    { backoff: { firstMs: 1, longestMs: 1 } },
  );
  await expect.poll(() => begun.length, { timeout: 5000 }).toBeGreaterThan(30);
  await stop();
  stopping.abort();
  await expect
    .poll(() => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length)
    .toBeLessThanOrEqual(before + 1);
  expect(warnings.filter(({ name }) => name === "MaxListenersExceededWarning")).toEqual([]);
});

describe("a value that has not changed over an interruption", () => {
  const old = now() - 60_000_000;
  const unchanged = {
    async *readings(signal: AbortSignal) {
      yield [reading("speed", 5, Quality.Good, old)];
      if (!signal.aborted) throw new LinkError("the line is cut");
    },
  };
  const steady = {
    async *readings(signal: AbortSignal) {
      yield [reading("speed", 5, Quality.Good, old), reading("fault", true, Quality.Good, old)];
      yield [reading("speed", 6, Quality.Good, old + 1)];
      await untilAborted(signal);
    },
  };

  it("is one of the time at which the device says it again, behind the bad reading, and there once", async () => {
    const { buffer, collector, begun, stop } = await collect([unchanged, steady]);
    await expect.poll(() => begun.length, { timeout: 5000, interval: 5 }).toBe(2);
    await up(collector);
    await stop();
    const speed = (await buffer.rows()).filter(({ tag }) => tag === 1);
    expect(speed.map(({ value }) => value)).toEqual([5, null, 5, 6]);
    const [first, lost, again, later] = speed.map(({ time }) => time);
    expect(first, "the device's own time, at first").toBe(old);
    expect(again).toBeGreaterThan(lost!);
    expect(later, "and its own again afterwards").toBe(old + 1);
  });

  it("is treated so after a restart of the agent too", async () => {
    const { buffer, collector, stop } = await collect([steady], { watermark: old + 10_000_000 });
    const began = now();
    await up(collector);
    await stop();
    const rows = await buffer.rows();
    expect(rows.find(({ tag }) => tag === 2)!.time).toBeGreaterThan(began - 5_000_000);
    expect(rows.filter(({ tag, time }) => tag === 1 && time === old)).toEqual([]);
  });
});

describe("a device whose clock is ahead of the edge's", () => {
  const ahead = now() + 3_600_000_000;
  const life = (value: number, time: number, cut: boolean) => ({
    async *readings(signal: AbortSignal) {
      yield [reading("speed", value, Quality.Good, time)];
      if (cut) throw new LinkError("the line is cut");
      await untilAborted(signal);
    },
  });

  it("has an unchanged value once under the device's time, and a changed one under its own", async () => {
    const { buffer, begun, collector, stop } = await collect([
      life(7, ahead, true),
      life(7, ahead, true),
      life(8, ahead + 5, false),
    ]);
    await expect.poll(() => begun.length, { timeout: 5000, interval: 5 }).toBe(3);
    await up(collector);
    await stop();
    const good = (await buffer.rows()).filter(({ tag, value }) => tag === 1 && value !== null);
    expect(good.filter(({ time }) => time === ahead)).toHaveLength(1);
    expect(good.at(-1)).toMatchObject({ value: 8, time: ahead + 5 });
  });
});
