import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatTime, parseTime } from "../../../../cloud/api/time.ts";
import { DataError } from "../../../../protocols/errors.ts";

const now = 1_772_352_000_123_456; // 2026-03-01T08:00:00.123456Z

describe("parseTime", () => {
  test.each([
    ["2026-03-01T08:00:00.123456Z", now],
    ["2026-03-01T13:30:00.123456+05:30", now],
    ["2026-03-01T13:30:00.123456 05:30", now],
    ["2026-03-01T00:00:00.123456-08:00", now],
    ["2026-03-01t08:00:00.123456z", now],
    ["2026-03-01T08:00:00Z", now - 123_456],
    ["2026-03-01T08:00:00.1Z", now - 23_456],
    ["1970-01-01T00:00:00.000001Z", 1],
    ["1969-12-31T23:59:59.999999Z", -1],
    ["2024-02-29T00:00:00Z", 1_709_164_800_000_000],
    ["now", now],
    ["-15 min", now - 900_000_000],
    ["-1h", now - 3_600_000_000],
    ["-500 ms", now - 500_000],
  ])("%s", (text, expected) => {
    expect(parseTime(text, now)).toBe(expected);
  });

  test.each([
    "",
    "yesterday",
    "2026-03-01",
    "2026-03-01T08:00:00",
    "2026-03-01T08:00Z",
    "2026-03-01T08:00:00.1234567Z",
    "2026-02-30T08:00:00Z",
    "2025-02-29T08:00:00Z",
    "2026-13-01T08:00:00Z",
    "2026-00-01T08:00:00Z",
    "2026-03-01T24:00:00Z",
    "2026-03-01T08:60:00Z",
    "2026-12-31T23:59:60Z",
    "2026-03-01T08:00:00+24:00",
    "2026-03-01T08:00:00+05:60",
    "0000-01-01T00:00:00Z",
    "1684-12-31T23:59:59Z",
    "2255-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "10000-01-01T00:00:00Z",
    "+010000-01-01T00:00:00Z",
    "-",
    "-1",
    "-1 year",
    "-999999999999 d",
    `-${"9".repeat(400)} d`,
    "1772352000123456",
    "2026-03-01T08:00:00Z\u0000",
    "2026-03-01T08:00:00Z'; DROP TABLE reading; --",
  ])("refuses %j and says what to write", (text) => {
    expect(() => parseTime(text, now)).toThrow(DataError);
    expect(() => parseTime(text, now)).toThrow(/^a(n)? (time|day|offset)/);
  });

  test("a time read back from its text is the same to the microsecond", () => {
    const [first, last] = [parseTime("1685-01-01T00:00:00Z", 0), parseTime("2254-12-31T23:59:59.999999Z", 0)];
    fc.assert(
      fc.property(fc.integer({ min: first, max: last }), (time) => {
        expect(parseTime(formatTime(time), 0)).toBe(time);
      }),
    );
  });

  test("texts sort as times do", () => {
    const times = fc.integer({ min: -1e12, max: 1e12 });
    fc.assert(
      fc.property(times, times, (a, b) => {
        expect(formatTime(a) < formatTime(b)).toBe(a < b);
      }),
    );
  });

  test("any text is either a time or a DataError", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^-?\d{0,6}[-:TZ+. dhmin\d]{0,30}$/)), (text) => {
        try {
          expect(Number.isSafeInteger(parseTime(text, now))).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(DataError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
