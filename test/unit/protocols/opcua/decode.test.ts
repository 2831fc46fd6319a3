import fc from "fast-check";
import { DataType, DataValue, StatusCodes, Variant, VariantArrayType } from "node-opcua-client";
import { describe, expect, it } from "vitest";
import { valueKinds } from "../../../../protocols/device.ts";
import { hasOverflowed, microsOf, statusOf, toReading } from "../../../../protocols/opcua/decode.ts";
import { isBad, Quality } from "../../../../protocols/reading.ts";

const noon = Date.parse("2024-02-29T12:00:00.123Z");
const arrival = 1_700_000_000_000_000;
const double = (value: number) => ({ value: new Variant({ dataType: DataType.Double, value }) });

describe("the time of a reading", () => {
  const timeOf = (options: object) => toReading("t", "any", new DataValue({ ...double(1), ...options }), arrival).time;

  it("is the source's, to the microsecond", () => {
    expect(
      timeOf({ sourceTimestamp: new Date(noon), sourcePicoseconds: 456_900_000, serverTimestamp: new Date(0) }),
    ).toBe(noon * 1000 + 456);
  });
  it("is the server's where the source gives none", () => {
    expect(timeOf({ serverTimestamp: new Date(noon), serverPicoseconds: 1_000_000 })).toBe(noon * 1000 + 1);
    expect(timeOf({ sourceTimestamp: new Date("1601-01-01T00:00:00Z"), serverTimestamp: new Date(noon) })).toBe(
      noon * 1000,
    );
  });
  it("is the arrival's where neither gives one", () => {
    expect(timeOf({})).toBe(arrival);
    expect(timeOf({ sourceTimestamp: new Date(0), serverTimestamp: new Date("9999-12-31T23:59:59Z") })).toBe(arrival);
  });
  it("is never that of an invalid date", () => {
    expect(microsOf(new Date(Number.NaN), 0)).toBeUndefined();
  });
});

describe("a status code as a quality", () => {
  it.each([
    ["Good", 0x0000_0000, 0x0000_0000, false],
    ["Good with an overflow", 0x0000_0480, 0x0000_0000, true],
    ["Uncertain with an overflow", 0x4000_0480, 0x4000_0000, true],
    ["Good, at the high limit", 0x0000_0600, 0x0000_0600, false],
    ["Good, at the high limit, with an overflow", 0x0000_0680, 0x0000_0600, true],
    ["Good, structure and semantics changed", 0x0000_c000, 0x0000_c000, false],
    ["Bad", 0x808c_0000, 0x808c_0000, false],
    ["the overflow bit without its info type", 0x0000_0080, 0x0000_0000, false],
  ])("%s", (_name, code, quality, overflowed) => {
    expect(statusOf(code)).toBe(quality);
    expect(hasOverflowed(code)).toBe(overflowed);
  });
});

describe("a value", () => {
  const read = (options: object, kind: (typeof valueKinds)[number] = "any") =>
    toReading("t", kind, new DataValue(options), arrival);

  it("is null where its status is bad, whatever the server sends with it", () => {
    expect(read({ ...double(42), statusCode: StatusCodes.BadSensorFailure })).toMatchObject({
      value: null,
      quality: Quality.BadSensorFailure,
    });
  });
  it("is kept where its status is uncertain", () => {
    expect(read({ ...double(42), statusCode: StatusCodes.UncertainLastUsableValue })).toMatchObject({
      value: 42,
      quality: Quality.UncertainLastUsableValue,
    });
  });
  it("that is missing is bad, though the server calls it good", () => {
    expect(read({})).toMatchObject({ value: null, quality: Quality.BadWaitingForInitialData });
  });
  it("of another kind than wanted is bad", () => {
    expect(read(double(1), "number").quality).toBe(Quality.Good);
    expect(read(double(1), "text")).toMatchObject({ value: null, quality: 0x8074_0000 });
    expect(read({ value: { dataType: DataType.Boolean, value: true } }, "number").quality).toBe(0x8074_0000);
  });
  it("of 64 bits is exact, or uncertain", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (wide) => {
        const halves = [Number((wide >> 32n) & 0xffff_ffffn), Number(wide & 0xffff_ffffn)];
        const { value, quality } = read({
          value: { dataType: DataType.Int64, arrayType: VariantArrayType.Scalar, value: halves },
        });
        expect(value).toBe(Number(wide));
        expect(quality).toBe(BigInt(Number(wide)) === wide ? Quality.Good : Quality.Uncertain);
      }),
    );
  });
  it("in a structure, an array or a matrix is not supported", () => {
    expect(read({ value: { dataType: DataType.ExtensionObject, value: null } }).quality).toBe(Quality.BadNotSupported);
    const many = { dataType: DataType.Double, value: new Float64Array([1, 2, 3, 4]) };
    expect(read({ value: { ...many, arrayType: VariantArrayType.Array } }).quality).toBe(Quality.BadNotSupported);
    expect(read({ value: { ...many, arrayType: VariantArrayType.Matrix, dimensions: [2, 2] } }).quality).toBe(
      Quality.BadNotSupported,
    );
  });

  it("of any shape gives a reading: null exactly where it is bad, a finite number else", () => {
    // Whatever a server's message decodes to, right or wrong for its type.
    const raw = fc.oneof(
      fc.anything({ withBigInt: false, withDate: true, withNullPrototype: false }),
      fc.double(),
      fc.tuple(fc.nat(0xffff_ffff), fc.nat(0xffff_ffff)),
      fc.string(),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    );
    const date = fc.option(fc.date({ noInvalidDate: false }));
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 30 }),
        fc.constantFrom(0, 0, 0, 1, 2),
        raw,
        fc.nat(0xffff_ffff),
        date,
        date,
        fc.constantFrom(...valueKinds),
        (dataType, arrayType, value, code, sourceTimestamp, serverTimestamp, kind) => {
          const reading = toReading(
            "t",
            kind,
            {
              value: { dataType, arrayType, value },
              statusCode: { value: code },
              sourceTimestamp,
              serverTimestamp,
              sourcePicoseconds: 0,
              serverPicoseconds: 0,
            } as unknown as DataValue,
            arrival,
          );
          expect(Number.isSafeInteger(reading.time)).toBe(true);
          expect(reading.quality).toBe(reading.quality >>> 0);
          expect(reading.value === null).toBe(isBad(reading.quality));
          if (typeof reading.value === "number") expect(reading.value).toSatisfy(Number.isFinite);
          else expect(["boolean", "string", "object"]).toContain(typeof reading.value);
        },
      ),
      { numRuns: 20_000, seed: 2258 },
    );
  });
});
