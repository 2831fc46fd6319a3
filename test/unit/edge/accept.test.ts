import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { accept, maxTextLength } from "../../../edge/accept.ts";
import { isBad, Quality, type Value } from "../../../protocols/reading.ts";
import { timeRange } from "../../../protocols/uplink/columns.ts";
import { openEnvelope, packContent, sealFrame, unpackContent } from "../../../protocols/uplink/envelope.ts";
import { RowKind } from "../../../protocols/uplink/frame.ts";

const arrival = 1_780_000_000_000_000;
const good = { tag: "t", time: arrival - 5, value: 1.5 as Value, quality: 0 };
const given = (change: object) => accept({ ...good, ...change }, arrival);

describe("a driver's reading", () => {
  it("that is in order is taken as it is", () => {
    for (const value of [0, -1.5, 2 ** 60, true, false, "", "µ°C", null]) {
      const reading = { ...good, value };
      expect(accept(reading, arrival)).toBe(reading);
    }
  });

  it.each([
    ["before clocks were set", timeRange.from - 1],
    ["1601, as OPC UA says for none", -11_644_473_600_000_000],
    ["later than a frame can carry", timeRange.to],
    ["no number", Number.NaN],
    ["without end", Number.POSITIVE_INFINITY],
    ["missing", undefined],
  ])("with a time %s gets the time of arrival, and is not certain any more", (_, time) => {
    expect(given({ time })).toEqual({ ...good, time: arrival, quality: Quality.Uncertain });
    expect(given({ time, quality: Quality.BadTimeout })).toMatchObject({ time: arrival, quality: Quality.BadTimeout });
  });

  it("with a fraction of a microsecond loses it", () => {
    expect(given({ time: arrival + 0.75 })).toEqual({ ...good, time: arrival });
  });

  it.each([
    ["NaN", Number.NaN],
    ["an infinity", Number.NEGATIVE_INFINITY],
    ["a bigint", 5n],
    ["an object", { value: 5 }],
    ["undefined", undefined],
    ["a text without end", "x".repeat(maxTextLength + 1)],
  ])("with %s for a value is null and bad", (_, value) => {
    expect(given({ value })).toEqual({ ...good, value: null, quality: Quality.BadDecodingError });
    expect(given({ value, quality: Quality.BadSensorFailure })).toMatchObject({ quality: Quality.BadSensorFailure });
  });

  it("that is bad never carries the last good value", () => {
    expect(given({ quality: Quality.BadNotConnected })).toMatchObject({ value: null });
    expect(given({ quality: 0x80000000 | 0 })).toEqual({ ...good, value: null, quality: 0x80000000 });
  });

  it("with half a surrogate pair becomes Unicode", () => {
    expect(given({ value: "a\ud800b" })).toMatchObject({ value: "a\ufffdb" });
  });

  it("whatever it is, can be put into a frame and comes out the same", () => {
    const anything = fc.record({
      time: fc.oneof(fc.double(), fc.integer(), fc.anything()),
      quality: fc.oneof(fc.nat(0xffffffff), fc.integer(), fc.double()),
      value: fc.anything(),
    });
    fc.assert(
      fc.property(anything, fc.constantFrom(arrival, 60_000_000), (odd, clock) => {
        const { time, quality, value } = accept({ tag: "t", ...odd } as never, clock);
        const kind =
          value === null
            ? RowKind.Null
            : { number: RowKind.Number, boolean: RowKind.Boolean, string: RowKind.Text }[typeof value as "number"];
        const columns = {
          count: 1,
          tag: Uint32Array.of(0),
          time: Float64Array.of(time),
          quality: Uint32Array.of(quality),
          kind: Uint8Array.of(kind),
          number: Float64Array.of(typeof value === "string" ? 0 : Number(value)),
          texts: typeof value === "string" ? [value] : [],
        };
        const id = { edge: "e", stream: "00".repeat(16), seq: 1 };
        const { readings } = unpackContent(openEnvelope(sealFrame(id, packContent("00".repeat(16), columns, []))));
        expect(readings).toEqual(columns);
        if (isBad(quality)) expect(value).toBeNull();
      }),
      { numRuns: 2000 },
    );
  });
});
