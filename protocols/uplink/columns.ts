import { DataError } from "../errors.ts";
import { ByteReader, ByteWriter, unzigzag, zigzag } from "./bytes.ts";
import { type ReadingColumns, RowKind } from "./frame.ts";

/** More rows than this in one frame are refused: it bounds what a hostile or broken sender can make a reader allocate. */
export const maxRows = 65_536;

/**
 * The times that a frame can carry, in µs: from September 2001, before which a device's clock was never set, to January
 * 2073. Differences of such times stay exact when they are doubled twice.
 */
export const timeRange = { from: 1e15, to: 1e15 + 2 ** 51 } as const;

/** The encoded columns, as they stand in the Content message. README.md explains each to the byte. */
export interface EncodedColumns {
  readonly count: number;
  readonly tags: Uint8Array;
  readonly times: Uint8Array;
  readonly qualities: Uint8Array;
  readonly encodings: Uint8Array;
  readonly integers: Uint8Array;
  readonly floats: Uint8Array;
  readonly texts: readonly string[];
}

/** How a run of values is written. Numbers on the wire: never renumber. */
const Encoding = {
  Null: 0,
  False: 1,
  True: 2,
  Text: 3,
  Float32: 4,
  Float64: 5,
  /** 16 + e: whole numbers, to be divided by 10^e. */
  Decimal: 16,
  /** 32 + e: the same, rounded to a 32-bit float afterwards: values that were read as float32. */
  Decimal32: 32,
} as const;

const maxExponent = 9;
const powers = Array.from({ length: maxExponent + 1 }, (_, exponent) => 10 ** exponent);
/** Zigzag, delta and a margin each take a bit of the 53. */
const maxInteger = 2 ** 50;
/** The units, in microseconds, that times may be counted in, coarsest first. */
const timeUnits = [1_000_000, 1000, 1];

/**
 * Encodes rows that are grouped by tag (`tag` ascending); within a tag they keep their order. Values must be finite, times
 * within `timeRange`.
 */
export function encodeColumns(rows: ReadingColumns): EncodedColumns {
  const groups = groupByTag(rows);
  const values = new ValueEncoder(rows);
  for (const { start, length } of groups) values.group(start, start + length);
  return {
    count: rows.count,
    tags: encodeTags(groups),
    times: encodeTimes(rows, groups),
    qualities: encodeQualities(rows),
    ...values.columns(),
  };
}

/** The rows of one tag. */
interface Group {
  readonly tag: number;
  readonly start: number;
  readonly length: number;
}

function groupByTag(rows: ReadingColumns): Group[] {
  const groups: Group[] = [];
  for (let row = 0; row < rows.count; ) {
    const tag = rows.tag[row]!;
    const start = row;
    while (row < rows.count && rows.tag[row] === tag) row++;
    groups.push({ tag, start, length: row - start });
  }
  return groups;
}

/** Neighbouring tags with equally many readings, as a poll gives them, are written together. */
function encodeTags(groups: readonly Group[]): Uint8Array {
  const column = new ByteWriter();
  let next = 0;
  for (let first = 0; first < groups.length; ) {
    const { tag, length } = groups[first]!;
    let end = first + 1;
    while (end < groups.length && groups[end]!.tag === tag + end - first && groups[end]!.length === length) end++;
    writeRun(column, (tag - next) * 2 + (length > 1 ? 1 : 0), end - first);
    if (length > 1) column.unsigned(length - 2);
    next = tag + end - first;
    first = end;
  }
  return column.bytes();
}

/** A number and how often it holds. Once is the common case in a small frame, and costs no byte of its own. */
function writeRun(column: ByteWriter, value: number, length: number): void {
  column.unsigned(value * 2 + (length > 1 ? 1 : 0));
  if (length > 1) column.unsigned(length - 2);
}

function readRun(reader: ByteReader): { value: number; length: number } {
  const head = reader.unsigned();
  return { value: Math.floor(head / 2), length: head % 2 === 1 ? reader.unsigned() + 2 : 1 };
}

function encodeTimes(rows: ReadingColumns, groups: readonly Group[]): Uint8Array {
  if (rows.count === 0) return new Uint8Array();
  const first = rows.time[0]!;
  const unit = timeUnits.find((candidate) => {
    for (let row = 0; row < rows.count; row++) if ((rows.time[row]! - first) % candidate !== 0) return false;
    return true;
  })!;
  const column = new ByteWriter(rows.count + 16);
  column.unsigned(unit);
  column.signed(first);
  let base = first;
  for (let index = 0; index < groups.length; ) {
    const group = groups[index]!;
    let end = index + 1;
    while (end < groups.length && sameTimes(rows, group, groups[end]!)) end++;
    writeRun(column, zigzag((rows.time[group.start]! - base) / unit), end - index);
    base = rows.time[group.start]!;
    for (let row = group.start + 1; row < group.start + group.length; row++) {
      column.signed((rows.time[row]! - rows.time[row - 1]!) / unit);
    }
    index = end;
  }
  return column.bytes();
}

function sameTimes({ time }: ReadingColumns, one: Group, other: Group): boolean {
  if (one.length !== other.length) return false;
  for (let n = 0; n < one.length; n++) if (time[one.start + n] !== time[other.start + n]) return false;
  return true;
}

function encodeQualities(rows: ReadingColumns): Uint8Array {
  const column = new ByteWriter();
  for (let row = 0; row < rows.count; ) {
    const quality = rows.quality[row]!;
    const start = row;
    while (row < rows.count && rows.quality[row] === quality) row++;
    if (start === 0 && row === rows.count && quality === 0) break; // all good: the column is empty
    writeRun(column, quality, row - start);
  }
  return column.bytes();
}

/** Writes the values of one tag after the other, joining equal encodings into runs. */
class ValueEncoder {
  readonly #rows: ReadingColumns;
  readonly #encodings = new ByteWriter();
  readonly #integers: ByteWriter;
  readonly #floats = new ByteWriter();
  readonly #texts = new Map<string, number>();
  #nextText = 0;
  #runEncoding = -1;
  #runLength = 0;

  constructor(rows: ReadingColumns) {
    this.#rows = rows;
    this.#integers = new ByteWriter(rows.count * 2 + 16);
  }

  columns(): Pick<EncodedColumns, "encodings" | "integers" | "floats" | "texts"> {
    this.#endRun();
    return {
      encodings: this.#encodings.bytes(),
      integers: this.#integers.bytes(),
      floats: this.#floats.bytes(),
      texts: [...this.#texts.keys()],
    };
  }

  group(start: number, end: number): void {
    const { kind } = this.#rows;
    for (let row = start; row < end; ) {
      const runKind = kind[row]!;
      const from = row;
      while (row < end && kind[row] === runKind) row++;
      this.#values(runKind as RowKind, from, row);
    }
  }

  #values(kind: RowKind, from: number, to: number): void {
    if (kind === RowKind.Number) {
      this.#numbers(from, to);
      return;
    }
    for (let row = from; row < to; row++) {
      if (kind === RowKind.Null) this.#run(Encoding.Null, 1);
      else if (kind === RowKind.Boolean) this.#run(this.#rows.number[row] === 0 ? Encoding.False : Encoding.True, 1);
      else this.#text();
    }
  }

  #text(): void {
    const text = this.#rows.texts[this.#nextText++]!;
    const index = this.#texts.get(text) ?? this.#texts.size;
    this.#texts.set(text, index);
    this.#run(Encoding.Text, 1);
    this.#integers.unsigned(index);
  }

  #numbers(from: number, to: number): void {
    const numbers = this.#rows.number;
    const exponent = decimalExponent(numbers, from, to, false);
    const exponent32 = exponent < 0 ? decimalExponent(numbers, from, to, true) : -1;
    if (exponent < 0 && exponent32 < 0) {
      const single = allFloat32(numbers, from, to);
      // Float planes are cut by run, so that each group of floats is a run of its own.
      this.#endRun();
      this.#run(single ? Encoding.Float32 : Encoding.Float64, to - from);
      this.#endRun();
      this.#floats.floatPlanes(numbers, from, to, single ? 4 : 8);
      return;
    }
    this.#run(exponent >= 0 ? Encoding.Decimal + exponent : Encoding.Decimal32 + exponent32, to - from);
    const power = powers[Math.max(exponent, exponent32)]!;
    let previous = 0;
    for (let row = from; row < to; row++) {
      const integer = Math.round(numbers[row]! * power);
      this.#integers.signed(integer - previous);
      previous = integer;
    }
  }

  #run(encoding: number, length: number): void {
    if (encoding !== this.#runEncoding) this.#endRun();
    this.#runEncoding = encoding;
    this.#runLength += length;
  }

  #endRun(): void {
    if (this.#runLength > 0) {
      writeRun(this.#encodings, this.#runEncoding, this.#runLength);
    }
    this.#runEncoding = -1;
    this.#runLength = 0;
  }
}

/**
 * The smallest e for which every value is exactly a whole number divided by 10^e (and, with `single`, rounded to
 * float32); -1 when there is none. Instruments have a finite resolution, so most process values have one; the idea is
 * that of ALP (Afroozeh, Kuffo, Boncz: "ALP: Adaptive Lossless floating-Point Compression", SIGMOD 2024).
 */
function decimalExponent(values: Float64Array, from: number, to: number, single: boolean): number {
  let exponent = 0;
  for (let row = from; row < to; row++) {
    if (isDecimal(values[row]!, exponent, single)) continue;
    do {
      if (++exponent > maxExponent) return -1;
    } while (!isDecimal(values[row]!, exponent, single));
    row = from - 1; // a larger exponent has to hold for the values before as well
  }
  return exponent;
}

function isDecimal(value: number, exponent: number, single: boolean): boolean {
  const power = powers[exponent]!;
  const integer = Math.round(value * power);
  if (integer > maxInteger || integer < -maxInteger) return false;
  if (integer === 0) return Object.is(value, 0); // an integer has no sign at zero; a float keeps it
  return (single ? Math.fround(integer / power) : integer / power) === value;
}

function allFloat32(values: Float64Array, from: number, to: number): boolean {
  for (let row = from; row < to; row++) if (!Object.is(Math.fround(values[row]!), values[row]!)) return false;
  return true;
}

/** Decodes what `encodeColumns` made. @throws DataError for anything that `encodeColumns` does not make */
export function decodeColumns(encoded: EncodedColumns): ReadingColumns {
  const { count } = encoded;
  if (count > maxRows) throw new DataError(`the frame holds ${count} readings; at most ${maxRows} are taken`);
  const rows = {
    count,
    tag: new Uint32Array(count),
    time: new Float64Array(count),
    quality: new Uint32Array(count),
    kind: new Uint8Array(count),
    number: new Float64Array(count),
    texts: [] as string[],
  };
  const starts = decodeTags(encoded.tags, rows);
  decodeTimes(encoded.times, rows, starts);
  decodeQualities(encoded.qualities, rows);
  decodeValues(encoded, rows, starts);
  return rows;
}

/** @returns where each tag's rows start, the end of the rows last */
function decodeTags(column: Uint8Array, rows: ReadingColumns): number[] {
  const reader = new ByteReader(column, "tags");
  const starts = [0];
  let next = 0;
  let row = 0;
  while (!reader.atEnd) {
    const { value, length: tags } = readRun(reader);
    const length = value % 2 === 1 ? reader.unsigned() + 2 : 1;
    const first = next + Math.floor(value / 2);
    next = first + tags;
    if (next > 0xffffffff || row + tags * length > rows.count) {
      throw new DataError(`the column tags does not fit the frame's ${rows.count} readings`);
    }
    for (let tag = first; tag < next; tag++) {
      rows.tag.fill(tag, row, row + length);
      row += length;
      starts.push(row);
    }
  }
  if (row !== rows.count) throw new DataError(`the column tags covers ${row} of the frame's ${rows.count} readings`);
  return starts;
}

function decodeTimes(column: Uint8Array, rows: ReadingColumns, starts: readonly number[]): void {
  if (rows.count === 0) return;
  const reader = new ByteReader(column, "times");
  const unit = reader.unsigned();
  if (!timeUnits.includes(unit)) throw new DataError(`the column times counts in an unknown unit of ${unit} µs`);
  let base = reader.signed();
  for (let group = 0; group < starts.length - 1; ) {
    const { value, length: groups } = readRun(reader);
    const start = starts[group]!;
    const end = starts[group + 1]!;
    base += unzigzag(value) * unit;
    let time = base;
    for (let row = start; row < end; row++) {
      if (row > start) time += reader.signed() * unit;
      if (!(time >= timeRange.from && time < timeRange.to)) {
        throw new DataError(`the column times holds a time that no clock shows: ${time} µs`);
      }
      rows.time[row] = time;
    }
    for (let other = group + 1; other < group + groups; other++) {
      if (starts[other + 1] === undefined || starts[other + 1]! - starts[other]! !== end - start) {
        throw new DataError("the column times does not fit the column tags");
      }
      rows.time.copyWithin(starts[other]!, start, end);
    }
    group += groups;
  }
  if (!reader.atEnd) throw new DataError("the column times is longer than the frame");
}

function decodeQualities(column: Uint8Array, rows: ReadingColumns): void {
  const reader = new ByteReader(column, "qualities");
  let row = 0;
  while (!reader.atEnd) {
    const { value: quality, length } = readRun(reader);
    if (row + length > rows.count || quality > 0xffffffff) {
      throw new DataError(`the column qualities does not fit the frame's ${rows.count} readings`);
    }
    rows.quality.fill(quality, row, row + length);
    row += length;
  }
  if (row !== 0 && row !== rows.count) throw new DataError("the column qualities ends too early");
}

function decodeValues(
  encoded: EncodedColumns,
  rows: ReadingColumns & { texts: string[] },
  starts: readonly number[],
): void {
  const isStart = new Uint8Array(rows.count + 1);
  for (const start of starts) isStart[start] = 1;
  const encodings = new ByteReader(encoded.encodings, "encodings");
  const integers = new ByteReader(encoded.integers, "integers");
  const floats = new ByteReader(encoded.floats, "floats");
  let row = 0;
  while (!encodings.atEnd) {
    const { value: encoding, length } = readRun(encodings);
    if (row + length > rows.count) {
      throw new DataError(`the column encodings does not fit the frame's ${rows.count} readings`);
    }
    decodeRun(encoding, row, length, { rows, isStart, integers, floats, texts: encoded.texts });
    row += length;
  }
  if (row !== rows.count) throw new DataError(`the column encodings covers ${row} of ${rows.count} readings`);
  if (!integers.atEnd || !floats.atEnd) throw new DataError("a column of values is longer than the frame");
}

interface ValueColumns {
  readonly rows: ReadingColumns & { texts: string[] };
  /** 1 where a tag's rows start. */
  readonly isStart: Uint8Array;
  readonly integers: ByteReader;
  readonly floats: ByteReader;
  readonly texts: readonly string[];
}

function decodeRun(encoding: number, row: number, length: number, from: ValueColumns): void {
  const { rows } = from;
  const end = row + length;
  if (encoding === Encoding.Null) {
    rows.kind.fill(RowKind.Null, row, end);
  } else if (encoding === Encoding.False || encoding === Encoding.True) {
    rows.kind.fill(RowKind.Boolean, row, end);
    rows.number.fill(encoding === Encoding.True ? 1 : 0, row, end);
  } else if (encoding === Encoding.Text) {
    rows.kind.fill(RowKind.Text, row, end);
    for (let i = 0; i < length; i++) {
      const text = from.texts[from.integers.unsigned()];
      if (text === undefined) throw new DataError("the frame names a text that it does not hold");
      rows.texts.push(text);
    }
  } else if (encoding === Encoding.Float32 || encoding === Encoding.Float64) {
    rows.kind.fill(RowKind.Number, row, end);
    from.floats.floatPlanes(rows.number, row, length, encoding === Encoding.Float32 ? 4 : 8);
  } else {
    decodeDecimals(encoding, row, end, from);
  }
}

function decodeDecimals(encoding: number, row: number, end: number, from: ValueColumns): void {
  const single = encoding >= Encoding.Decimal32;
  const power = powers[encoding - (single ? Encoding.Decimal32 : Encoding.Decimal)];
  if (power === undefined) throw new DataError(`the frame uses the unknown value encoding ${encoding}`);
  const { rows, isStart, integers } = from;
  rows.kind.fill(RowKind.Number, row, end);
  let previous = 0;
  for (let i = row; i < end; i++) {
    // Each tag's first value stands whole, so that a run over several tags needs no more than one.
    if (isStart[i] === 1 || i === row) previous = 0;
    previous += integers.signed();
    const value = previous / power;
    rows.number[i] = single ? Math.fround(value) : value;
  }
}
