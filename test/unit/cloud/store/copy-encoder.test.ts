import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CopyEncoder } from "../../../../cloud/store/copy-encoder.ts";
import { DataError } from "../../../../protocols/errors.ts";
import type { Value } from "../../../../protocols/reading.ts";
import { columnsOf, type Row } from "../../../contract/store-frames.ts";

/** Reads PostgreSQL's binary COPY format, straight after its manual and with no regard to speed. */
function decode(chunks: readonly Uint8Array[]): (Buffer | null)[][] {
  const bytes = Buffer.concat(chunks);
  expect(bytes.subarray(0, 19).toString("latin1")).toBe("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
  let at = 19;
  const rows: (Buffer | null)[][] = [];
  for (;;) {
    const fields = bytes.readInt16BE(at);
    at += 2;
    if (fields === -1) break;
    const row: (Buffer | null)[] = [];
    for (let i = 0; i < fields; i++) {
      const length = bytes.readInt32BE(at);
      at += 4;
      row.push(length === -1 ? null : bytes.subarray(at, at + length));
      at += Math.max(length, 0);
    }
    rows.push(row);
  }
  expect(at).toBe(bytes.length);
  return rows;
}

/** What a row of the table holds, by its fields. */
function meaning([time, number, frameId, tagId, quality, boolean, text]: (Buffer | null)[]) {
  return {
    time: time!.readBigInt64BE() + 946_684_800_000_000n,
    number: number?.readDoubleBE() ?? null,
    frameId: frameId!.readBigInt64BE(),
    tagId: tagId!.readInt32BE(),
    quality: quality!.readInt32BE() >>> 0,
    boolean: boolean === null ? null : boolean!.readUInt8(),
    text: text?.toString("utf8") ?? null,
  };
}

const row: fc.Arbitrary<Row> = fc.record({
  tag: fc.nat(9),
  time: fc.maxSafeInteger(),
  value: fc.oneof(fc.double(), fc.boolean(), fc.string({ unit: "binary" }), fc.constant<Value>(null)),
  quality: fc.nat(0xffff_ffff),
});
const tagIds = Int32Array.from({ length: 10 }, (_, i) => 2 ** 31 - 10 + i);

describe("the encoder of binary COPY", () => {
  it("writes what PostgreSQL's manual says, for any readings in any frames", () => {
    const frames = fc.array(fc.record({ rows: fc.array(row), frameId: fc.nat(Number.MAX_SAFE_INTEGER) }));
    fc.assert(
      fc.property(frames, (frames) => {
        const encoder = new CopyEncoder();
        const expected = frames.flatMap(({ rows, frameId }) => {
          const times = rows.map(({ time }) => time);
          const span = rows.length === 0 ? null : { from: Math.min(...times), to: Math.max(...times) };
          expect(encoder.add(columnsOf(rows), tagIds, frameId)).toEqual(span);
          return rows.map(({ tag, time, value, quality }) => ({
            time: BigInt(time),
            number: typeof value === "number" ? value : null,
            frameId: BigInt(frameId),
            tagId: tagIds[tag],
            quality,
            boolean: typeof value === "boolean" ? Number(value) : null,
            text: typeof value === "string" ? value.replaceAll("\0", "␀") : null,
          }));
        });
        expect(decode(encoder.finish()).map(meaning)).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });

  it("spreads rows over chunks, each with memory of its own", () => {
    const encoder = new CopyEncoder();
    const rows = Array.from({ length: 10_000 }, (_, i) => ({ tag: 0, time: i, value: "x".repeat(i % 50) }));
    for (let frame = 0; frame < 8; frame++) encoder.add(columnsOf(rows), tagIds, frame);
    const chunks = encoder.finish();
    expect(chunks.length).toBeGreaterThan(3);
    expect(new Set(chunks.map((chunk) => chunk.buffer)).size).toBe(chunks.length);
    const decoded = decode(chunks).map(meaning);
    expect(decoded).toHaveLength(80_000);
    expect(decoded[79_999]).toMatchObject({ frameId: 7n, time: 9999n, text: "x".repeat(49) });
  });

  it.each([
    ["a time that is none", { time: [Number.NaN] }, "NaN is no time"],
    ["a time between microseconds", { time: [0.5] }, "0.5 is no time"],
    ["a time that a number does not hold exactly", { time: [2 ** 53] }, "is no time"],
    ["a tag that the map does not have", { tag: [10] }, "has no tag 10"],
    ["a text that is not there", { kind: [3] }, "text is missing"],
    ["a kind of value that there is not", { kind: [4] }, "no kind of value 4"],
  ])("refuses %s", (_, change, message) => {
    const columns = { ...columnsOf([{ tag: 0, time: 0, value: 1 }]), ...change };
    const add = () => new CopyEncoder().add(columns as never, tagIds, 1);
    expect(add).toThrow(DataError);
    expect(add).toThrow(message);
  });
});
