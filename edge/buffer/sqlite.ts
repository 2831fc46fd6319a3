import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { ConfigError } from "../../protocols/errors.ts";
import type { Gap, Micros } from "../../protocols/reading.ts";
import { isIntact, sealFrame } from "../../protocols/uplink/envelope.ts";
import type {
  AppendResult,
  BufferedFrame,
  BufferOptions,
  BufferStats,
  FrameRecord,
  Recovered,
  StreamPlace,
} from "./buffer.ts";
import { schema, schemaVersion, statements } from "./schema.ts";
import { type FrameAccount, UnreportedAccount } from "./unreported.ts";

/** Free pages (of 4 KiB) that the file keeps. */
const reservePages = 2048;
/** How many damaged or refused frames are kept for inspection, in this share of the buffer's bound. */
const maxSetAside = 100;
const setAsideShare = 1 / 16;
/** Empty tables and the write-ahead log's first pages leave too little of a smaller buffer. */
const leastBytes = 1024 * 1024;
/** Beside its bytes a frame takes a row in a page or two, and what it reports. */
const marginBytes = 16 * 1024;
/** SQLite's result codes for a file that is no database, or no longer one. */
const damagedCodes = new Set([11, 26]);

/**
 * The buffer itself: one SQLite file, in write-ahead mode with `synchronous=FULL`, so that a commit that returned has
 * survived a power cut. Every call blocks until it is done; `ThreadedBuffer` runs it beside the agent's own thread.
 * The file's tables are explained in README.md.
 */
export class SqliteBuffer {
  readonly #options: BufferOptions;
  #database!: DatabaseSync;
  #statements!: Record<keyof typeof statements, StatementSync>;
  #unreported!: UnreportedAccount;
  #stream!: StreamPlace;
  #nextSeq = 1;
  #frames = 0;

  constructor(options: BufferOptions) {
    this.#options = options;
  }

  open(): Recovered {
    const { path, maxBytes } = this.#options;
    if (maxBytes < leastBytes) {
      throw new ConfigError(
        `the buffer in ${path} may take only ${maxBytes} bytes: give buffer.max_size 1 MiB or more`,
      );
    }
    try {
      mkdirSync(path, { recursive: true });
      this.#database = new DatabaseSync(join(path, "buffer.sqlite"), { timeout: 1000 });
      this.#prepare();
      return this.#recover();
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      throw new ConfigError(`the buffer in ${path} cannot be opened: ${adviceOn(error)}`, { cause: error });
    }
  }

  #prepare(): void {
    const database = this.#database;
    // The file is this agent's alone: a second agent on it fails at once instead of sending the same frames.
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL");
    database.exec("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304");
    const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
    if (version > schemaVersion) {
      throw new ConfigError(
        `the buffer in ${this.#options.path} was written by a newer Millrace (format ${version}); run that version, or name another folder`,
      );
    }
    if (version === 0) {
      this.#transaction(() => database.exec(schema));
    }
    const prepared = Object.entries(statements).map(([name, sql]) => [name, database.prepare(sql)]);
    this.#statements = Object.fromEntries(prepared);
    this.#unreported = new UnreportedAccount(this.#statements);
  }

  #recover(): Recovered {
    this.#nextSeq = (this.#statements.counter.get() as { next_seq: number }).next_seq;
    const streams = this.#transaction(() => this.#beginStream());
    this.#frames = (this.#statements.countFrames.get() as { frames: number }).frames;
    const watermarks = this.#statements.watermarks.all() as { device: string; time: Micros }[];
    const gaps = this.#statements.openGaps.all() as unknown as (Gap & { readonly tag: string })[];
    return {
      streams,
      watermarks: new Map(watermarks.map(({ device, time }) => [device, time])),
      openGaps: gaps.map((gap) => ({ ...gap, tag: gap.tag || null, to: null })),
      losses: this.#transaction(() => this.#unreported.offer()),
    };
  }

  /**
   * Each opening begins a new stream. A file that was put back from a copy, or a disk that lost what it had confirmed,
   * would otherwise give new frames the numbers of others that the cloud has already, which would end there as
   * duplicates. @returns the streams that have frames here, the new one last
   */
  #beginStream(): StreamPlace[] {
    const before = this.#nextSeq - 1;
    this.#statements.endEmptyStreams.run(before);
    this.#statements.endSentStreams.run();
    this.#stream = { uuid: randomUUID().replaceAll("-", ""), before };
    this.#statements.beginStream.run(this.#stream.uuid, before);
    return this.#statements.streams.all() as unknown as StreamPlace[];
  }

  #transaction<T>(work: () => T): T {
    const before = { nextSeq: this.#nextSeq, frames: this.#frames };
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      this.#nextSeq = before.nextSeq;
      this.#frames = before.frames;
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  /** Appends frames in one transaction: one flush to disk for all of them. */
  append(records: readonly FrameRecord[]): AppendResult[] {
    return this.#transaction(() => {
      const seqs = records.map((record) => this.#appendOne(record));
      const losses = this.#unreported.offer();
      return seqs.map((seq) => ({ seq, losses }));
    });
  }

  #appendOne({ content, spans, gaps, losses, watermarks }: FrameRecord): number {
    const seq = this.#nextSeq;
    const { uuid: stream, before } = this.#stream;
    const bytes = sealFrame({ edge: this.#options.edge, stream, seq: seq - before }, content);
    const needed = bytes.length + marginBytes;
    const full = this.#frames > 0 && this.#usedBytes() + needed > this.#options.maxBytes;
    if (full && this.#options.whenFull === "stop_collecting") return 0;
    if (full) this.#dropOldest(needed);
    const reports = this.#unreported.carried([...losses, ...gaps]);
    this.#statements.insertFrame.run(seq, content.mapHash, JSON.stringify(spans), reports, bytes);
    this.#frames++;
    this.#statements.saveNextSeq.run(++this.#nextSeq);
    this.#keepGaps(gaps);
    this.#keepWatermarks(watermarks);
    return seq;
  }

  #keepGaps(gaps: readonly Gap[]): void {
    for (const { device, tag, reason, from, to, detail } of gaps) {
      if (to === null) this.#statements.gapOpens.run(device, tag ?? "", reason, from, detail);
      else this.#statements.gapCloses.run(device, tag ?? "", reason, from);
    }
  }

  #keepWatermarks(watermarks: ReadonlyMap<string, Micros>): void {
    for (const [device, time] of watermarks) this.#statements.saveWatermark.run(device, time);
  }

  mark(watermarks: ReadonlyMap<string, Micros>): void {
    this.#transaction(() => this.#keepWatermarks(watermarks));
  }

  /** Drops frames, oldest first, until a sixteenth of the bound is free: not one by one, which would cost each append. */
  #dropOldest(needed: number): void {
    const { maxBytes } = this.#options;
    const target = maxBytes - Math.max(needed, maxBytes / 16);
    while (this.#usedBytes() > target) {
      const frame = this.#statements.oldestAccount.get() as FrameAccount | undefined;
      if (frame === undefined) return;
      this.#unreported.lost(frame, "buffer_full", true);
      this.#delete(frame.seq);
    }
  }

  #delete(seq: number): void {
    this.#frames -= Number(this.#statements.deleteFrame.run(seq).changes);
  }

  /** Bytes of the file that hold something: its size without its free pages. */
  #usedBytes(): number {
    const { used } = this.#statements.usedBytes.get() as { used: number };
    return used;
  }

  oldest(afterSeq: number, limit: number): BufferedFrame[] {
    for (;;) {
      const rows = this.#statements.oldest.all(afterSeq, limit) as unknown as BufferedFrame[];
      const damaged = rows.filter(({ bytes }) => !isIntact(bytes)).map(({ seq }) => seq);
      if (damaged.length === 0) return rows;
      const reason = "it was damaged on the edge's disk";
      this.#setAside(
        damaged.map((seq) => ({ seq, reason })),
        true,
      );
    }
  }

  release(seqs: readonly number[]): void {
    this.#transaction(() => {
      for (const seq of seqs) this.#delete(seq);
      // Drained space goes back to the file system, but for a reserve that the next frames fill again.
      const { free } = this.#statements.freePages.get() as { free: number };
      if (free > reservePages) this.#database.exec(`PRAGMA incremental_vacuum(${free - reservePages})`);
    });
  }

  setAside(refused: readonly { readonly seq: number; readonly reason: string }[]): void {
    this.#setAside(refused, false);
  }

  #setAside(frames: readonly { readonly seq: number; readonly reason: string }[], reportAgain: boolean): void {
    this.#transaction(() => {
      for (const { seq, reason } of frames) {
        const frame = this.#statements.account.get(seq) as FrameAccount | undefined;
        if (frame === undefined) continue;
        this.#statements.copyAside.run(reason, seq);
        this.#unreported.lost(frame, "frame_refused", reportAgain);
        this.#delete(seq);
      }
      this.#statements.trimAside.run(maxSetAside, this.#options.maxBytes * setAsideShare);
    });
  }

  saveMap(hash: string, bytes: Uint8Array): void {
    this.#transaction(() => {
      this.#statements.dropUnusedMaps.run(hash);
      this.#statements.saveMap.run(hash, bytes);
    });
  }

  map(hash: string): Uint8Array | undefined {
    return (this.#statements.map.get(hash) as { bytes: Uint8Array } | undefined)?.bytes;
  }

  stats(): BufferStats {
    return { frames: this.#frames, bytes: this.#usedBytes(), nextSeq: this.#nextSeq };
  }

  close(): void {
    this.#database.close();
  }
}

/** What a person can do about a file that does not open. */
function adviceOn(error: unknown): string {
  const code = (error as { errcode?: number }).errcode ?? 0;
  if ((code & 0xff) === 5) return "another agent has it open: stop that one first";
  if (damagedCodes.has(code & 0xff)) {
    return "its file is damaged: check the disk, move buffer.sqlite and buffer.sqlite-wal to another place, and start again; what was not forwarded stays in those files";
  }
  return "check the folder's rights and its disk";
}
