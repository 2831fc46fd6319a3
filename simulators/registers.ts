/** The four tables of a Modbus device. */
export type Table = "holding" | "input" | "coil" | "discrete";

/** How a value is coded in registers. `bit` is one bit of a register, or a coil or discrete input. */
export type RegisterType = "bit" | "int16" | "uint16" | "int32" | "uint32" | "int64" | "float32" | "float64" | "string";

/**
 * The order in which the bytes of a number arrive, A being the most significant one of a 32-bit number: CDAB swaps the
 * registers, BADC the bytes in each register, DCBA both. With 64 bits the registers are reversed in the same way.
 */
export type ByteOrder = "ABCD" | "CDAB" | "BADC" | "DCBA";

/** A value at its place in a device. */
export interface RegisterPoint {
  readonly table: Table;
  /** Counted from 0, as on the wire. */
  readonly address: number;
  readonly type: RegisterType;
  /** For `bit` in a register: 0 is the least significant. */
  readonly bit?: number;
  /** For `string`: how many registers it takes, two characters to a register. */
  readonly length?: number;
  readonly order?: ByteOrder;
  /** The register holds the value divided by this. */
  readonly scale?: number;
  /** The present value; null while its sensor has failed. */
  read(): number | boolean | string | null;
}

const widths = { bit: 1, int16: 1, uint16: 1, int32: 2, uint32: 2, int64: 4, float32: 2, float64: 4 };

/** How many registers a point takes. */
export function registersOf(point: Pick<RegisterPoint, "type" | "length">): number {
  return point.type === "string" ? (point.length ?? 1) : widths[point.type];
}

/**
 * The registers of one unit. Nothing is kept: each answer is coded from the present values, each value once and all of
 * its registers together, so that a reader never sees half of an old value and half of a new one.
 */
export class RegisterImage {
  readonly #tables: Record<Table, Map<number, RegisterPoint[]>> = {
    holding: new Map(),
    input: new Map(),
    coil: new Map(),
    discrete: new Map(),
  };

  constructor(points: readonly RegisterPoint[]) {
    for (const point of points) {
      const table = this.#tables[point.table];
      for (let at = point.address; at < point.address + registersOf(point); at++) {
        const there = table.get(at) ?? [];
        if (there.some((other) => other.bit === undefined || other.bit === point.bit)) {
          throw new Error(`${point.table} ${at} is given to two values`);
        }
        table.set(at, [...there, point]);
      }
    }
  }

  /** `count` registers from `address`, big-endian; undefined when one of them does not exist. */
  registers(table: "holding" | "input", address: number, count: number): Buffer | undefined {
    const answer = Buffer.alloc(count * 2);
    const coded = new Map<RegisterPoint, Buffer>();
    for (let index = 0; index < count; index++) {
      const points = this.#tables[table].get(address + index);
      if (!points) return undefined;
      for (const point of points) {
        const bytes = coded.get(point) ?? encode(point);
        coded.set(point, bytes);
        const word = bytes.readUInt16BE((address + index - point.address) * 2);
        answer.writeUInt16BE(answer.readUInt16BE(index * 2) | word, index * 2);
      }
    }
    return answer;
  }

  /** `count` bits from `address`, the first one the least significant of the first byte; undefined when one is missing. */
  bits(table: "coil" | "discrete", address: number, count: number): Buffer | undefined {
    const answer = Buffer.alloc(Math.ceil(count / 8));
    for (let index = 0; index < count; index++) {
      const point = this.#tables[table].get(address + index)?.[0];
      if (!point) return undefined;
      if (point.read()) answer[index >> 3]! |= 1 << (index & 7);
    }
    return answer;
  }
}

/**
 * A value as it goes over the wire. A failed sensor reads as devices show it: not-a-number, the most negative signed
 * integer, or all ones.
 */
function encode(point: RegisterPoint): Buffer {
  const bytes = Buffer.alloc(registersOf(point) * 2);
  const value = point.read();
  switch (point.type) {
    case "bit":
      bytes.writeUInt16BE(value ? 1 << (point.bit ?? 0) : 0);
      return bytes;
    case "string":
      bytes.write(String(value ?? ""), "latin1");
      return bytes;
    case "float32":
      bytes.writeFloatBE(value === null ? Number.NaN : Number(value) / (point.scale ?? 1));
      break;
    case "float64":
      bytes.writeDoubleBE(value === null ? Number.NaN : Number(value) / (point.scale ?? 1));
      break;
    default:
      if (value !== null) writeInteger(bytes, Math.round(Number(value) / (point.scale ?? 1)));
      else if (point.type.startsWith("u")) bytes.fill(0xff);
      else bytes[0] = 0x80;
  }
  return reorder(bytes, point.order ?? "ABCD");
}

/** Two's complement, wrapping as a controller's counter does. */
function writeInteger(bytes: Buffer, value: number): void {
  const wide = BigInt.asUintN(bytes.length * 8, BigInt(value));
  bytes.write(wide.toString(16).padStart(bytes.length * 2, "0"), "hex");
}

function reorder(bytes: Buffer, order: ByteOrder): Buffer {
  // Reversing all bytes reverses the registers and the bytes in each of them.
  const registersSwapped = order === "CDAB" || order === "DCBA";
  const bytesSwapped = order === "BADC" || order === "DCBA";
  if (registersSwapped) bytes.reverse();
  return registersSwapped !== bytesSwapped ? bytes.swap16() : bytes;
}
