import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { linear } from "../../../../protocols/modbus/scale.ts";

describe("raw × scale + offset", () => {
  it.each([
    [453, 0.1, 0, 45.3],
    [16896, 0.1, 0, 1689.6],
    [453, 0.1, -40, 5.3],
    [-3, 0.1, 0, -0.3],
    [7, 0.05, 0.1, 0.45],
    [123456, 1e-7, 0, 0.0123456],
    [3, 1000, 0.5, 3000.5],
    [2, 0.25, 0, 0.5],
  ])("%d × %d + %d is %d", (raw, scale, offset, expected) => {
    expect(linear(scale, offset)(raw)).toBe(expected);
  });

  it("is plain arithmetic where the raw number is no whole one, or too large to be multiplied exactly", () => {
    expect(linear(0.1, 2)(1.5)).toBe(1.5 * 0.1 + 2);
    expect(linear(0.3, 0)(2 ** 53)).toBe(2 ** 53 * 0.3);
    expect(linear(1 / 3, 0)(5)).toBe(5 * (1 / 3));
    expect(linear(1, 0)(2 ** 60)).toBe(2 ** 60);
    expect(linear(0.1, 0)(Number.MAX_VALUE)).toBe(Number.MAX_VALUE * 0.1);
  });

  it("gives the decimal that a person would write, for every register of 16 bits and scale of a few places", () => {
    fc.assert(
      fc.property(fc.integer({ min: -32768, max: 65535 }), fc.integer({ min: 1, max: 6 }), (raw, places) => {
        const digits = String(Math.abs(raw)).padStart(places + 1, "0");
        const written = `${raw < 0 ? "-" : ""}${digits.slice(0, -places)}.${digits.slice(-places)}`;
        expect(linear(Number(`1e-${places}`), 0)(raw)).toBe(raw === 0 ? 0 : Number(written));
      }),
    );
  });
});
