import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { ConfigError } from "../../protocols/errors.ts";
import type { Gap, GapReason, Micros } from "../../protocols/reading.ts";
import { isIntact, sealFrame } from "../../protocols/uplink/envelope.ts";
import type {
  AppendResult,
  BufferedFrame,
  BufferOptions,
  BufferStats,
  DeviceSpan,
  FrameRecord,
  Recovered,
} from "./buffer.ts";

const schemaVersion = 1;
const schema = `
  CREATE TABLE stream (uuid TEXT NOT NULL, next_seq INTEGER NOT NULL) STRICT;
  CREATE TABLE frame (seq INTEGER PRIMARY KEY, map_hash TEXT NOT NULL, spans TEXT NOT NULL, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE frame_set_aside (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE device_map (hash TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE watermark (device TEXT PRIMARY KEY, time INTEGER NOT NULL) STRICT;
  CREATE TABLE open_gap (device TEXT, tag TEXT, reason TEXT, start INTEGER, detail TEXT NOT NULL,
    PRIMARY KEY (device, tag, reason, start)) STRICT;
  -- What was dropped or set aside and is not yet reported in a frame: one row a device and reason.
  CREATE TABLE loss (device TEXT, reason TEXT, start INTEGER NOT NULL, stop INTEGER NOT NULL, readings INTEGER NOT NULL,
    first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, PRIMARY KEY (device, reason)) STRICT;
  PRAGMA user_version = ${schemaVersion};
`;
/** Free pages (of 4 KiB) that the file keeps. */
const reservePages = 2048;
/** How many damaged or refused frames are kept for inspection. */
const maxSetAside = 100;

/**
 * The buffer itself: one SQLite file, in write-ahead mode with `synchronous=FULL`, so that a commit that returned has
 * survived a power cut. Every call blocks until it is done; `ThreadedBuffer` runs it beside the agent's own thread.
 * The file's tables are explained in README.md.
 */
export class SqliteBuffer {
  readonly #options: BufferOptions;
  #database!: DatabaseSync;
  #statements!: Record<keyof typeof statements, StatementSync>;
  #stream = "";
  #nextSeq = 1;

  constructor(options: BufferOptions) {
    this.#options = options;
  }

  open(): Recovered {
    const { path } = this.#options;
    try {
      mkdirSync(path, { recursive: true });
      this.#database = new DatabaseSync(join(path, "buffer.sqlite"), { timeout: 1000 });
      this.#prepare();
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      const busy = error instanceof Error && error.message.includes("locked");
      const advice = busy ? "another agent has it open: stop that one first" : "check the folder's rights and its disk";
      throw new ConfigError(`the buffer in ${path} cannot be opened: ${advice}`, { cause: error });
    }
    const { uuid, next_seq: nextSeq } = this.#statements.stream.get() as { uuid: string; next_seq: number };
    this.#stream = uuid;
    this.#nextSeq = nextSeq;
    const watermarks = this.#statements.watermarks.all() as { device: string; time: Micros }[];
    return {
      stream: uuid,
      watermarks: new Map(watermarks.map(({ device, time }) => [device, time])),
      openGaps: this.#openGaps(),
      losses: this.#losses(),
    };
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
      this.#transaction(() => {
        database.exec(schema);
        const uuid = randomUUID().replaceAll("-", "");
        database.prepare("INSERT INTO stream (uuid, next_seq) VALUES (?, 1)").run(uuid);
      });
    }
    const prepared = Object.entries(statements).map(([name, sql]) => [name, database.prepare(sql)]);
    this.#statements = Object.fromEntries(prepared);
  }

  #transaction<T>(work: () => T): T {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  /** Appends frames in one transaction: one flush to disk for all of them. */
  append(records: readonly FrameRecord[]): AppendResult[] {
    const before = this.#nextSeq;
    try {
      return this.#transaction(() => {
        const results = records.map((record) => ({ seq: this.#appendOne(record) }));
        const losses = this.#losses();
        return results.map((result) => ({ ...result, losses }));
      });
    } catch (error) {
      this.#nextSeq = before;
      throw error;
    }
  }

  #appendOne({ content, spans, gaps, watermarks }: FrameRecord): number {
    const full = this.#usedBytes() >= this.#options.maxBytes;
    if (full && this.#options.whenFull === "stop_collecting") return 0;
    if (full) this.#dropOldest();
    const seq = this.#nextSeq++;
    const bytes = sealFrame({ edge: this.#options.edge, stream: this.#stream, seq }, content);
    this.#statements.insertFrame.run(seq, content.mapHash, JSON.stringify(spans), bytes);
    this.#statements.saveNextSeq.run(this.#nextSeq);
    this.#keepGaps(gaps);
    this.#keepWatermarks(watermarks);
    return seq;
  }

  #keepGaps(gaps: readonly Gap[]): void {
    for (const { device, tag, reason, from, to, detail } of gaps) {
      if (reason === "buffer_full" || reason === "frame_refused") {
        this.#statements.lossReported.run(device, reason, from, to);
      }
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
  #dropOldest(): void {
    const target = this.#options.maxBytes - this.#options.maxBytes / 16;
    while (this.#usedBytes() > target) {
      const frame = this.#statements.oldestFrame.get() as { seq: number; spans: string } | undefined;
      if (frame === undefined) return;
      this.#lose("buffer_full", frame.seq, JSON.parse(frame.spans));
      this.#statements.deleteFrame.run(frame.seq);
    }
  }

  #lose(reason: GapReason, seq: number, spans: readonly DeviceSpan[]): void {
    for (const { device, from, to, readings } of spans) {
      this.#statements.lose.run({ device, reason, start: from, stop: to, readings, seq });
    }
  }

  /** Bytes of the file that hold something: its size without its free pages. */
  #usedBytes(): number {
    const { used } = this.#statements.usedBytes.get() as { used: number };
    return used;
  }

  oldest(afterSeq: number, limit: number): BufferedFrame[] {
    const rows = this.#statements.oldest.all(afterSeq, limit) as { seq: number; mapHash: string; bytes: Uint8Array }[];
    const damaged = rows.filter(({ bytes }) => !isIntact(bytes)).map(({ seq }) => seq);
    if (damaged.length === 0) return rows;
    this.setAside(damaged.map((seq) => ({ seq, reason: "it was damaged on the edge's disk" })));
    return rows.filter(({ seq }) => !damaged.includes(seq));
  }

  release(seqs: readonly number[]): void {
    this.#transaction(() => {
      for (const seq of seqs) this.#statements.deleteFrame.run(seq);
      // Drained space goes back to the file system, but for a reserve that the next frames fill again.
      const { free } = this.#statements.freePages.get() as { free: number };
      if (free > reservePages) this.#database.exec(`PRAGMA incremental_vacuum(${free - reservePages})`);
    });
  }

  setAside(refused: readonly { readonly seq: number; readonly reason: string }[]): void {
    this.#transaction(() => {
      for (const { seq, reason } of refused) {
        const row = this.#statements.spans.get(seq) as { spans: string } | undefined;
        if (row === undefined) continue;
        this.#statements.copyAside.run(reason, seq);
        this.#lose("frame_refused", seq, JSON.parse(row.spans));
        this.#statements.deleteFrame.run(seq);
      }
      this.#statements.trimAside.run(maxSetAside);
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
    const { frames } = this.#statements.count.get() as { frames: number };
    return { frames, bytes: this.#usedBytes(), nextSeq: this.#nextSeq };
  }

  close(): void {
    this.#database.close();
  }

  #openGaps(): Gap[] {
    const rows = this.#statements.openGaps.all() as { tag: string; from: Micros }[];
    return rows.map((row) => ({ ...row, tag: row.tag || null, to: null }) as Gap);
  }

  #losses(): Gap[] {
    return (this.#statements.losses.all() as unknown as LossRow[]).map((row) => ({
      device: row.device,
      tag: null,
      reason: row.reason,
      from: row.start,
      to: row.stop,
      detail: lossDetail(row),
    }));
  }
}

interface LossRow {
  readonly device: string;
  readonly reason: GapReason;
  readonly start: Micros;
  readonly stop: Micros;
  readonly readings: number;
  readonly first_seq: number;
  readonly last_seq: number;
}

function lossDetail({ reason, readings, first_seq: first, last_seq: last }: LossRow): string {
  const what =
    reason === "buffer_full" ? "dropped to keep the buffer within its bound" : "in frames that were set aside";
  return `${readings} readings ${what} (frames ${first} to ${last})`;
}

const statements = {
  stream: "SELECT uuid, next_seq FROM stream",
  saveNextSeq: "UPDATE stream SET next_seq = ?",
  insertFrame: "INSERT INTO frame (seq, map_hash, spans, bytes) VALUES (?, ?, ?, ?)",
  deleteFrame: "DELETE FROM frame WHERE seq = ?",
  oldest: "SELECT seq, map_hash AS mapHash, bytes FROM frame WHERE seq > ? ORDER BY seq LIMIT ?",
  oldestFrame: "SELECT seq, spans FROM frame ORDER BY seq LIMIT 1",
  spans: "SELECT spans FROM frame WHERE seq = ?",
  count: "SELECT count(*) AS frames FROM frame",
  copyAside: `INSERT OR REPLACE INTO frame_set_aside (seq, reason, bytes)
    SELECT seq, ?, bytes FROM frame WHERE seq = ?`,
  trimAside: `DELETE FROM frame_set_aside
    WHERE seq NOT IN (SELECT seq FROM frame_set_aside ORDER BY seq DESC LIMIT ?)`,
  map: "SELECT bytes FROM device_map WHERE hash = ?",
  saveMap: "INSERT OR IGNORE INTO device_map (hash, bytes) VALUES (?, ?)",
  dropUnusedMaps: "DELETE FROM device_map WHERE hash <> ? AND hash NOT IN (SELECT map_hash FROM frame)",
  watermarks: "SELECT device, time FROM watermark",
  saveWatermark: `INSERT INTO watermark (device, time) VALUES (?, ?)
    ON CONFLICT (device) DO UPDATE SET time = max(time, excluded.time)`,
  openGaps: 'SELECT device, tag, reason, start AS "from", detail FROM open_gap',
  gapOpens: "INSERT OR REPLACE INTO open_gap (device, tag, reason, start, detail) VALUES (?, ?, ?, ?, ?)",
  gapCloses: "DELETE FROM open_gap WHERE device = ? AND tag = ? AND reason = ? AND start = ?",
  losses: "SELECT * FROM loss",
  lose: `INSERT INTO loss (device, reason, start, stop, readings, first_seq, last_seq)
    VALUES (:device, :reason, :start, :stop, :readings, :seq, :seq)
    ON CONFLICT (device, reason) DO UPDATE SET
      start = min(start, excluded.start), stop = max(stop, excluded.stop), readings = readings + excluded.readings,
      first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq)`,
  lossReported: "DELETE FROM loss WHERE device = ? AND reason = ? AND start = ? AND stop = ?",
  freePages: "SELECT freelist_count AS free FROM pragma_freelist_count",
  usedBytes: `SELECT (page_count - freelist_count) * page_size AS used
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
};
