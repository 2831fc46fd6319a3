import fc from "fast-check";
import { expect, it } from "vitest";
import { parseTimestamp, timestampText } from "../../../../cloud/store/timestamp.ts";
import { DataError } from "../../../../protocols/errors.ts";

it("writes times as PostgreSQL reads them", () => {
  expect(timestampText(0)).toBe("1970-01-01T00:00:00.000000Z");
  expect(timestampText(-1)).toBe("1969-12-31T23:59:59.999999Z");
  expect(timestampText(1_777_636_800_000_042)).toBe("2026-05-01T12:00:00.000042Z");
});

it("reads times as PostgreSQL writes them", () => {
  expect(parseTimestamp("1970-01-01 00:00:00+00")).toBe(0);
  expect(parseTimestamp("1969-12-31 23:59:59.999999+00")).toBe(-1);
  expect(parseTimestamp("2026-05-01 12:00:00.5+00")).toBe(1_777_636_800_500_000);
});

it("loses no microsecond on the way and back", () => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), (time) => {
      const asPostgresWrites = timestampText(time)
        .replace("T", " ")
        .replace(/\.?0*Z$/, "+00");
      expect(parseTimestamp(asPostgresWrites)).toBe(time);
    }),
  );
});

it.each([Number.NaN, 0.5, 2 ** 53, Number.POSITIVE_INFINITY])("refuses %s, which is no time", (time) => {
  expect(() => timestampText(time)).toThrow(DataError);
});
