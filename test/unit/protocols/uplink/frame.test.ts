import { crc32, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DataError } from "../../../../protocols/errors.ts";
import type { Gap } from "../../../../protocols/reading.ts";
import { timeRange } from "../../../../protocols/uplink/columns.ts";
import {
  isIntact,
  maxContentBytes,
  openEnvelope,
  packContent,
  sealFrame,
  unpackContent,
} from "../../../../protocols/uplink/envelope.ts";
import { type ReadingColumns, RowKind } from "../../../../protocols/uplink/frame.ts";

const id = { edge: "line-3", stream: "00112233445566778899aabbccddeeff", seq: 4711 };
const mapHash = "0f0e0d0c0b0a09080706050403020100";
const runs = Number(process.env.MILLRACE_FUZZ_RUNS ?? 2000);

interface Row {
  tag: number;
  time: number;
  quality: number;
  value: number | boolean | string | null;
}

function columnsOf(rows: readonly Row[]): ReadingColumns {
  const grouped = [...rows].sort((a, b) => a.tag - b.tag);
  const kinds = { number: RowKind.Number, boolean: RowKind.Boolean, string: RowKind.Text, object: RowKind.Null };
  return {
    count: grouped.length,
    tag: Uint32Array.from(grouped, (row) => row.tag),
    time: Float64Array.from(grouped, (row) => row.time),
    quality: Uint32Array.from(grouped, (row) => row.quality),
    kind: Uint8Array.from(grouped, (row) => kinds[typeof row.value as keyof typeof kinds]),
    number: Float64Array.from(grouped, (row) => (typeof row.value === "string" ? 0 : Number(row.value))),
    texts: grouped.flatMap((row) => (typeof row.value === "string" ? [row.value] : [])),
  };
}

function roundTrip(rows: readonly Row[], gaps: readonly Gap[] = []) {
  const columns = columnsOf(rows);
  const frame = sealFrame(id, packContent(mapHash, columns, gaps));
  const envelope = openEnvelope(frame);
  return { columns, frame, envelope, content: unpackContent(envelope) };
}

const value = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.integer({ min: -100_000, max: 100_000 }).map((n) => n / 100),
  fc.integer({ min: -100_000, max: 100_000 }).map((n) => Math.fround(n / 10)),
  fc.constantFrom(-0, 0, Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53, -(2 ** 53), 1e22),
  fc.boolean(),
  fc.constant(null),
  fc.string({ unit: "binary" }),
);
const row: fc.Arbitrary<Row> = fc.record({
  tag: fc.oneof(fc.nat(5), fc.nat(100_000)),
  time: fc.oneof(
    fc.nat().map((n) => 1_780_000_000_000_000 + n * 1000),
    fc.integer({ min: timeRange.from, max: timeRange.to - 1 }),
  ),
  quality: fc.oneof(fc.constant(0), fc.nat(0xffffffff)),
  value,
});

describe("a frame", () => {
  it("carries every reading exactly", () => {
    fc.assert(
      fc.property(fc.array(row, { maxLength: 60 }), (rows) => {
        const { columns, content } = roundTrip(rows);
        expect(content.readings).toEqual(columns);
      }),
      { numRuns: runs },
    );
  });

  it("carries gaps, open and closed", () => {
    const gaps: Gap[] = [
      { device: "drives", tag: null, reason: "device_down", from: 1_780_000_000_000_001, to: null, detail: "refused" },
      { device: "drives", tag: "speed", reason: "tag_bad", from: 5, to: 6, detail: "" },
    ];
    expect(roundTrip([], gaps).content.gaps).toEqual(gaps);
  });

  it("names its edge, stream, sequence number and device map without being opened", () => {
    expect(roundTrip([]).envelope).toMatchObject({ ...id, mapHash });
  });

  it("takes fewer than 3 bytes a reading for values of instruments", () => {
    const rows = Array.from({ length: 4000 }, (_, n) => ({
      tag: n % 40,
      time: 1_780_000_000_000_000 + Math.floor(n / 40) * 1_000_000 + (n % 7) * 1000,
      quality: 0,
      value: Math.round((60 + 20 * Math.sin(n / 300 + (n % 40)) + ((n * 7919) % 13) / 50) * 10) / 10,
    }));
    expect(roundTrip(rows).frame.length / rows.length).toBeLessThan(3);
  });
});

describe("a damaged frame", () => {
  const { frame } = roundTrip(
    Array.from({ length: 50 }, (_, n) => ({ tag: n % 5, time: 1_780_000_000_000_000 + n, quality: 0, value: n / 3 })),
  );
  /** With the checksum made right again, so that the inner checks are reached. */
  function reseal(damaged: Uint8Array): Uint8Array {
    const copy = Buffer.from(damaged);
    copy.writeUInt32LE(crc32(copy.subarray(5)), 1);
    return copy;
  }

  it("is refused when any byte changed or the end is missing", () => {
    for (let at = 0; at < frame.length; at++) {
      const damaged = Buffer.from(frame);
      damaged[at] = damaged[at]! ^ 0x10;
      expect(() => openEnvelope(damaged), `byte ${at}`).toThrow(DataError);
      expect(() => openEnvelope(frame.subarray(0, at)), `cut at ${at}`).toThrow(DataError);
    }
    expect(isIntact(frame)).toBe(true);
  });

  it("is refused with a DataError and nothing else, whatever the bytes behind a right checksum", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(frame.length - 6), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        (edits) => {
          const damaged = Buffer.from(frame);
          for (const [at, byte] of edits) damaged[5 + at] = byte;
          try {
            unpackContent(openEnvelope(reseal(damaged)));
          } catch (error) {
            expect(error).toBeInstanceOf(DataError);
          }
        },
      ),
      { numRuns: runs },
    );
  });

  it("is refused when its content, itself well compressed, is arbitrary bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const envelope = { ...id, mapHash, contentSize: bytes.length, content: zstdCompressSync(bytes) };
        try {
          unpackContent(envelope);
        } catch (error) {
          expect(error).toBeInstanceOf(DataError);
        }
      }),
      { numRuns: runs },
    );
  });

  it("is refused when it is a decompression bomb, honest about its size or not", () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
    const before = process.memoryUsage().rss;
    for (const contentSize of [0, 100, maxContentBytes, maxContentBytes + 1, 64 * 1024 * 1024]) {
      const envelope = { ...id, mapHash, contentSize, content: bomb };
      expect(() => unpackContent(envelope)).toThrow(DataError);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(48 * 1024 * 1024);
  });

  it("is refused when its format is unknown, saying which one is known", () => {
    const other = Buffer.from(frame);
    other[0] = 9;
    expect(() => openEnvelope(other)).toThrow("frame format 9 is unknown here; this program reads format 1");
  });
});
