import { afterEach, describe, expect, it, vi } from "vitest";
import { FrameWriter } from "../../../edge/frames.ts";
import { type Gap, Quality, type Value } from "../../../protocols/reading.ts";
import { mapHash, openBuffer, type TestBuffer, testLog } from "./parts.ts";

const t0 = 1_780_000_000_000_000;
const s = 1_000_000;
const writers: FrameWriter[] = [];
afterEach(async () => {
  vi.useRealTimers();
  for (const writer of writers.splice(0)) await writer.close();
});

interface Wish {
  maxReadings?: number;
  lingerMs?: number;
  losses?: readonly Gap[];
}

async function start(wish: Wish = {}, buffer?: TestBuffer) {
  const opened = buffer ?? (await openBuffer()).buffer;
  const { log, said } = testLog();
  const notified = vi.fn();
  const writer = new FrameWriter({
    buffer: opened,
    limits: { maxReadings: wish.maxReadings ?? 1000, lingerMs: wish.lingerMs ?? 5 },
    mapHash,
    deviceOf: ["press", "press", "press", "oven"],
    losses: wish.losses ?? [],
    log,
    appended: notified,
  });
  writers.push(writer);
  writer.start();
  const add = (tag: number, value: Value, time = t0) =>
    writer.add(tag, { tag: "", time, value, quality: Quality.Good });
  return { buffer: opened, writer, add, said, notified };
}

const gap = (change: Partial<Gap> = {}): Gap => ({
  device: "press",
  tag: null,
  reason: "device_down",
  from: t0,
  to: null,
  detail: "cut",
  ...change,
});
const whenAppended = (buffer: TestBuffer, frames: number) =>
  expect.poll(() => buffer.appended.length, { timeout: 5000 }).toBe(frames);

describe("a frame", () => {
  it("groups by tag, and keeps each tag's readings in order of arrival, texts in their rows", async () => {
    const { buffer, writer, add } = await start({ lingerMs: 60_000 });
    const given: [tag: number, value: Value][] = [
      [2, "c1"],
      [0, 1],
      [1, "b1"],
      [2, "c2"],
      [0, true],
      [1, "b2"],
      [0, null],
      [2, 7],
      [1, "b1"],
      [0, "a1"],
      [3, false],
    ];
    given.forEach(([tag, value], n) => {
      add(tag, value, t0 + (n % 3) * s);
    });
    await writer.close();
    const rows = await buffer.rows();
    expect(rows.map(({ tag, value }) => [tag, value])).toEqual(
      [0, 1, 2, 3].flatMap((tag) => given.filter((one) => one[0] === tag)),
    );
    expect(rows.map(({ time }) => time)).toEqual(
      [0, 1, 2, 3].flatMap((tag) => given.flatMap((one, n) => (one[0] === tag ? [t0 + (n % 3) * s] : []))),
    );
  });

  it("is closed when its first reading has waited for the linger", async () => {
    const { buffer, add } = await start({ lingerMs: 40 });
    const began = performance.now();
    add(0, 1);
    await whenAppended(buffer, 1);
    expect(performance.now() - began).toBeGreaterThanOrEqual(39);
    add(0, 2);
    await whenAppended(buffer, 2);
  });

  it("is closed when it holds the most readings, in the midst of a batch", async () => {
    const { buffer, writer, add } = await start({ lingerMs: 60_000, maxReadings: 3 });
    for (let n = 0; n < 8; n++) add(n % 4, n);
    await writer.close();
    expect((await buffer.contents()).map(({ rows }) => rows.length)).toEqual([3, 3, 2]);
  });

  it("is closed when its texts grow long, before the cloud would refuse it", async () => {
    const { buffer, writer, add } = await start({ lingerMs: 60_000, maxReadings: 65_536 });
    const text = (n: number) => `${n}${"µ".repeat(200_000)}`;
    for (let n = 0; n < 20; n++) add(0, text(n));
    await writer.close();
    const contents = await buffer.contents(); // which refuses content above its bound
    expect(contents.length).toBeGreaterThan(4);
    expect(contents.flatMap(({ rows }) => rows.map(({ value }) => value))).toEqual(
      Array.from({ length: 20 }, (_, n) => text(n)),
    );
  });

  it("is closed when it holds very many gaps", async () => {
    const { buffer, writer } = await start({ lingerMs: 60_000 });
    for (let n = 0; n < 10_000; n++) writer.addGap(gap({ tag: "force", from: t0 + n }));
    await writer.close();
    expect((await buffer.contents()).map(({ gaps }) => gaps.length)).toEqual([4096, 4096, 10_000 - 2 * 4096]);
  });

  it("knows the span of each of its devices", async () => {
    const { buffer, writer, add } = await start();
    add(0, 1, t0 + 5);
    add(3, 1, t0 + 9);
    add(2, 1, t0 + 1);
    await writer.close();
    expect(buffer.appended[0]!.spans).toEqual([
      { device: "press", from: t0 + 1, to: t0 + 5, readings: 2 },
      { device: "oven", from: t0 + 9, to: t0 + 9, readings: 1 },
    ]);
  });

  it("carries the watermarks of the readings it holds, and not of later ones", async () => {
    const { buffer, writer, add } = await start({ lingerMs: 60_000, maxReadings: 2 });
    add(0, 1);
    writer.whole("press", t0);
    add(0, 2);
    add(0, 3);
    writer.whole("press", t0 + 1);
    await writer.close();
    expect(buffer.appended.map(({ watermarks }) => watermarks.get("press"))).toEqual([t0, t0 + 1]);
  });
});

describe("gaps and losses", () => {
  it("make a frame of their own when there are no readings", async () => {
    const { buffer, writer } = await start();
    writer.addGap(gap());
    await whenAppended(buffer, 1);
    expect(await buffer.gaps()).toEqual([gap()]);
  });

  it("of the last run are in the first frame", async () => {
    const loss = gap({ reason: "buffer_full", to: t0 + 5 });
    const { buffer } = await start({ losses: [loss] });
    await whenAppended(buffer, 1);
    expect(await buffer.gaps()).toEqual([loss]);
  });

  it("of a full buffer are in the next frame, though nothing else is to be told, and add up to what is gone", async () => {
    const { buffer } = await openBuffer({ maxBytes: 1024 * 1024 });
    const { writer, add } = await start({ maxReadings: 20_000, lingerMs: 1 }, buffer);
    let added = 0;
    while (buffer.appended.every(({ losses }) => losses.length === 0)) {
      for (let n = 0; n < 20_000; n++) add(n % 4, Math.random(), t0 + added++);
      await writer.ready(new AbortController().signal);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(added).toBeLessThan(5_000_000);
    }
    const lost = async () => (await buffer.gaps()).reduce((sum, { detail }) => sum + Number.parseInt(detail, 10), 0);
    // What the last frame displaced is told by one more.
    await expect.poll(async () => (await buffer.rows()).length + (await lost()), { timeout: 5000 }).toBe(added);
    expect(await lost()).toBeGreaterThan(0);
    await writer.close();
  });
});

describe("a disk in trouble", () => {
  it("delays frames and loses none, keeps their order, says so once, and is asked again", async () => {
    const { buffer, add, writer, said, notified } = await start();
    buffer.refusing = true;
    for (let n = 0; n < 3; n++) {
      add(0, n);
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    await expect.poll(() => writer.trouble).toMatch(/cannot be put on disk.*database or disk is full/);
    expect(notified).not.toHaveBeenCalled();
    await new Promise((resolve) => setTimeout(resolve, 1100)); // one more attempt fails
    buffer.refusing = false;
    await expect
      .poll(async () => (await buffer.rows()).map(({ value }) => value), { timeout: 5000 })
      .toEqual([0, 1, 2]);
    expect(writer.trouble).toBeUndefined();
    expect(said).toEqual([
      expect.stringMatching(/^error a frame cannot be put on disk/),
      "info frames are put on disk again",
    ]);
  });

  it("makes the devices wait once some frames wait, and bounds what is held, whatever is still reported", async () => {
    const { buffer, add, writer } = await start({ maxReadings: 2, lingerMs: 1 });
    buffer.refusing = true;
    for (let n = 0; n < 8; n++) add(0, n);
    expect(writer.blocked).toBe(true);
    let ready = false;
    const waiting = writer.ready(new AbortController().signal).then(() => {
      ready = true;
    });
    // Gaps are still reported meanwhile; they do not become one frame each.
    for (let n = 0; n < 20; n++) {
      writer.addGap(gap({ from: t0 + n }));
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
    expect(ready).toBe(false);
    buffer.refusing = false;
    await waiting;
    await whenAppended(buffer, 5);
    expect((await buffer.contents()).map(({ rows, gaps }) => [rows.length, gaps.length])).toEqual([
      [2, 0],
      [2, 0],
      [2, 0],
      [2, 0],
      [0, 20],
    ]);
  });

  it("does not hold a device that is to stop", async () => {
    const { buffer, add, writer } = await start({ maxReadings: 1 });
    buffer.refusing = true;
    for (let n = 0; n < 4; n++) add(0, n);
    const stopping = new AbortController();
    const waiting = writer.ready(stopping.signal);
    stopping.abort();
    await waiting;
    await writer.ready(AbortSignal.abort());
    expect(writer.blocked).toBe(true);
  });

  it("at the end is tried once more, at once, and then said to have lost what was collected last", async () => {
    const { buffer, add, writer, said } = await start({ maxReadings: 1 });
    buffer.refusing = true;
    for (let n = 0; n < 3; n++) add(0, n);
    await expect.poll(() => writer.trouble).toBeDefined();
    const began = performance.now();
    await writer.close();
    expect(performance.now() - began).toBeLessThan(500);
    expect(said.at(-1)).toBe("error what was collected last could not be put on disk");
  });

  it("that comes back at the end stores nothing behind a frame that was given up: its watermark would cover it", async () => {
    const { buffer, add, writer } = await start({ maxReadings: 1 });
    buffer.refusing = true;
    for (let n = 0; n < 3; n++) {
      add(0, n);
      writer.whole("press", t0 + n);
    }
    const refuse = buffer.append.bind(buffer);
    let attempts = 0;
    buffer.append = (record) => {
      buffer.refusing = ++attempts < 2; // the second frame would succeed
      return refuse(record);
    };
    await writer.close();
    expect(await buffer.rows()).toEqual([]);
  });
});

describe("watermarks", () => {
  it("of a quiet device are saved now and then, and at the end", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { buffer, writer } = await start();
    const mark = vi.spyOn(buffer, "mark");
    writer.whole("press", t0);
    vi.advanceTimersByTime(10_000);
    expect(mark.mock.calls).toEqual([[new Map([["press", t0]])]]);
    vi.advanceTimersByTime(10_000);
    expect(mark).toHaveBeenCalledTimes(1);
    writer.whole("press", t0 + 1);
    await writer.close();
    expect(mark.mock.lastCall).toEqual([new Map([["press", t0 + 1]])]);
  });

  it("are not saved ahead of readings or gaps that are not yet on disk", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { buffer, writer, add } = await start({ lingerMs: 60_000 });
    const mark = vi.spyOn(buffer, "mark");
    add(0, 1);
    writer.whole("press", t0);
    vi.advanceTimersByTime(20_000);
    await writer.close();
    const other = await start({ lingerMs: 60_000 }, buffer);
    other.writer.addGap(gap());
    other.writer.whole("press", t0);
    vi.advanceTimersByTime(20_000);
    await other.writer.close();
    expect(mark).not.toHaveBeenCalled();
  });
});

it("leaves no timer behind when it is closed, even if the last frame brings losses", async () => {
  const { buffer, writer, add } = await start({ lingerMs: 60_000 });
  add(0, 1);
  const append = buffer.append.bind(buffer);
  buffer.append = async (record) => ({ ...(await append(record)), losses: [gap({ to: t0 + 1 })] });
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  await writer.close();
  expect(timers()).toBeLessThan(before);
  writers.length = 0;
});
