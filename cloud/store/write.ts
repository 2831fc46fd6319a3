import { DataError } from "../../protocols/errors.ts";
import type { Gap } from "../../protocols/reading.ts";
import type { TimeSpan } from "../../protocols/uplink/frame.ts";
import { CopyEncoder, readingTarget } from "./copy-encoder.ts";
import type { Database, Transaction } from "./database.ts";
import type { DeviceMaps, StoredMap } from "./device-maps.ts";
import type { IncomingFrame, WriteOutcome } from "./store.ts";
import { storableText } from "./text.ts";
import { timestampText } from "./timestamp.ts";

/** The increment of the sequence `frame_id_block`. */
const idsPerBlock = 1024;

/** A frame with the store's numbers for it. */
interface NumberedFrame {
  readonly frame: IncomingFrame;
  readonly map: StoredMap;
  readonly streamId: number;
  readonly frameId: number;
}

/** Writes frames: the ledger, the readings and the gaps in one transaction. */
export class FrameWriter {
  readonly #database: Database;
  readonly #maps: DeviceMaps;
  /** Numbers drawn from the database and not used yet: ranges, the end excluded. */
  readonly #freeIds: { next: number; readonly end: number }[] = [];

  constructor(database: Database, maps: DeviceMaps) {
    this.#database = database;
    this.#maps = maps;
  }

  async write(frames: readonly IncomingFrame[]): Promise<WriteOutcome[]> {
    const outcomes: WriteOutcome[] = frames.map(() => "duplicate");
    const places = new Map<string, number>();
    const known: Omit<NumberedFrame, "frameId">[] = [];
    for (const [place, frame] of frames.entries()) {
      checkSeq(frame);
      const map = await this.#maps.of(frame);
      if (map === undefined) {
        outcomes[place] = "unknown_map";
        continue;
      }
      const streamId = await this.#maps.streamId(map.edgeId, frame.stream);
      const key = `${streamId} ${frame.seq}`;
      if (places.has(key)) continue;
      places.set(key, place);
      known.push({ frame, map, streamId });
    }
    if (known.length === 0) return outcomes;
    const ids = await this.#takeIds(known.length);
    const group = known.map((frame, index) => ({ ...frame, frameId: ids[index]! }));
    const { stored, redescribe } = await this.#commit(group);
    for (const { frame, streamId } of stored) outcomes[places.get(`${streamId} ${frame.seq}`)!] = "stored";
    for (const edgeId of redescribe) await this.#maps.followNewest(edgeId);
    return outcomes;
  }

  /** Resolves to the frames that were not there before, and the edges whose tags may need another description. */
  async #commit(
    group: readonly NumberedFrame[],
  ): Promise<{ stored: readonly NumberedFrame[]; redescribe: ReadonlySet<number> }> {
    // Encoded before the transaction, which is short that way; and a duplicate is rare.
    let rows = encode(group);
    return this.#database.transaction(async (transaction) => {
      const stored = await insertFrames(transaction, group, rows.spans);
      if (stored.length === 0) return { stored, redescribe: new Set() };
      if (stored.length < group.length) rows = encode(stored);
      if (rows.count > 0) await transaction.copyIn(readingTarget, rows.chunks);
      await insertGaps(transaction, stored);
      return { stored, redescribe: await account(transaction, stored, rows.spans) };
    });
  }

  async #takeIds(count: number): Promise<number[]> {
    let free = 0;
    for (const block of this.#freeIds) free += block.end - block.next;
    if (free < count) {
      const blocks = await this.#database.query<{ start: number }>(
        "SELECT nextval('frame_id_block') AS start FROM generate_series(1, $1::int)",
        [Math.ceil(count / idsPerBlock)],
      );
      for (const { start } of blocks) this.#freeIds.push({ next: start, end: start + idsPerBlock });
    }
    const ids: number[] = [];
    while (ids.length < count) {
      const block = this.#freeIds[0];
      // Another write took the numbers while this one waited for them.
      if (block === undefined) return this.#takeIds(count);
      ids.push(block.next++);
      if (block.next === block.end) this.#freeIds.shift();
    }
    return ids;
  }
}

function checkSeq({ edge, stream, seq }: IncomingFrame): void {
  if (!Number.isSafeInteger(seq) || seq < 1) {
    throw new DataError(`A frame of edge ${edge}, stream ${stream} has the impossible number ${seq}`);
  }
}

function encode(group: readonly NumberedFrame[]): { chunks: Uint8Array[]; spans: (TimeSpan | null)[]; count: number } {
  const encoder = new CopyEncoder();
  let count = 0;
  const spans = group.map(({ frame, map, frameId }) => {
    count += frame.content.readings.count;
    try {
      return encoder.add(frame.content.readings, map.tagIds, frameId);
    } catch (error) {
      throw new DataError(`Frame ${frame.seq} of edge ${frame.edge}, stream ${frame.stream}`, { cause: error });
    }
  });
  return { chunks: encoder.finish(), spans, count };
}

/**
 * Enters the frames in the ledger; those that are there already stay out, and one that another process is writing just
 * now is waited for. In order of their keys, so that two such processes cannot wait for each other.
 */
async function insertFrames(
  transaction: Transaction,
  group: readonly NumberedFrame[],
  spans: readonly (TimeSpan | null)[],
): Promise<NumberedFrame[]> {
  let rawLength = 0;
  const rawStarts = group.map(({ frame }) => {
    const start = rawLength + 1; // PostgreSQL counts from 1
    rawLength += frame.raw.byteLength;
    return start;
  });
  const rows = await transaction.query<{ frame_id: number }>(
    `INSERT INTO frame_log (frame_id, stream_id, seq, readings, first_time, last_time, device_map, raw)
     SELECT f.frame_id, f.stream_id, f.seq, f.readings, f.first_time, f.last_time, f.device_map,
       substr($8::bytea, f.raw_start, f.raw_length)
     FROM unnest($1::int8[], $2::int[], $3::int8[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::text[],
       $9::int[], $10::int[])
       AS f (frame_id, stream_id, seq, readings, first_time, last_time, device_map, raw_start, raw_length)
     JOIN stream s USING (stream_id)
     WHERE NOT s.arrived @> f.seq
     ORDER BY f.stream_id, f.seq
     ON CONFLICT (stream_id, seq) DO NOTHING
     RETURNING frame_id`,
    [
      group.map(({ frameId }) => frameId),
      group.map(({ streamId }) => streamId),
      group.map(({ frame }) => frame.seq),
      group.map(({ frame }) => frame.content.readings.count),
      spans.map((span) => (span === null ? null : timestampText(span.from))),
      spans.map((span) => (span === null ? null : timestampText(span.to))),
      group.map(({ map }) => map.hash),
      Buffer.concat(group.map(({ frame }) => frame.raw)),
      rawStarts,
      group.map(({ frame }) => frame.raw.byteLength),
    ],
  );
  const stored = new Set(rows.map((row) => row.frame_id));
  return group.filter(({ frameId }) => stored.has(frameId));
}

/** Enters the gaps, and the ends of those that are there. What is closed stays closed: a message may come late. */
async function insertGaps(transaction: Transaction, stored: readonly NumberedFrame[]): Promise<void> {
  const gaps = new Map<string, Gap & { edgeId: number; tag: string }>();
  for (const { frame, map } of stored) {
    for (const gap of frame.content.gaps) {
      const [device, tag] = [storableText(gap.device), storableText(gap.tag ?? "")];
      const key = [map.edgeId, device, tag, gap.reason, gap.from].join("\0");
      const told = gaps.get(key)?.to ?? null;
      if (told === null || (gap.to !== null && gap.to > told)) {
        gaps.set(key, { ...gap, edgeId: map.edgeId, device, tag });
      }
    }
  }
  if (gaps.size === 0) return;
  const rows = [...gaps.values()];
  await transaction.query(
    `INSERT INTO gap AS g (edge_id, device, tag, reason, from_time, to_time, detail)
     SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
       $7::text[]) AS n (edge_id, device, tag, reason, from_time, to_time, detail)
     ORDER BY edge_id, device, tag, reason, from_time
     ON CONFLICT (edge_id, device, tag, reason, from_time) DO UPDATE SET to_time = excluded.to_time,
       detail = excluded.detail
     WHERE excluded.to_time IS NOT NULL AND (g.to_time IS NULL OR g.to_time < excluded.to_time)`,
    [
      rows.map((gap) => gap.edgeId),
      rows.map((gap) => gap.device),
      rows.map((gap) => gap.tag),
      rows.map((gap) => gap.reason),
      rows.map((gap) => timestampText(gap.from)),
      rows.map((gap) => (gap.to === null ? null : timestampText(gap.to))),
      rows.map((gap) => storableText(gap.detail)),
    ],
  );
}

/**
 * Adds the frames to the account of their streams. Last, for the streams' rows are locked until the commit. Resolves to
 * the edges of streams whose newest readings were taken under another device map than the edge's tags are described by.
 */
async function account(
  transaction: Transaction,
  stored: readonly NumberedFrame[],
  spans: readonly (TimeSpan | null)[],
): Promise<Set<number>> {
  const rows = await transaction.query<{ edge_id: number }>(
    `WITH added AS (
       SELECT stream_id, range_agg(int8range(seq, seq, '[]')) AS seqs, count(*) AS frames, max(time) AS newest_time,
         (array_agg(map ORDER BY time DESC NULLS LAST))[1] AS newest_map
       FROM unnest($1::int[], $2::int8[], $3::timestamptz[], $4::text[]) AS n (stream_id, seq, time, map)
       GROUP BY stream_id
     ), locked AS (
       SELECT stream_id FROM stream JOIN added USING (stream_id) ORDER BY stream_id FOR NO KEY UPDATE OF stream
     ), updated AS (
       UPDATE stream s SET arrived = s.arrived + a.seqs, frames = s.frames + a.frames,
         last_frame_at = greatest(s.last_frame_at, clock_timestamp()),
         newest_time = greatest(s.newest_time, a.newest_time),
         newest_map = CASE WHEN a.newest_time > coalesce(s.newest_time, '-infinity') THEN a.newest_map
           ELSE s.newest_map END
       FROM locked JOIN added a USING (stream_id) WHERE s.stream_id = locked.stream_id
       RETURNING s.edge_id, s.newest_map
     )
     SELECT DISTINCT edge_id FROM updated JOIN edge e USING (edge_id)
     WHERE updated.newest_map <> e.device_map`,
    [
      stored.map(({ streamId }) => streamId),
      stored.map(({ frame }) => frame.seq),
      spans.map((span) => (span === null ? null : timestampText(span.to))),
      stored.map(({ map }) => map.hash),
    ],
  );
  return new Set(rows.map((row) => row.edge_id));
}
