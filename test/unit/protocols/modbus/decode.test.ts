import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { modbusTag, type Order } from "../../../../protocols/modbus/config.ts";
import { decoderOf } from "../../../../protocols/modbus/decode.ts";
import { isBad, Quality } from "../../../../protocols/reading.ts";

const numRuns = Number(process.env.MILLRACE_FUZZ_RUNS ?? 2000);

function decode(tag: object, bytes: number[] | Buffer, position = 0) {
  const parsed = modbusTag.parse({ name: "tag", register: "holding 0", ...tag });
  return decoderOf(parsed)(Buffer.from(bytes), position);
}

describe("numbers", () => {
  // Examples worked out by hand from the definitions of two's complement and IEEE 754.
  it.each([
    ["int16", [0xff, 0xfe], -2],
    ["uint16", [0xff, 0xfe], 65534],
    ["int32", [0xff, 0xff, 0xff, 0x00], -256],
    ["uint32", [0x80, 0x00, 0x00, 0x01], 2147483649],
    ["int64", [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfd], -3],
    ["uint64", [0x00, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 9007199254740991],
    ["float32", [0x41, 0xc8, 0x00, 0x00], 25],
    ["float64", [0xc0, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], -3.125],
  ])("reads %s", (type, bytes, value) => {
    expect(decode({ type }, bytes)).toEqual({ value, quality: Quality.Good });
  });

  it.each([
    ["float32", "ABCD", [0x44, 0x9a, 0x52, 0x2b]],
    ["float32", "CDAB", [0x52, 0x2b, 0x44, 0x9a]],
    ["float32", "BADC", [0x9a, 0x44, 0x2b, 0x52]],
    ["float32", "DCBA", [0x2b, 0x52, 0x9a, 0x44]],
  ])("reads %s in the order %s", (type, order, bytes) => {
    expect(decode({ type, order }, bytes).value).toBeCloseTo(1234.5677, 3);
  });

  it.each([
    ["ABCDEFGH", [0x00, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]],
    ["GHEFCDAB", [0xbc, 0xde, 0x78, 0x9a, 0x34, 0x56, 0x00, 0x12]],
    ["BADCFEHG", [0x12, 0x00, 0x56, 0x34, 0x9a, 0x78, 0xde, 0xbc]],
    ["HGFEDCBA", [0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x00]],
    ["ABCD", [0x00, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]],
    ["CDAB", [0xbc, 0xde, 0x78, 0x9a, 0x34, 0x56, 0x00, 0x12]],
    ["BADC", [0x12, 0x00, 0x56, 0x34, 0x9a, 0x78, 0xde, 0xbc]],
    ["DCBA", [0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x00]],
  ])("reads 64 bits in the order %s", (order, bytes) => {
    expect(decode({ type: "uint64", order }, bytes)).toEqual({ value: 0x123456789abcde, quality: Quality.Good });
  });

  it.each([
    ["AB", 0x0102],
    ["BA", 0x0201],
    ["ABCD", 0x0102],
    ["CDAB", 0x0102],
    ["BADC", 0x0201],
    ["DCBA", 0x0201],
  ])("reads 16 bits in the order %s", (order, value) => {
    expect(decode({ type: "uint16", order }, [1, 2]).value).toBe(value);
  });

  it("gives the nearest number, as uncertain, for an integer that is not a double", () => {
    const bytes = [0x00, 0x20, 0, 0, 0, 0, 0, 0x01]; // 2^53 + 1
    for (const type of ["int64", "uint64"]) {
      expect(decode({ type }, bytes)).toEqual({ value: 2 ** 53, quality: Quality.Uncertain });
    }
    expect(decode({ type: "uint64" }, Array(8).fill(0xff))).toEqual({ value: 2 ** 64, quality: Quality.Uncertain });
  });

  it.each([
    ["float32", [0x7f, 0xc0, 0x00, 0x00]],
    ["float32", [0x7f, 0x80, 0x00, 0x00]],
    ["float32", [0xff, 0x80, 0x00, 0x00]],
    ["float64", [0x7f, 0xf8, 0, 0, 0, 0, 0, 0]],
    ["float64", [0xff, 0xf0, 0, 0, 0, 0, 0, 0]],
  ])("gives %s %j, which is no number, as a failed sensor", (type, bytes) => {
    expect(decode({ type }, bytes)).toEqual({ value: null, quality: Quality.BadSensorFailure });
  });

  it("scales, then adds the offset", () => {
    expect(decode({ type: "int16", scale: 0.5, offset: -10 }, [0xff, 0xfc]).value).toBe(-12);
    expect(decode({ type: "uint16", offset: 100 }, [0, 1]).value).toBe(101);
  });

  it("does not give infinity for a scaled value beyond all numbers", () => {
    const largest = [0x7f, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    expect(decode({ type: "float64", scale: 10 }, largest)).toEqual({ value: null, quality: Quality.BadOutOfRange });
  });
});

describe("booleans", () => {
  it("picks every bit of a register, in both byte orders", () => {
    for (let bit = 0; bit < 16; bit++) {
      const word = 1 << bit;
      const bytes = [word >> 8, word & 0xff];
      for (let asked = 0; asked < 16; asked++) {
        expect(decode({ bit: asked }, bytes).value).toBe(asked === bit);
        expect(decode({ bit: asked, order: "BA" }, bytes.toReversed()).value).toBe(asked === bit);
      }
    }
  });

  it("finds coils and discretes in packed bytes, the first in the lowest bit", () => {
    // Modbus Application Protocol V1.1b3, 6.1: coils 20 to 38 of the example, CD 6B 05.
    const on = [0, 2, 3, 6, 7, 8, 9, 11, 13, 14, 16, 18];
    for (let position = 0; position < 19; position++) {
      for (const register of ["coil 19", "discrete 19"]) {
        expect(decode({ register }, [0xcd, 0x6b, 0x05], position).value).toBe(on.includes(position));
      }
    }
  });
});

describe("texts", () => {
  const text = (tag: object, ascii: string) => decode({ type: "string", ...tag }, Buffer.from(ascii, "latin1"));

  it("reads two characters from each register, in both byte orders", () => {
    expect(text({ length: 6 }, "ABCDEF").value).toBe("ABCDEF");
    expect(text({ length: 6, order: "BADC" }, "BADCFE").value).toBe("ABCDEF");
    expect(text({ length: 5, order: "BA" }, "BADCFE").value).toBe("ABCDE");
    expect(text({ length: 3 }, "ABCDEF").value).toBe("ABC");
  });

  it("drops padding: what follows a NUL, and spaces at the end", () => {
    expect(text({ length: 6 }, "AB\0\0\0\0").value).toBe("AB");
    expect(text({ length: 6 }, "AB \0xy")).toEqual({ value: "AB", quality: Quality.Good });
    expect(text({ length: 6 }, " AB   ").value).toBe(" AB");
    expect(text({ length: 6 }, "\0\0\0\0\0\0")).toEqual({ value: "", quality: Quality.Good });
  });

  it("marks bytes that are no printable ASCII, and says uncertain", () => {
    expect(text({ length: 4 }, "A\x01\xe4B")).toEqual({ value: "A\ufffd\ufffdB", quality: Quality.Uncertain });
  });
});

describe("any bytes", () => {
  const orders: Order[] = ["ABCD", "CDAB", "BADC", "DCBA"];
  /** Written straight from the meaning of the names: which letter stands at which place on the wire. */
  const reference = (type: string, size: number, order: Order, wire: Buffer): number | bigint => {
    const letters = Array.from({ length: size }, (_, index) => index);
    const words = Array.from({ length: size / 2 }, (_, index) => letters.slice(index * 2, index * 2 + 2));
    if (order === "CDAB" || order === "DCBA") words.reverse();
    if (order === "BADC" || order === "DCBA") for (const word of words) word.reverse();
    const view = new DataView(new ArrayBuffer(size));
    for (const [place, letter] of words.flat().entries()) view.setUint8(letter, wire[place]!);
    const names = { int: "Int", uint: "Uint", float: "Float" } as const;
    const [, kind, bits] = /^([a-z]+)(\d+)$/.exec(type)!;
    const big = bits === "64" && kind !== "float" ? "Big" : "";
    return (view as unknown as Record<string, (at: number) => number | bigint>)[
      `get${big}${names[kind as keyof typeof names]}${bits}`
    ]!(0);
  };

  it("decodes numbers as the specification says, or says that it cannot", () => {
    const types = ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"];
    fc.assert(
      fc.property(
        fc.constantFrom(...types),
        fc.constantFrom(...orders),
        fc.uint8Array({ minLength: 8, maxLength: 8 }),
        fc.nat(5),
        (type, order, raw, position) => {
          const size = Number(/\d+/.exec(type)![0]) / 8;
          const wire = Buffer.from(raw).subarray(0, size);
          const bytes = Buffer.concat([Buffer.alloc(position * 2, 0xee), wire]);
          const { value, quality } = decode({ type, order }, bytes, position);
          const exact = reference(type, size, order, wire);
          if (!Number.isFinite(Number(exact))) {
            expect(value).toBeNull();
            expect(isBad(quality)).toBe(true);
          } else {
            expect(value).toBe(Number(exact) + 0); // a scaled −0 is 0
            const isExact = typeof exact === "number" || BigInt(Number(exact)) === exact;
            expect(quality).toBe(isExact ? Quality.Good : Quality.Uncertain);
          }
        },
      ),
      { numRuns },
    );
  });

  it("decodes any bytes as text without control characters", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 250 }), fc.boolean(), (raw, swapped) => {
        const bytes = Buffer.concat([raw, Buffer.alloc(1)]);
        const { value } = decode({ type: "string", length: raw.length, order: swapped ? "BA" : "AB" }, bytes);
        expect(value).toMatch(/^[\x20-\x7e\ufffd]*$/);
        expect((value as string).length).toBeLessThanOrEqual(raw.length);
      }),
      { numRuns },
    );
  });
});
