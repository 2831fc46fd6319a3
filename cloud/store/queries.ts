import type { GapReason, Micros, Value } from "../../protocols/reading.ts";
import type { Database } from "./database.ts";
import type {
  EdgeRow,
  GapFilter,
  GapRow,
  ReadingPage,
  ReadingPosition,
  ReadingRange,
  StoredReading,
  StreamRow,
  TagFilter,
  TagRow,
} from "./store.ts";
import { timestampText } from "./timestamp.ts";

/** The columns of a reading; `quality` is null where an outer join found none. */
interface ReadingColumnsRow {
  time: Micros;
  number: number | null;
  boolean: boolean | null;
  text: string | null;
  quality: number | null;
}

function readingOf(row: ReadingColumnsRow): StoredReading {
  const value: Value = row.number ?? row.boolean ?? row.text;
  return { time: row.time, value, quality: row.quality! >>> 0 };
}

export async function edges(database: Database): Promise<EdgeRow[]> {
  const rows = await database.query<{
    edge: string;
    site: string | null;
    first_seen: Micros;
    stream: string | null;
    frames: number;
    last_seq: number;
    last_frame_at: Micros | null;
    missing: [number, number][];
  }>(
    `SELECT e.name AS edge, e.site, e.first_seen, s.name AS stream, s.frames, upper(s.arrived) - 1 AS last_seq,
       s.last_frame_at, m.missing
     FROM edge e
     LEFT JOIN stream s ON s.edge_id = e.edge_id AND s.frames > 0
     LEFT JOIN LATERAL (
       SELECT coalesce(json_agg(json_build_array(lower(hole), upper(hole) - 1) ORDER BY hole), '[]') AS missing
       FROM unnest(int8multirange(int8range(1, upper(s.arrived))) - s.arrived) AS hole
     ) m ON s.stream_id IS NOT NULL
     ORDER BY e.name, s.stream_id`,
  );
  return [...Map.groupBy(rows, (row) => row.edge).values()].map((ofEdge) => {
    const { edge, site, first_seen: firstSeen } = ofEdge[0]!;
    const streams: StreamRow[] = [];
    let frames = 0;
    let lastFrameAt: Micros | null = null;
    for (const row of ofEdge) {
      if (row.stream === null) continue;
      streams.push({ stream: row.stream, frames: row.frames, lastSeq: row.last_seq, missing: row.missing });
      frames += row.frames;
      if (lastFrameAt === null || row.last_frame_at! > lastFrameAt) lastFrameAt = row.last_frame_at;
    }
    return { edge, site, firstSeen, lastFrameAt, frames, streams };
  });
}

/** The parts of `edge.device.tag`, whose names hold no dots. */
function partsOf(tag: string): [edge: string, device: string, name: string] {
  const [edge = "", device = "", ...name] = tag.split(".");
  return [edge, device, name.join(".")];
}

/** A page of tags, in order of edge, device and name, each with its latest reading. */
export async function tags(
  database: Database,
  { edge, device, equipment, after, limit }: TagFilter,
): Promise<TagRow[]> {
  const where = `($1::text IS NULL OR e.name = $1) AND ($2::text IS NULL OR t.device = $2)
    AND ($3::text IS NULL OR t.equipment = $3 OR starts_with(t.equipment, $3 || '/'))
    AND ($4::text IS NULL OR (e.name, t.device, t.name) > ($4, $5, $6))`;
  const start = after === undefined ? [null, null, null] : partsOf(after);
  return selectTags(database, where, [edge ?? null, device ?? null, equipment ?? null, ...start], limit);
}

export async function tag(database: Database, name: string): Promise<TagRow | undefined> {
  const [row] = await selectTags(database, "e.name = $1 AND t.device = $2 AND t.name = $3", partsOf(name), 1);
  return row;
}

async function selectTags(
  database: Database,
  where: string,
  params: readonly unknown[],
  limit: number,
): Promise<TagRow[]> {
  interface Row extends ReadingColumnsRow {
    edge: string;
    device: string;
    name: string;
    kind: string;
    description: string | null;
    unit: string | null;
    equipment: string | null;
    range_low: number | null;
    range_high: number | null;
  }
  const rows = await database.query<Row>(
    `SELECT t.*, r.*
     FROM (
       SELECT t.*, e.name AS edge FROM tag t JOIN edge e USING (edge_id) WHERE ${where}
       ORDER BY e.name, t.device, t.name LIMIT $${params.length + 1}
     ) t
     LEFT JOIN LATERAL (
       SELECT "time", number, "boolean", text, quality FROM reading
       WHERE reading.tag_id = t.tag_id ORDER BY "time" DESC, frame_id DESC LIMIT 1
     ) r ON true
     ORDER BY t.edge, t.device, t.name`,
    [...params, limit],
  );
  return rows.map((row) => ({
    tag: `${row.edge}.${row.device}.${row.name}`,
    edge: row.edge,
    device: row.device,
    name: row.name,
    kind: row.kind,
    description: row.description,
    unit: row.unit,
    equipment: row.equipment,
    range: row.range_low === null || row.range_high === null ? null : [row.range_low, row.range_high],
    latest: row.quality === null ? null : readingOf(row),
  }));
}

export async function readings(database: Database, name: string, range: ReadingRange): Promise<ReadingPage> {
  const { from, to, limit, after } = range;
  const [known] = await database.query<{ tag_id: number }>(
    "SELECT tag_id FROM tag JOIN edge e USING (edge_id) WHERE e.name = $1 AND device = $2 AND tag.name = $3",
    partsOf(name),
  );
  if (known === undefined) return { readings: [], next: null };
  // The values stand last in the order: readings of one time in one frame need some order that is always the same.
  const rows = await database.query<ReadingColumnsRow & { frame_id: number }>(
    `SELECT "time", number, "boolean", text, quality, frame_id FROM reading
     WHERE tag_id = $1 AND "time" >= $2 AND "time" < $3 AND ("time" > $2 OR frame_id >= $4)
     ORDER BY "time", frame_id, quality, number, "boolean", text LIMIT $5 OFFSET $6`,
    [
      known.tag_id,
      timestampText(after?.time ?? from),
      timestampText(to),
      after?.frameId ?? 0,
      limit + 1,
      after?.skip ?? 0,
    ],
  );
  const page = rows.slice(0, limit);
  return { readings: page.map(readingOf), next: rows.length > limit ? positionAfter(page, after) : null };
}

/** Where the page that follows `page` starts; `after` is where that page started. */
function positionAfter(
  page: readonly { readonly time: Micros; readonly frame_id: number }[],
  after: ReadingPosition | undefined,
): ReadingPosition {
  const { time, frame_id: frameId } = page.at(-1)!;
  const others = page.findLastIndex((row) => row.time !== time || row.frame_id !== frameId);
  const skip = page.length - 1 - others;
  // The whole page is of one time and frame, as was the end of the page before.
  const carried = others === -1 && after?.time === time && after.frameId === frameId ? after.skip : 0;
  return { time, frameId, skip: skip + carried };
}

/** The latest gaps that match, latest first. */
export async function gaps(database: Database, filter: GapFilter): Promise<GapRow[]> {
  const time = (micros: Micros | undefined) => (micros === undefined ? null : timestampText(micros));
  const rows = await database.query<{
    edge: string;
    device: string;
    tag: string;
    reason: GapReason;
    from_time: Micros;
    to_time: Micros | null;
    detail: string;
  }>(
    `SELECT e.name AS edge, g.* FROM gap g JOIN edge e USING (edge_id)
     WHERE ($1::text IS NULL OR e.name = $1) AND ($2::text IS NULL OR g.device = $2)
       AND ($3::text IS NULL OR g.tag IN ($3, '')) AND ($4::text IS NULL OR g.reason = $4)
       AND ($5::timestamptz IS NULL OR g.to_time IS NULL OR g.to_time > $5)
       AND ($6::timestamptz IS NULL OR g.from_time < $6)
     ORDER BY g.from_time DESC, e.name, g.device, g.tag, g.reason LIMIT $7`,
    [
      filter.edge ?? null,
      filter.device ?? null,
      filter.tag ?? null,
      filter.reason ?? null,
      time(filter.from),
      time(filter.to),
      filter.limit,
    ],
  );
  return rows.map((row) => ({
    edge: row.edge,
    device: row.device,
    tag: row.tag === "" ? null : row.tag,
    reason: row.reason,
    from: row.from_time,
    to: row.to_time,
    detail: row.detail,
  }));
}
