import { describe, expect, test } from "vitest";
import type { GapBody, ReadingBody } from "../../../../cloud/api/schemas.ts";
import { changes, extend, lonePoints, seriesOf } from "../../../../cloud/console/page/series.ts";

const good = { severity: "good", code: 0, name: "Good" } as const;
const bad = { severity: "bad", code: 0x800a0000, name: "BadTimeout" } as const;

/** A reading at a second of one minute. */
function at(second: number, value: ReadingBody["value"]): ReadingBody {
  return { time: `${time(second)}`, value, quality: value === null ? bad : good };
}

function time(second: number): string {
  return `2026-03-01T08:00:${second.toFixed(6).padStart(9, "0")}Z`;
}

function gap(from: number, to: number | null): GapBody {
  return {
    edge: "e",
    device: "d",
    tag: null,
    reason: "device_down",
    from: time(from),
    to: to === null ? null : time(to),
    detail: "",
  };
}

const start = Date.parse(time(0)) / 1000;

describe("seriesOf", () => {
  test("a bad reading breaks the line", () => {
    const { values, readings } = seriesOf([at(1, 5), at(2, null), at(3, 6)], []);
    expect(values).toEqual([5, null, 6]);
    expect(readings.map((reading) => reading?.quality.name)).toEqual(["Good", "BadTimeout", "Good"]);
  });

  test("a gap between two readings breaks the line between them", () => {
    const { times, values, readings } = seriesOf([at(1, 5), at(2, 6), at(12, 7), at(13, 8)], [gap(2, 12)]);
    expect(readings[2]).toBeNull();
    expect(values).toEqual([5, 6, null, 7, 8]);
    expect(times.map((second) => second - start)).toEqual([1, 2, 7, 12, 13]);
  });

  test("also when its bounds, by another clock, leave a reading inside", () => {
    expect(seriesOf([at(1, 5), at(2, 6), at(12, 7)], [gap(1.9, 11)]).values).toEqual([5, 6, null, 7]);
    expect(seriesOf([at(1, 5), at(2, 6), at(12, 7)], [gap(2.5, 12.5)]).values).toEqual([5, 6, null, 7]);
  });

  test("and when it is short", () => {
    expect(seriesOf([at(1, 5), at(11, 6)], [gap(2, 3)]).values).toEqual([5, null, 6]);
  });

  test("one break where several gaps overlap; none after the last reading", () => {
    const gaps = [gap(2, 12), gap(3, 11), gap(13, null)];
    expect(seriesOf([at(1, 5), at(2, 6), at(12, 7), at(13, 8)], gaps).values).toEqual([5, 6, null, 7, 8]);
  });

  test("gaps elsewhere change nothing", () => {
    expect(seriesOf([at(10, 5), at(11, 6)], [gap(1, 5), gap(20, null)]).values).toEqual([5, 6]);
  });

  test("booleans are drawn as 0 and 1, texts not at all", () => {
    expect(seriesOf([at(1, true), at(2, false), at(3, "x")], []).values).toEqual([1, 0, null]);
  });

  test("times ascend", () => {
    const { times } = seriesOf([at(1, 1), at(1, 2), at(4, 3)], [gap(1, 4), gap(0, 1)]);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });
});

test("extend replaces what was asked again and keeps the rest", () => {
  const before = [at(1, 1), at(2, 2), at(2, 3)];
  expect(extend(before, [at(2, 2), at(2, 3), at(2, 4), at(3, 5)]).map(({ value }) => value)).toEqual([1, 2, 3, 4, 5]);
  expect(extend(before, [])).toEqual(before);
  expect(extend([], before)).toEqual(before);
});

test("lone points are those between two breaks", () => {
  expect(lonePoints([1, null, 2, null, 3, 4, null, 0])).toEqual([0, 2, 7]);
  expect(lonePoints([])).toEqual([]);
});

test("changes keeps a reading where the value or its status differs from the one before", () => {
  const readings = [at(1, "a"), at(2, "a"), at(3, "b"), at(4, null), at(5, null), at(6, "b")];
  expect(changes(readings).map(({ time }) => time)).toEqual([1, 3, 4, 6].map(time));
});
