import { describe, expect, test } from "vitest";
import type { EdgeBody, GapBody, TagBody } from "../../../../cloud/api/schemas.ts";
import { formatAge, formatValue } from "../../../../cloud/console/page/format.ts";
import { isTrouble, stateOf } from "../../../../cloud/console/page/state.ts";

const nowMs = Date.parse("2026-03-01T08:00:00Z");
const ago = (seconds: number) => new Date(nowMs - seconds * 1000).toISOString();

function tag(seconds: number | null, quality = { severity: "good", code: 0, name: "Good" } as const): TagBody {
  const latest = seconds === null ? null : { time: ago(seconds), value: 1, quality };
  const rest = { kind: "number", description: null, unit: null, equipment: null, range: null };
  return { tag: "e.d.t", edge: "e", device: "d", name: "t", latest, ...rest };
}

function edge(seconds: number | null): EdgeBody {
  const last_frame_at = seconds === null ? null : ago(seconds);
  return { edge: "e", site: null, first_seen: ago(9999), last_frame_at, frames: 1, whole: true, streams: [] };
}

function gap(over: Partial<GapBody>): GapBody {
  return { edge: "e", device: "d", tag: null, reason: "device_down", from: ago(30), to: null, detail: "", ...over };
}

describe("stateOf", () => {
  test("a good reading is shown, however old, while its edge delivers", () => {
    expect(stateOf(tag(1), [], edge(1), nowMs).kind).toBe("good");
    expect(stateOf(tag(7200), [], edge(1), nowMs).kind).toBe("good");
  });

  test("a bad reading says so by the name of its status", () => {
    const failed = { severity: "bad", code: 0x808c0000, name: "BadSensorFailure" } as never;
    expect(stateOf(tag(1, failed), [], edge(1), nowMs)).toEqual({ kind: "bad", label: "BadSensorFailure" });
  });

  test("an open gap of the device or the tag hides the value, even from a device whose clock is ahead", () => {
    for (const seconds of [31, -5]) {
      expect(stateOf(tag(seconds), [gap({})], edge(1), nowMs).kind).toBe("gap");
      expect(stateOf(tag(seconds), [gap({ tag: "t", reason: "tag_bad" })], edge(1), nowMs).kind).toBe("gap");
    }
  });

  test.each([
    gap({ to: ago(5) }),
    gap({ tag: "other" }),
    gap({ device: "other" }),
    gap({ edge: "other" }),
    gap({ reason: "overflow" }),
    gap({ reason: "buffer_full" }),
  ])("a gap that has ended, is another's, or lost only some values does not: %j", (other) => {
    expect(stateOf(tag(1), [other], edge(1), nowMs).kind).toBe("good");
  });

  test("an old reading of an edge that is silent is not shown as the value now", () => {
    expect(stateOf(tag(61), [], edge(61), nowMs).kind).toBe("silent");
    expect(stateOf(tag(5), [], edge(61), nowMs).kind).toBe("good");
  });

  test("before the first reading there is none, and that is no trouble", () => {
    const state = stateOf(tag(null), [], edge(null), nowMs);
    expect(state.kind).toBe("none");
    expect(isTrouble(state)).toBe(false);
  });
});

test.each([
  [71.25000190734863, null, "71.25"],
  [71.2, [0, 200], "71.20"],
  [0.123456789, [0, 1], "0.1235"],
  [123456, null, "123456"],
  [1234.5678, null, "1234.6"],
  [1e20, null, "1.000000e+20"],
  [0.00001234, null, "1.2340e-5"],
  [-0, null, "0"],
  [true, null, "on"],
  [false, null, "off"],
  ["B-7", null, "B-7"],
  ["", null, "(empty)"],
  [null, null, "—"],
])("formatValue(%j, %j) is %j", (value, range, text) => {
  expect(formatValue(value, range as number[] | null)).toBe(text);
});

test.each([
  [0, "0 s"],
  [-1.4, "0 s"],
  [59.9, "59 s"],
  [60, "1 min"],
  [200, "3 min 20 s"],
  [3600, "1 h"],
  [7260, "2 h 1 min"],
  [187_200, "2 d 4 h"],
  [-180, "3 min ahead"],
])("formatAge(%d) is %j", (seconds, text) => {
  expect(formatAge(seconds)).toBe(text);
});
