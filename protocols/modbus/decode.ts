import { Quality, type Value } from "../reading.ts";
import { type ModbusTag, type Order, typeOf } from "./config.ts";
import { linear } from "./scale.ts";

/** What the bytes of one tag say. */
export interface Decoded {
  readonly value: Value;
  readonly quality: Quality;
}

/**
 * Understands one tag in the data bytes of an answer. `position` is where the tag begins: counted in registers from the
 * first one in the answer, or in bits where the table is one of coils or discretes. The answer must be long enough.
 */
export type Decoder = (bytes: Buffer, position: number) => Decoded;

/** The decoder of a tag. It never throws, whatever the bytes say. */
export function decoderOf(tag: ModbusTag): Decoder {
  const { table } = tag.register;
  if (table === "coil" || table === "discrete") return decodePackedBit;
  const { bytesSwapped, wordsSwapped } = swaps[tag.order ?? "ABCD"];
  const type = typeOf(tag);
  if (type === "boolean") return bitDecoder(bytesSwapped ? tag.bit! ^ 8 : tag.bit!);
  if (type === "string") return textDecoder(tag.length!, bytesSwapped);
  return numberDecoder(readers[type], bytesSwapped, wordsSwapped, linear(tag.scale ?? 1, tag.offset ?? 0));
}

/** What each order swaps against the most significant byte first: the bytes in each register, the registers, or both. */
const swaps: Record<Order, { readonly bytesSwapped: boolean; readonly wordsSwapped: boolean }> = {
  AB: { bytesSwapped: false, wordsSwapped: false },
  BA: { bytesSwapped: true, wordsSwapped: false },
  ABCD: { bytesSwapped: false, wordsSwapped: false },
  CDAB: { bytesSwapped: false, wordsSwapped: true },
  BADC: { bytesSwapped: true, wordsSwapped: false },
  DCBA: { bytesSwapped: true, wordsSwapped: true },
  ABCDEFGH: { bytesSwapped: false, wordsSwapped: false },
  GHEFCDAB: { bytesSwapped: false, wordsSwapped: true },
  BADCFEHG: { bytesSwapped: true, wordsSwapped: false },
  HGFEDCBA: { bytesSwapped: true, wordsSwapped: true },
};

/** Coils and discretes: eight to a byte, the first one in the lowest bit (Modbus Application Protocol V1.1b3, 6.1). */
function decodePackedBit(bytes: Buffer, position: number): Decoded {
  return { value: ((bytes[position >> 3]! >> (position & 7)) & 1) === 1, quality: Quality.Good };
}

/** A bit of a register, which travels with its high byte first. */
function bitDecoder(bit: number): Decoder {
  const byte = bit >= 8 ? 0 : 1;
  const mask = 1 << (bit & 7);
  return (bytes, position) => ({ value: (bytes[position * 2 + byte]! & mask) !== 0, quality: Quality.Good });
}

interface NumberReader {
  readonly size: 2 | 4 | 8;
  /** Reads a number with its most significant byte first. */
  readonly read: (bytes: Buffer, at: number) => number | bigint;
}

const readers = {
  int16: { size: 2, read: (bytes, at) => bytes.readInt16BE(at) },
  uint16: { size: 2, read: (bytes, at) => bytes.readUInt16BE(at) },
  int32: { size: 4, read: (bytes, at) => bytes.readInt32BE(at) },
  uint32: { size: 4, read: (bytes, at) => bytes.readUInt32BE(at) },
  float32: { size: 4, read: (bytes, at) => bytes.readFloatBE(at) },
  int64: { size: 8, read: (bytes, at) => bytes.readBigInt64BE(at) },
  uint64: { size: 8, read: (bytes, at) => bytes.readBigUInt64BE(at) },
  float64: { size: 8, read: (bytes, at) => bytes.readDoubleBE(at) },
} as const satisfies Record<string, NumberReader>;

function numberDecoder(
  { size, read }: NumberReader,
  bytesSwapped: boolean,
  wordsSwapped: boolean,
  toUnits: (raw: number) => number,
): Decoder {
  if (!bytesSwapped && !wordsSwapped) {
    return (bytes, position) => scaled(read(bytes, position * 2), toUnits);
  }
  // Byte i of the number is byte i ^ flip of the answer: 1 exchanges neighbours, the rest reverses the registers.
  const flip = (bytesSwapped ? 1 : 0) | (wordsSwapped ? size - 2 : 0);
  const ordered = Buffer.alloc(size);
  return (bytes, position) => {
    for (let index = 0; index < size; index++) ordered[index] = bytes[position * 2 + (index ^ flip)]!;
    return scaled(read(ordered, 0), toUnits);
  };
}

/** A raw number in engineering units. */
function scaled(raw: number | bigint, toUnits: (raw: number) => number): Decoded {
  const nearest = Number(raw);
  // Not a number and the infinities are how instruments say that they have no measurement.
  if (!Number.isFinite(nearest)) return { value: null, quality: Quality.BadSensorFailure };
  const value = toUnits(nearest);
  if (!Number.isFinite(value)) return { value: null, quality: Quality.BadOutOfRange };
  // A 64-bit integer above 2^53 may lie between two doubles: the nearest one is given, and said to be so.
  const exact = typeof raw === "number" || BigInt(nearest) === raw;
  return { value, quality: exact ? Quality.Good : Quality.Uncertain };
}

/**
 * Text ends at the first NUL, and spaces after it are padding. Bytes other than printable ASCII have no agreed meaning:
 * each becomes U+FFFD and the quality says Uncertain.
 */
function textDecoder(length: number, bytesSwapped: boolean): Decoder {
  const flip = bytesSwapped ? 1 : 0;
  return (bytes, position) => {
    let text = "";
    let quality: Quality = Quality.Good;
    for (let index = 0; index < length; index++) {
      const code = bytes[position * 2 + (index ^ flip)]!;
      if (code === 0) break;
      const printable = code >= 0x20 && code <= 0x7e;
      if (!printable) quality = Quality.Uncertain;
      text += printable ? String.fromCharCode(code) : "\ufffd";
    }
    return { value: text.trimEnd(), quality };
  };
}
