import { beforeEach, describe, expect, it } from "vitest";
import { GapLedger } from "../../../edge/gaps.ts";
import { type Gap, type Micros, Quality } from "../../../protocols/reading.ts";

const t0: Micros = 1_780_000_000_000_000;
const s = 1_000_000;
const quiet = 2 * s;
const tags = ["speed", "fault"];

let reported: Gap[];
let ledger: GapLedger;
beforeEach(() => {
  reported = [];
  ledger = new GapLedger("drives", tags, (gap) => reported.push(gap));
});

const device = (reason: Gap["reason"], from: Micros, to: Micros | null, detail = expect.any(String)) => ({
  device: "drives",
  tag: null,
  reason,
  from,
  to,
  detail,
});
const speed = (reason: Gap["reason"], from: Micros, to: Micros | null) => ({
  ...device(reason, from, to),
  tag: "speed",
});
const reading = (time: Micros, quality: number = Quality.Good) => ({
  tag: "speed",
  time,
  value: quality === 0 ? 1 : null,
  quality,
});
/** A batch with one reading of the first tag. */
const batch = (arrival: Micros, quality: number = Quality.Good, time = arrival) => {
  ledger.reading(0, reading(time, quality), arrival);
  ledger.answered(arrival, time, quiet);
};
/** What was reported since the last call. */
const news = () => reported.splice(0);

describe("a start", () => {
  it("with a device that was never read has no gap", () => {
    ledger.resume(undefined, [], t0);
    batch(t0);
    expect(news()).toEqual([]);
    expect(ledger.watermark).toBe(t0);
  });

  it("with a device that does not answer from the beginning opens a gap at the first attempt", () => {
    ledger.resume(undefined, [], t0);
    ledger.lost(t0 + s, "refused");
    ledger.lost(t0 + 2 * s, "refused");
    expect(news()).toEqual([device("device_down", t0 + s, null, "refused")]);
    batch(t0 + 9 * s);
    expect(news()).toEqual([device("device_down", t0 + s, t0 + 9 * s, "refused")]);
  });

  it("after a run whose device was well: the agent was stopped from the watermark to the first answer", () => {
    ledger.resume(t0, [], t0 + 60 * s);
    expect(news()).toEqual([device("agent_stopped", t0, null)]);
    batch(t0 + 61 * s);
    expect(news()).toEqual([device("agent_stopped", t0, t0 + 61 * s)]);
  });

  it("whose device has gone meanwhile: first the agent was stopped, then the device was down, without a hole between", () => {
    ledger.resume(t0, [], t0 + 60 * s);
    ledger.lost(t0 + 61 * s, "refused");
    batch(t0 + 90 * s);
    expect(news()).toEqual([
      device("agent_stopped", t0, null),
      device("agent_stopped", t0, t0 + 61 * s),
      device("device_down", t0 + 61 * s, null),
      device("device_down", t0 + 61 * s, t0 + 90 * s),
    ]);
  });

  it("with a device gap that is open goes on with it, under its name", () => {
    const open = device("device_down", t0, null, "refused");
    ledger.resume(t0, [open as Gap], t0 + 60 * s);
    ledger.lost(t0 + 61 * s, "timed out");
    expect(news()).toEqual([]);
    batch(t0 + 90 * s);
    expect(news()).toEqual([device("device_down", t0, t0 + 90 * s, "refused")]);
  });

  it("that found the agent stopped, and was itself killed before the device answered, is the same gap", () => {
    ledger.resume(t0, [device("agent_stopped", t0, null, "") as Gap], t0 + 99 * s);
    expect(news()).toEqual([]);
    batch(t0 + 100 * s);
    expect(news()).toEqual([device("agent_stopped", t0, t0 + 100 * s)]);
  });

  it("with a tag gap that is open closes it at the tag's first usable value", () => {
    ledger.resume(undefined, [speed("tag_bad", t0, null) as Gap], t0 + 60 * s);
    batch(t0 + 61 * s, Quality.BadSensorFailure);
    expect(news()).toEqual([]);
    batch(t0 + 62 * s);
    expect(news()).toEqual([speed("tag_bad", t0, t0 + 62 * s)]);
  });

  it("without a tag that had an open gap closes that", () => {
    ledger.resume(t0 + 5 * s, [{ ...speed("tag_bad", t0, null), tag: "gone" } as Gap], t0 + 60 * s);
    expect(news()[0]).toMatchObject({
      tag: "gone",
      from: t0,
      to: t0 + 5 * s,
      detail: expect.stringContaining("removed"),
    });
  });

  it("closes an overflow that the last run left open", () => {
    ledger.resume(t0 + 5 * s, [device("overflow", t0, null, "") as Gap], t0 + 60 * s);
    expect(news()).toEqual([device("overflow", t0, t0 + 5 * s), device("agent_stopped", t0 + 5 * s, null)]);
  });

  it("under a clock that was put back takes the watermark no later than now", () => {
    ledger.resume(t0 + 3600 * s, [], t0);
    expect(ledger.watermark).toBe(t0);
    batch(t0 + s);
    expect(news().at(-1)).toEqual(device("agent_stopped", t0, t0 + s));
  });
});

describe("a device", () => {
  it("is whole until its last reading, or until the quiet time before its last sign of life", () => {
    ledger.resume(undefined, [], t0);
    batch(t0, 0, t0 - 10 * s);
    expect(ledger.watermark).toBe(t0 - quiet);
    ledger.answered(t0 + s, undefined, quiet);
    expect(ledger.watermark).toBe(t0 - s);
    batch(t0 + 2 * s);
    expect(ledger.watermark).toBe(t0 + 2 * s);
    ledger.answered(t0 + 3 * s, undefined, quiet);
    expect(ledger.watermark).toBe(t0 + 2 * s);
  });

  it("whose clock is ahead does not take the watermark along, nor does a clock of ours that was put back", () => {
    batch(t0, 0, t0 + 3600 * s);
    expect(ledger.watermark).toBe(t0);
    batch(t0 - 600 * s);
    expect(ledger.watermark).toBe(t0 - 600 * s);
  });

  it("that is lost and found: a gap from the watermark to the first answer; each one begins after the last", () => {
    batch(t0);
    ledger.lost(t0 + s, "cut");
    ledger.answered(t0 + 1.5 * s, undefined, quiet);
    ledger.lost(t0 + 1.8 * s, "cut again");
    batch(t0 + 9 * s);
    expect(news()).toEqual([
      device("device_down", t0, null),
      device("device_down", t0, t0 + 1.5 * s),
      device("device_down", t0 + 1.5 * s, null),
      device("device_down", t0 + 1.5 * s, t0 + 9 * s),
    ]);
  });

  it("gives whole microseconds, whatever its quiet time", () => {
    ledger.answered(t0, undefined, 333_333.33);
    expect(Number.isInteger(ledger.watermark)).toBe(true);
  });

  it("tells its trouble in a few words", () => {
    ledger.lost(t0, "x".repeat(10_000));
    expect(news()[0]!.detail.length).toBeLessThanOrEqual(500);
  });
});

describe("a tag", () => {
  it("is bad from its last good value to the arrival of the next", () => {
    batch(t0);
    batch(t0 + s, Quality.BadSensorFailure);
    batch(t0 + 2 * s, Quality.BadOutOfRange);
    batch(t0 + 3 * s, Quality.Uncertain);
    expect(news()).toEqual([speed("tag_bad", t0, null), speed("tag_bad", t0, t0 + 3 * s)]);
  });

  it("that seldom changes is whole until the device was last heard of, not only until its last change", () => {
    batch(t0, 0, t0 - 86_400 * s); // the server gives the time of the last change
    ledger.answered(t0 + 60 * s, undefined, quiet);
    batch(t0 + 61 * s, Quality.BadSensorFailure);
    expect(news()).toEqual([speed("tag_bad", t0 + 58 * s, null)]);
    // It comes back with the value, and the time, that it had.
    batch(t0 + 99 * s, 0, t0 - 86_400 * s);
    expect(news()).toEqual([speed("tag_bad", t0 + 58 * s, t0 + 99 * s)]);
    batch(t0 + 99 * s, Quality.BadSensorFailure);
    expect(news()[0]!.from).toBe(t0 + 99 * s);
  });

  it("that was never good is bad from the first time it was seen", () => {
    batch(t0, Quality.BadNodeIdUnknown);
    expect(news()).toEqual([speed("tag_bad", t0, null)]);
  });

  it.each([Quality.BadNoCommunication, Quality.BadNotConnected, Quality.BadTimeout])(
    "behind a dead unit is down, not bad (%i)",
    (quality) => {
      batch(t0);
      batch(t0 + s, quality);
      expect(news()).toEqual([speed("device_down", t0, null)]);
    },
  );

  it("stays bad while its device is lost and found", () => {
    batch(t0, Quality.BadSensorFailure);
    ledger.lost(t0 + s, "cut");
    ledger.answered(t0 + 5 * s, undefined, quiet);
    news();
    batch(t0 + 6 * s);
    expect(news()).toEqual([speed("tag_bad", t0, t0 + 6 * s)]);
  });
});

describe("an overflow", () => {
  it("is one gap for as long as it goes on, and ends where it was last heard of", () => {
    batch(t0);
    ledger.overflowed("speed", t0 + s, "queue of 10");
    expect(news()).toEqual([speed("overflow", t0, null)]);
    for (let n = 2; n < 30; n++) {
      ledger.overflowed("speed", t0 + n * s, "queue of 10");
      batch(t0 + n * s);
    }
    expect(news()).toEqual([]);
    batch(t0 + 38 * s);
    expect(news()).toEqual([]);
    batch(t0 + 39 * s);
    expect(news()).toEqual([speed("overflow", t0, t0 + 29 * s)]);
  });

  it("after another is a gap of its own, from its own beginning", () => {
    batch(t0);
    ledger.overflowed(null, t0 + s, "a");
    batch(t0 + 20 * s);
    ledger.overflowed(null, t0 + 21 * s, "b");
    batch(t0 + 40 * s);
    expect(news()).toEqual([
      device("overflow", t0, null),
      device("overflow", t0, t0 + s),
      device("overflow", t0 + 20 * s, null),
      device("overflow", t0 + 20 * s, t0 + 21 * s),
    ]);
  });

  it("ends when the device is lost", () => {
    batch(t0);
    ledger.overflowed("fault", t0 + s, "a");
    ledger.lost(t0 + 2 * s, "cut");
    expect(news().slice(1)).toEqual([
      { ...device("overflow", t0, t0 + s), tag: "fault" },
      device("device_down", t0, null),
    ]);
  });
});

it("a full buffer is a gap that is reported when it is over", () => {
  ledger.blocked(t0, t0 + 5 * s);
  expect(news()).toEqual([device("buffer_full", t0, t0 + 5 * s)]);
});

it("no two gaps of one tag and reason begin at the same time, however a device behaves", () => {
  const begun = new Set<string>();
  let state = 12345;
  const random = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32;
  };
  let time = t0;
  for (let step = 0; step < 20_000; step++) {
    time += 1 + Math.floor(random() * 3 * s);
    const what = random();
    if (what < 0.2) ledger.lost(time, "cut");
    else if (what < 0.4) ledger.answered(time, undefined, quiet);
    else batch(time, what < 0.7 ? Quality.Good : Quality.BadSensorFailure, time - Math.floor(random() * 5) * s);
    for (const { tag, reason, from, to } of news()) {
      if (to !== null) expect(to).toBeGreaterThanOrEqual(from);
      const key = `${tag} ${reason} ${from}`;
      if (to === null) expect(begun.has(key), key).toBe(false);
      begun.add(key);
      expect(from).toBeLessThanOrEqual(time);
    }
  }
  expect(begun.size).toBeGreaterThan(1000);
});
