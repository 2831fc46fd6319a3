import type { Gap, GapReason, Micros, Quality, Value } from "../../protocols/reading.ts";
import type { DeviceMap, FrameContent, FrameId } from "../../protocols/uplink/frame.ts";

/** A checked and decoded frame on its way into the store. */
export interface IncomingFrame extends FrameId {
  /** Hash of the device map its tag indices refer to, as lower-case hex. */
  readonly mapHash: string;
  readonly content: FrameContent;
  /** The frame as it came over the wire, for the frame log. */
  readonly raw: Uint8Array;
}

/** What became of a frame: stored now; there already, so nothing was written; or its device map is not stored yet. */
export type WriteOutcome = "stored" | "duplicate" | "unknown_map";

/** A message that was refused, kept for inspection. */
export interface RefusedMessage {
  readonly topic: string;
  /** The edge the topic or the frame names, as far as it could be read. */
  readonly edge: string | null;
  readonly stream: string | null;
  readonly seq: number | null;
  readonly reason: string;
  readonly payload: Uint8Array;
}

export interface RefusedRow extends RefusedMessage {
  readonly refusedAt: Micros;
  /** How long the message was; `payload` may hold only its beginning. */
  readonly payloadBytes: number;
}

/** What the database can do beyond plain PostgreSQL; detected by `migrate`. */
export interface StoreFeatures {
  readonly engine: "pglite" | "postgresql" | "timescaledb";
  /** Server version, and the edition of TimescaleDB where there is one. */
  readonly version: string;
  readonly hypertable: boolean;
  readonly columnstore: boolean;
  readonly continuousAggregates: boolean;
}

/** Times before which the store's contents are deleted; what has none is kept for ever. */
export interface RetentionLimits {
  /** By the readings' own time; also for gaps that have ended. */
  readonly readings?: Micros;
  /** The frame log, by the time at which a frame was stored. */
  readonly frames?: Micros;
}

/** What was deleted: whole chunks where the readings are a hypertable, single readings elsewhere. */
export interface RetentionResult {
  readonly chunks: number;
  readonly readings: number;
  readonly frames: number;
}

export interface EdgeRow {
  readonly edge: string;
  readonly site: string | null;
  readonly firstSeen: Micros;
  /** When its last frame was committed. */
  readonly lastFrameAt: Micros | null;
  readonly frames: number;
  readonly streams: readonly StreamRow[];
}

/** The ledger's account of one stream. It is whole up to `lastSeq` when `missing` is empty. */
export interface StreamRow {
  readonly stream: string;
  readonly frames: number;
  readonly lastSeq: number;
  /** Ranges of sequence numbers below `lastSeq` that have not arrived, both ends included. */
  readonly missing: readonly (readonly [from: number, to: number])[];
}

export interface TagRow {
  /** `edge.device.tag`, the tag's name in the API. */
  readonly tag: string;
  readonly edge: string;
  readonly device: string;
  readonly name: string;
  readonly kind: string;
  readonly description: string | null;
  readonly unit: string | null;
  readonly equipment: string | null;
  readonly range: readonly [number, number] | null;
  /** The reading with the greatest time; null when there is none. */
  readonly latest: StoredReading | null;
}

export interface StoredReading {
  readonly time: Micros;
  readonly value: Value;
  readonly quality: Quality;
}

export interface GapRow extends Gap {
  readonly edge: string;
}

export interface TagFilter {
  readonly edge?: string;
  readonly device?: string;
  /** ISA-95 path; matches it and everything below. */
  readonly equipment?: string;
  /** Only tags after this one, in order of their names: the cursor of a page. */
  readonly after?: string;
  readonly limit: number;
}

export interface ReadingRange {
  /** Inclusive. */
  readonly from: Micros;
  /** Exclusive. */
  readonly to: Micros;
  readonly limit: number;
  /** Continue after this position (the last reading of the page before). Readings with equal time are kept apart. */
  readonly after?: ReadingPosition;
}

/** Identifies a reading within its tag's readings, in order of time, then of arrival. */
export interface ReadingPosition {
  readonly time: Micros;
  readonly frameId: number;
  /** How many readings of this time and frame came before the next one. */
  readonly skip: number;
}

export interface ReadingPage {
  readonly readings: readonly StoredReading[];
  /** Where the next page starts; null when this one is the last. */
  readonly next: ReadingPosition | null;
}

export interface GapFilter {
  readonly edge?: string;
  readonly device?: string;
  /** Name within the device; also matches the gaps of the whole device. */
  readonly tag?: string;
  readonly reason?: GapReason;
  /** Gaps that overlap [from, to). */
  readonly from?: Micros;
  readonly to?: Micros;
  readonly limit: number;
}

/**
 * The database, whichever it is. Every method may throw a LinkError (the database is out of reach; try again later) or
 * a DataError (this item is impossible; trying again is no use).
 */
export interface Store {
  /** Known after `migrate`. */
  readonly features: StoreFeatures;

  /**
   * Brings the schema up to date. Safe to call twice, and from two processes at once.
   * @throws ConfigError when the database is newer than this program, or refuses its user
   */
  migrate(): Promise<void>;

  /** Stores a device map, before the first frame that needs it. Idempotent. */
  saveDeviceMap(hash: string, map: DeviceMap, raw: Uint8Array): Promise<void>;

  /**
   * Writes frames in one transaction: the ledger and frame log (unique on edge, stream, seq: a duplicate ends there),
   * their readings and their gaps. When the promise resolves, the transaction is committed. Outcomes are in the order
   * of the frames. On a DataError nothing was written; write the frames one by one to find the one at fault. May be
   * called again before it is done: a server then copies one group while the next is prepared.
   */
  write(frames: readonly IncomingFrame[]): Promise<WriteOutcome[]>;

  /** Keeps refused messages for inspection; the oldest make room when there are too many. */
  keepRefused(messages: readonly RefusedMessage[]): Promise<void>;
  /** The refused messages that are kept, the latest first. */
  refusedMessages(limit: number): Promise<RefusedRow[]>;

  edges(): Promise<EdgeRow[]>;
  tags(filter: TagFilter): Promise<TagRow[]>;
  /** One tag by its full name; undefined when there is none. */
  tag(name: string): Promise<TagRow | undefined>;
  readings(tag: string, range: ReadingRange): Promise<ReadingPage>;
  /** The gaps that match: those that begin last come first, those that begin together keep an order of their own. */
  gaps(filter: GapFilter): Promise<GapRow[]>;

  /**
   * Deletes what is older than the limits, and does the database's housekeeping where it does none itself: to be called
   * at least once a day, limits or not. A frame stays a duplicate after its row in the frame log is deleted.
   */
  applyRetention(limits: RetentionLimits): Promise<RetentionResult>;

  /** Resolves when the database answers. */
  ping(): Promise<void>;
  close(): Promise<void>;
}
