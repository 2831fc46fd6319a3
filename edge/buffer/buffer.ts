import type { Gap, Micros } from "../../protocols/reading.ts";
import type { PackedContent } from "../../protocols/uplink/envelope.ts";

/** When the buffer has reached its bound: give up the oldest frames, or take no more. */
export type WhenFull = "drop_oldest" | "stop_collecting";

export interface BufferOptions {
  /** Name of the edge, which every frame carries. */
  readonly edge: string;
  /** Folder of the buffer's files; made when it is missing. */
  readonly path: string;
  /** Bound of the buffer's data, in bytes; the write-ahead log beside it takes some MiB more. */
  readonly maxBytes: number;
  readonly whenFull: WhenFull;
}

/** The readings of one device in one frame: how many, from when to when. What is known of a frame that gets lost. */
export interface DeviceSpan {
  readonly device: string;
  readonly from: Micros;
  readonly to: Micros;
  readonly readings: number;
}

/** What is written in one transaction with a frame, so that a restart finds frames and bookkeeping in agreement. */
export interface FrameRecord {
  readonly content: PackedContent;
  readonly spans: readonly DeviceSpan[];
  /** The gaps that the frame reports: open ones are remembered until they are reported closed. */
  readonly gaps: readonly Gap[];
  /** What the frame reports of the losses that an earlier append, or `open`, told of. */
  readonly losses: readonly Gap[];
  /** Until when each device's data is known to be whole. */
  readonly watermarks: ReadonlyMap<string, Micros>;
}

/** Where a stream stands in the buffer: frame n of the stream is frame `before + n` of the buffer. */
export interface StreamPlace {
  /** 32 hex digits. */
  readonly uuid: string;
  readonly before: number;
}

/** A frame in the buffer, ready to be sent. */
export interface BufferedFrame {
  /** The frame's number in this buffer, which goes on over restarts; its number in its stream stands in the frame. */
  readonly seq: number;
  readonly mapHash: string;
  /** The frame as it goes over the wire. */
  readonly bytes: Uint8Array;
}

/** What the last run left behind. */
export interface Recovered {
  /** The streams that frames here belong to, the one that begins now last: each opening begins one. */
  readonly streams: readonly StreamPlace[];
  readonly watermarks: ReadonlyMap<string, Micros>;
  /** Gaps that were reported open and not closed since. */
  readonly openGaps: readonly Gap[];
  /** Losses that no frame has reported yet, and gaps whose reports were lost with their frames. */
  readonly losses: readonly Gap[];
}

export interface AppendResult {
  /** The frame's number in the buffer; 0 when the buffer is full and the policy is `stop_collecting`: nothing was written. */
  readonly seq: number;
  /** What the next frame is to report: losses, and gaps whose reports were lost with their frames. */
  readonly losses: readonly Gap[];
}

export interface BufferStats {
  readonly frames: number;
  /** Bytes in use, of `maxBytes`. */
  readonly bytes: number;
  /** The next frame's number. */
  readonly nextSeq: number;
}

/** The edge's store of frames on disk. A frame exists once `append` has resolved, and until it is released. */
export interface FrameBuffer {
  /** @throws ConfigError when the folder cannot be used */
  open(): Promise<Recovered>;
  /** Resolves once the frame is on disk, durably. */
  append(record: FrameRecord): Promise<AppendResult>;
  /** Remembers until when each device's data is whole, when there was nothing to append. */
  mark(watermarks: ReadonlyMap<string, Micros>): Promise<void>;
  /** The oldest frames after number `afterSeq`, in order. A frame that was damaged on disk is set aside on the way. */
  oldest(afterSeq: number, limit: number): Promise<BufferedFrame[]>;
  /** Deletes frames: only the cloud's acknowledgement after its COMMIT may cause this. */
  release(seqs: readonly number[]): Promise<void>;
  /** Keeps frames out of the way that the cloud can never store; what they held becomes a gap. */
  setAside(refused: readonly { readonly seq: number; readonly reason: string }[]): Promise<void>;
  /** Keeps a device map for as long as frames may name it. */
  saveMap(hash: string, bytes: Uint8Array): Promise<void>;
  map(hash: string): Promise<Uint8Array | undefined>;
  stats(): Promise<BufferStats>;
  close(): Promise<void>;
}
