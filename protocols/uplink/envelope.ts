import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { DataError } from "../errors.ts";
import { type Gap, type GapReason, gapReasons } from "../reading.ts";
import { decodeColumns, encodeColumns, maxRows } from "./columns.ts";
import type { FrameContent, FrameId, ReadingColumns } from "./frame.ts";
import { ContentSchema, EnvelopeSchema, type GapEntry } from "./gen/frame_pb.ts";

/** The first byte of every frame of this format. */
export const formatVersion = 1;
/** Content above this size, before or after compression, is refused. */
export const maxContentBytes = 8 * 1024 * 1024;
/** More gaps, or different texts, than this in one frame are refused. */
const maxEntries = maxRows;
const prefixBytes = 5; // format version, CRC-32

/** A frame's content, compressed: all that can be made before its place in a stream is known. */
export interface PackedContent {
  /** Hash of the device map, lower-case hex. */
  readonly mapHash: string;
  /** How many readings it holds. */
  readonly count: number;
  /** Bytes before compression. */
  readonly size: number;
  readonly bytes: Uint8Array;
}

/** An envelope that was checked as far as is possible without opening its content. */
export interface OpenedEnvelope extends FrameId {
  readonly mapHash: string;
  readonly contentSize: number;
  readonly content: Uint8Array;
}

/** Encodes and compresses readings (grouped by tag, see `encodeColumns`) and gaps. */
export function packContent(mapHash: string, readings: ReadingColumns, gaps: readonly Gap[]): PackedContent {
  const columns = encodeColumns(readings);
  const message = create(ContentSchema, { ...columns, texts: [...columns.texts], gaps: gaps.map(gapEntry) });
  const plain = toBinary(ContentSchema, message);
  const bytes = zstdCompressSync(plain, { params: { [constants.ZSTD_c_compressionLevel]: 3 } });
  return { mapHash, count: readings.count, size: plain.length, bytes };
}

function gapEntry(gap: Gap): Omit<GapEntry, "$typeName"> {
  return {
    device: gap.device,
    tag: gap.tag ?? undefined,
    reason: gap.reason,
    fromUs: BigInt(gap.from),
    toUs: gap.to === null ? undefined : BigInt(gap.to),
    detail: gap.detail,
  };
}

/** The frame as it goes over the wire. */
export function sealFrame(id: FrameId, packed: PackedContent): Uint8Array {
  const message = create(EnvelopeSchema, {
    edge: id.edge,
    stream: Buffer.from(id.stream, "hex"),
    seq: BigInt(id.seq),
    deviceMap: Buffer.from(packed.mapHash, "hex"),
    contentSize: packed.size,
    content: packed.bytes,
  });
  const body = toBinary(EnvelopeSchema, message);
  const frame = Buffer.allocUnsafe(prefixBytes + body.length);
  frame[0] = formatVersion;
  frame.writeUInt32LE(crc32(body), 1);
  frame.set(body, prefixBytes);
  return frame;
}

/** True when the frame's checksum is right: what was sealed is what is here. */
export function isIntact(frame: Uint8Array): boolean {
  if (frame.length <= prefixBytes) return false;
  const view = new DataView(frame.buffer, frame.byteOffset);
  return view.getUint32(1, true) === crc32(frame.subarray(prefixBytes));
}

/**
 * Checks a frame's format, checksum and header. Cheap: the content stays compressed.
 * @throws DataError saying what is wrong
 */
export function openEnvelope(frame: Uint8Array): OpenedEnvelope {
  if (frame.length <= prefixBytes) throw new DataError(`a frame of ${frame.length} bytes is too short to be one`);
  if (frame[0] !== formatVersion) {
    throw new DataError(`frame format ${frame[0]} is unknown here; this program reads format ${formatVersion}`);
  }
  if (!isIntact(frame)) throw new DataError("the frame's checksum is wrong: it was damaged or cut on the way");
  const message = parseProtobuf("envelope", () => fromBinary(EnvelopeSchema, frame.subarray(prefixBytes)));
  if (message.stream.length !== 16) throw new DataError("the frame's stream is no UUID");
  if (message.deviceMap.length !== 16) throw new DataError("the frame's device map hash is not 16 bytes long");
  if (message.seq < 1n || message.seq > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new DataError(`the frame's sequence number ${message.seq} is out of range`);
  }
  return {
    edge: message.edge,
    stream: Buffer.from(message.stream).toString("hex"),
    seq: Number(message.seq),
    mapHash: Buffer.from(message.deviceMap).toString("hex"),
    contentSize: message.contentSize,
    content: message.content,
  };
}

/**
 * Decompresses and decodes a frame's content; never takes more memory than `maxContentBytes` allows.
 * @throws DataError saying what is wrong
 */
export function unpackContent(envelope: OpenedEnvelope): FrameContent {
  if (envelope.contentSize > maxContentBytes) {
    throw new DataError(
      `the frame claims ${envelope.contentSize} bytes of content; at most ${maxContentBytes} are taken`,
    );
  }
  const plain = decompress(envelope);
  if (plain.length !== envelope.contentSize) {
    throw new DataError(`the frame claims ${envelope.contentSize} bytes of content but holds ${plain.length}`);
  }
  const message = parseProtobuf("content", () => {
    checkEntries(plain);
    return fromBinary(ContentSchema, plain);
  });
  return { readings: decodeColumns(message), gaps: message.gaps.map(gapFrom) };
}

function decompress(envelope: OpenedEnvelope): Uint8Array {
  try {
    // The limit is what stops a decompression bomb, whatever its header claims.
    return zstdDecompressSync(envelope.content, { maxOutputLength: Math.max(1, envelope.contentSize) });
  } catch (error) {
    throw new DataError("the frame's content cannot be decompressed to its claimed size", { cause: error });
  }
}

/** Counts the gaps and texts before they are made: one of two bytes becomes an object of more than a hundred. */
function checkEntries(content: Uint8Array): void {
  const reader = new BinaryReader(content);
  const entries = new Map<number, number>([
    [ContentSchema.field.gaps.number, 0],
    [ContentSchema.field.texts.number, 0],
  ]);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    reader.skip(wireType, field);
    const count = entries.get(field);
    if (count === undefined) continue;
    if (count === maxEntries) throw new DataError(`the frame holds more than ${maxEntries} gaps or texts`);
    entries.set(field, count + 1);
  }
}

function parseProtobuf<T>(part: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof DataError) throw error;
    throw new DataError(`the frame's ${part} is no valid message`, { cause: error });
  }
}

function gapFrom(entry: GapEntry): Gap {
  const reason = entry.reason as GapReason;
  if (!gapReasons.includes(reason)) throw new DataError(`the frame names the unknown gap reason "${entry.reason}"`);
  return {
    device: entry.device,
    tag: entry.tag ?? null,
    reason,
    from: micros(entry.fromUs),
    to: entry.toUs === undefined ? null : micros(entry.toUs),
    detail: entry.detail,
  };
}

function micros(value: bigint): number {
  const time = Number(value);
  if (!Number.isSafeInteger(time)) throw new DataError(`the gap's time ${value} is out of range`);
  return time;
}
