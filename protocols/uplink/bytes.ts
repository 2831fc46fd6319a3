import { DataError } from "../errors.ts";

/** 0, -1, 1, -2 … as 0, 1, 2, 3 …: numbers of small magnitude become small numbers, whatever their sign. */
export function zigzag(value: number): number {
  return value < 0 ? -2 * value - 1 : 2 * value;
}

/** The opposite of `zigzag`. */
export function unzigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

/** A growing byte column. Integers are LEB128 varints of up to 53 bits, as in Protocol Buffers; signed ones zigzag. */
export class ByteWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  readonly #scratch = new DataView(new ArrayBuffer(8));
  length = 0;

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** What was written so far; a view that the next write may invalidate. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  #room(more: number): void {
    if (this.length + more <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + more));
    grown.set(this.#bytes);
    this.#bytes = grown;
  }

  /** @param value a non-negative safe integer */
  unsigned(value: number): void {
    this.#room(8);
    while (value >= 0x80) {
      this.#bytes[this.length++] = (value % 0x80) | 0x80;
      // Above 31 bits the bit operators would cut the number.
      value = value < 0x80000000 ? value >>> 7 : Math.floor(value / 0x80);
    }
    this.#bytes[this.length++] = value;
  }

  /** @param value a whole number with |value| < 2^52, so that its zigzag form stays exact */
  signed(value: number): void {
    this.unsigned(zigzag(value));
  }

  /**
   * Floats by byte planes: all lowest bytes, then all second ones, and so on. Neighbouring readings share their upper
   * bytes, which compress to almost nothing when they stand together.
   */
  floatPlanes(values: Float64Array, from: number, to: number, width: 4 | 8): void {
    const count = to - from;
    this.#room(count * width);
    const start = this.length;
    const scratch = this.#scratch;
    for (let i = 0; i < count; i++) {
      if (width === 4) scratch.setFloat32(0, values[from + i]!, true);
      else scratch.setFloat64(0, values[from + i]!, true);
      for (let plane = 0; plane < width; plane++) this.#bytes[start + plane * count + i] = scratch.getUint8(plane);
    }
    this.length += count * width;
  }
}

/** Reads what a ByteWriter wrote. Every method throws a DataError at the end of the bytes. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #column: string;
  #position = 0;

  /** @param column the column's name, for error messages */
  constructor(bytes: Uint8Array, column: string) {
    this.#bytes = bytes;
    this.#column = column;
  }

  get atEnd(): boolean {
    return this.#position >= this.#bytes.length;
  }

  #ends(): never {
    throw new DataError(`the column ${this.#column} ends too early`);
  }

  unsigned(): number {
    const bytes = this.#bytes;
    let position = this.#position;
    let byte = position < bytes.length ? bytes[position++]! : this.#ends();
    if (byte < 0x80) {
      this.#position = position;
      return byte;
    }
    let value = byte & 0x7f;
    let factor = 0x80;
    do {
      if (position >= bytes.length) this.#ends();
      byte = bytes[position++]!;
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
      if (value > Number.MAX_SAFE_INTEGER) throw new DataError(`the column ${this.#column} holds a number above 2^53`);
    } while (byte >= 0x80);
    this.#position = position;
    return value;
  }

  signed(): number {
    return unzigzag(this.unsigned());
  }

  /** `count` floats from byte planes into `into` from index `at`. Refuses NaN and infinities. */
  floatPlanes(into: Float64Array, at: number, count: number, width: 4 | 8): void {
    const bytes = this.#bytes;
    const start = this.#position;
    if (start + count * width > bytes.length) this.#ends();
    const scratch = new DataView(new ArrayBuffer(8));
    for (let i = 0; i < count; i++) {
      for (let plane = 0; plane < width; plane++) scratch.setUint8(plane, bytes[start + plane * count + i]!);
      const value = width === 4 ? scratch.getFloat32(0, true) : scratch.getFloat64(0, true);
      if (!Number.isFinite(value)) throw new DataError(`the column ${this.#column} holds a value that is no number`);
      into[at + i] = value;
    }
    this.#position += count * width;
  }
}
