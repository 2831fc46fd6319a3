import { describe, expect, it } from "vitest";
import { RegisterImage, type RegisterPoint } from "../../../simulators/registers.ts";

const point = (part: Partial<RegisterPoint> & { value: number | boolean | string | null }): RegisterPoint => ({
  table: "holding",
  address: 0,
  type: "uint16",
  read: () => part.value,
  ...part,
});
const hex = (bytes: Buffer | undefined) => bytes?.toString("hex");

describe("registers", () => {
  it.each([
    [{ type: "int16", value: -2 }, "fffe"],
    [{ type: "uint16", value: 65535 }, "ffff"],
    [{ type: "int16", value: -12.3, scale: 0.1 }, "ff85"],
    [{ type: "int32", value: -2, order: "ABCD" }, "fffffffe"],
    [{ type: "uint32", value: 0x01020304, order: "ABCD" }, "01020304"],
    [{ type: "uint32", value: 0x01020304, order: "CDAB" }, "03040102"],
    [{ type: "uint32", value: 0x01020304, order: "BADC" }, "02010403"],
    [{ type: "uint32", value: 0x01020304, order: "DCBA" }, "04030201"],
    [{ type: "int64", value: 0x01020304050607, order: "ABCD" }, "0001020304050607"],
    [{ type: "int64", value: 0x01020304050607, order: "CDAB" }, "0607040502030001"],
    [{ type: "int64", value: -1 }, "ffffffffffffffff"],
    [{ type: "float32", value: 1 }, "3f800000"],
    [{ type: "float32", value: 1, order: "CDAB" }, "00003f80"],
    [{ type: "float64", value: -2, order: "DCBA" }, "00000000000000c0"],
    [{ type: "string", value: "PUMP", length: 3 }, "50554d500000"],
    [{ type: "float32", value: null }, "7fc00000"],
    [{ type: "int16", value: null }, "8000"],
    [{ type: "uint16", value: null }, "ffff"],
  ] as const)("codes %o as %s", (part, expected) => {
    const image = new RegisterImage([point(part)]);
    expect(hex(image.registers("holding", 0, expected.length / 4))).toBe(expected);
  });

  it("puts several bits into one register, and coils into bytes from the least significant bit", () => {
    const image = new RegisterImage([
      point({ type: "bit", bit: 0, value: true }),
      point({ type: "bit", bit: 3, value: true }),
      point({ type: "bit", bit: 4, value: false }),
      ...[true, false, true, true, false, false, false, false, true].map((value, address) =>
        point({ table: "coil", type: "bit", address, value }),
      ),
    ]);
    expect(hex(image.registers("holding", 0, 1))).toBe("0009");
    expect(hex(image.bits("coil", 0, 9))).toBe("0d01");
    expect(hex(image.bits("coil", 2, 2))).toBe("03");
  });

  it("answers parts of values and refuses what is not there", () => {
    const image = new RegisterImage([
      point({ type: "uint32", address: 10, value: 0x01020304 }),
      point({ address: 12, value: 5 }),
    ]);
    expect(hex(image.registers("holding", 11, 2))).toBe("03040005");
    expect(image.registers("holding", 9, 2)).toBeUndefined();
    expect(image.registers("holding", 12, 2)).toBeUndefined();
    expect(image.registers("input", 10, 1)).toBeUndefined();
    expect(image.bits("coil", 0, 1)).toBeUndefined();
  });

  it("takes each value once for an answer, so that its registers belong together", () => {
    let count = 0xffff;
    const image = new RegisterImage([point({ type: "uint32", value: 0, read: () => count++ })]);
    expect(hex(image.registers("holding", 0, 2))).toBe("0000ffff");
    expect(hex(image.registers("holding", 0, 2))).toBe("00010000");
  });

  it("refuses a map that gives one register to two values", () => {
    const twice = [point({ type: "uint32", value: 1 }), point({ address: 1, value: 2 })];
    expect(() => new RegisterImage(twice)).toThrow("holding 1 is given to two values");
  });
});
