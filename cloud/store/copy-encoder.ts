import { DataError } from "../../protocols/errors.ts";
import { type ReadingColumns, RowKind, type TimeSpan } from "../../protocols/uplink/frame.ts";
import { storableText } from "./text.ts";

/** The table and columns, in the order in which `CopyEncoder` writes them. */
export const readingTarget = 'reading ("time", number, frame_id, tag_id, quality, "boolean", text)';

const halfRange = 0x1_0000_0000;
/** 2000-01-01, where PostgreSQL's timestamps start, in microseconds since 1970: upper and lower 32 bits. */
const epochHigh = Math.floor(946_684_800_000_000 / halfRange);
const epochLow = 946_684_800_000_000 % halfRange;
const columnCount = 7;
/** Of a row with a number, the longest but for texts: the count of fields, and length and value of each. */
const maxRowBytes = 2 + 12 + 12 + 12 + 8 + 8 + 4 + 4;
/** What the UTF-8 of one UTF-16 unit takes at most. */
const maxUnitBytes = 3;
const chunkBytes = 1 << 20;
const nullField = -1;

/** "PGCOPY\n\xff\r\n\0", no flags, no header extension (PostgreSQL manual, COPY, "Binary Format"). */
const header = Uint8Array.from([0x50, 0x47, 0x43, 0x4f, 0x50, 0x59, 0x0a, 0xff, 0x0d, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const trailerBytes = 2;

/**
 * Writes readings in the binary format of COPY. This is the hot path of the whole cloud: no object and no bigint per
 * row; 64-bit integers are split into two halves.
 */
export class CopyEncoder {
  readonly #chunks: Uint8Array[] = [];
  #bytes = Buffer.allocUnsafeSlow(0);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  constructor() {
    this.#reserve(header.length);
    this.#bytes.set(header);
    this.#length = header.length;
  }

  /**
   * Adds the readings of one frame.
   * @param tagIds the store's number of each tag of the frame's device map
   * @returns the time span of the readings
   * @throws DataError when a row cannot exist; the encoder is of no use then
   */
  add(columns: ReadingColumns, tagIds: ArrayLike<number>, frameId: number): TimeSpan | null {
    const { count, tag, time, quality, kind, number, texts } = columns;
    let textBytes = 0;
    for (const text of texts) textBytes += text.length * maxUnitBytes;
    this.#reserve(count * maxRowBytes + textBytes);
    const view = this.#view;
    const frameHigh = Math.floor(frameId / halfRange);
    const frameLow = frameId >>> 0;
    let at = this.#length;
    let nextText = 0;
    let from = Number.POSITIVE_INFINITY;
    let to = Number.NEGATIVE_INFINITY;
    for (let row = 0; row < count; row++) {
      const micros = time[row]!;
      if (!Number.isSafeInteger(micros)) throw impossible(row, `${micros} is no time in microseconds`);
      if (micros < from) from = micros;
      if (micros > to) to = micros;
      const tagId = tagIds[tag[row]!];
      if (tagId === undefined) throw impossible(row, `its device map has no tag ${tag[row]}`);
      // By halves: the difference as a whole may need more than a number's 53 bits.
      const microsHigh = Math.floor(micros / halfRange);
      const low = micros - microsHigh * halfRange - epochLow;

      view.setInt16(at, columnCount);
      view.setInt32(at + 2, 8);
      view.setInt32(at + 6, microsHigh - epochHigh - (low < 0 ? 1 : 0));
      view.setUint32(at + 10, low < 0 ? low + halfRange : low);
      if (kind[row] === RowKind.Number) {
        view.setInt32(at + 14, 8);
        view.setFloat64(at + 18, number[row]!);
        at += 26;
      } else {
        view.setInt32(at + 14, nullField);
        at += 18;
      }
      view.setInt32(at, 8);
      view.setInt32(at + 4, frameHigh);
      view.setUint32(at + 8, frameLow);
      view.setInt32(at + 12, 4);
      view.setInt32(at + 16, tagId);
      view.setInt32(at + 20, 4);
      view.setInt32(at + 24, quality[row]!);
      at += 28;
      switch (kind[row]) {
        case RowKind.Number:
        case RowKind.Null:
          view.setInt32(at, nullField);
          view.setInt32(at + 4, nullField);
          at += 8;
          break;
        case RowKind.Boolean:
          view.setInt32(at, 1);
          view.setUint8(at + 4, number[row] === 0 ? 0 : 1);
          view.setInt32(at + 5, nullField);
          at += 9;
          break;
        case RowKind.Text: {
          const text = texts[nextText++];
          if (text === undefined) throw impossible(row, "its text is missing");
          view.setInt32(at, nullField);
          const length = this.#bytes.write(storableText(text), at + 8);
          view.setInt32(at + 4, length);
          at += 8 + length;
          break;
        }
        default:
          throw impossible(row, `there is no kind of value ${kind[row]}`);
      }
    }
    this.#length = at;
    return count === 0 ? null : { from, to };
  }

  /** The bytes for COPY, each chunk with an ArrayBuffer of its own. The encoder is at its end. */
  finish(): Uint8Array[] {
    this.#reserve(trailerBytes);
    this.#view.setInt16(this.#length, -1);
    this.#length += trailerBytes;
    this.#seal();
    return this.#chunks;
  }

  /** Makes room for `bytes` in one piece. */
  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    this.#seal();
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(bytes, chunkBytes));
    this.#view = new DataView(this.#bytes.buffer);
    this.#length = 0;
  }

  #seal(): void {
    if (this.#length > 0) this.#chunks.push(this.#bytes.subarray(0, this.#length));
  }
}

function impossible(row: number, why: string): DataError {
  return new DataError(`Reading ${row} of the frame cannot be stored: ${why}`);
}
