import { DataError } from "../../protocols/errors.ts";
import type { DeviceMap, FrameId } from "../../protocols/uplink/frame.ts";
import type { Database, Transaction } from "./database.ts";
import { storableText } from "./text.ts";

/** What writing needs to know of a device map that is stored. */
export interface StoredMap {
  readonly hash: string;
  readonly edge: string;
  readonly edgeId: number;
  /** The tag's number in the store, by its index in the map. */
  readonly tagIds: Int32Array;
}

/** The device maps and tags of the store, with what frames need of them kept in memory. */
export class DeviceMaps {
  readonly #database: Database;
  readonly #maps = new Map<string, StoredMap>();
  readonly #streams = new Map<string, number>();

  constructor(database: Database) {
    this.#database = database;
  }

  /** Forgets what is kept in memory: the database may be another one than before (a restored backup). */
  forget(): void {
    this.#maps.clear();
    this.#streams.clear();
  }

  /** Stores a map, if it is not stored yet. A new map describes its edge's tags from now on. */
  async save(hash: string, map: DeviceMap, raw: Uint8Array): Promise<void> {
    checkTags(map);
    const content = storable(map);
    await this.#database.transaction(async (transaction) => {
      const [known] = await transaction.query("SELECT FROM device_map WHERE hash = $1", [hash]);
      if (known !== undefined) return;
      // Locks the edge's row: two processes that save maps of one edge do it one after the other.
      const [edge] = await transaction.query<{ edge_id: number }>(
        "INSERT INTO edge (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING edge_id",
        [map.edge],
      );
      const edgeId = edge!.edge_id;
      const tagIds = await describe(transaction, edgeId, hash, content);
      await transaction.query(
        `INSERT INTO device_map (hash, edge_id, tag_ids, content, raw) VALUES ($1, $2, $3::int[], $4, $5)
         ON CONFLICT DO NOTHING`,
        [hash, edgeId, tagIds, JSON.stringify(content), raw],
      );
    });
  }

  /**
   * Describes an edge's tags by the map under which its newest readings were taken: a frame of an older map may come
   * late (a backlog), and an engineer may go back to an older configuration.
   */
  async followNewest(edgeId: number): Promise<void> {
    await this.#database.transaction(async (transaction) => {
      const [edge] = await transaction.query<{ device_map: string }>(
        "SELECT device_map FROM edge WHERE edge_id = $1 FOR NO KEY UPDATE",
        [edgeId],
      );
      const [newest] = await transaction.query<{ hash: string; content: DeviceMap }>(
        `SELECT m.hash, m.content FROM stream s JOIN device_map m ON m.hash = s.newest_map
         WHERE s.edge_id = $1 ORDER BY s.newest_time DESC LIMIT 1`,
        [edgeId],
      );
      if (newest === undefined || newest.hash === edge!.device_map) return;
      await describe(transaction, edgeId, newest.hash, newest.content);
    });
  }

  /** The map a frame names; undefined when it is not stored. @throws DataError when it is another edge's */
  async of(frame: FrameId & { readonly mapHash: string }): Promise<StoredMap | undefined> {
    const map = this.#maps.get(frame.mapHash) ?? (await this.#load(frame.mapHash));
    if (map !== undefined && map.edge !== frame.edge) {
      throw new DataError(`Frame ${frame.seq} of edge ${frame.edge} names a device map of edge ${map.edge}`);
    }
    return map;
  }

  /** The store's number of a frame's stream, which is made when it is new. */
  async streamId(edgeId: number, stream: string): Promise<number> {
    const key = `${edgeId} ${stream}`;
    const known = this.#streams.get(key);
    if (known !== undefined) return known;
    await this.#database.query("INSERT INTO stream (edge_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING", [
      edgeId,
      stream,
    ]);
    const [row] = await this.#database.query<{ stream_id: number }>(
      "SELECT stream_id FROM stream WHERE edge_id = $1 AND name = $2",
      [edgeId, stream],
    );
    this.#streams.set(key, row!.stream_id);
    return row!.stream_id;
  }

  async #load(hash: string): Promise<StoredMap | undefined> {
    const [row] = await this.#database.query<{ edge: string; edge_id: number; tag_ids: number[] }>(
      "SELECT e.name AS edge, edge_id, m.tag_ids FROM device_map m JOIN edge e USING (edge_id) WHERE hash = $1",
      [hash],
    );
    if (row === undefined) return undefined;
    const map = { hash, edge: row.edge, edgeId: row.edge_id, tagIds: Int32Array.from(row.tag_ids) };
    this.#maps.set(hash, map);
    return map;
  }
}

/** @throws DataError when a tag is there twice: its readings could not be told apart */
function checkTags({ edge, tags }: DeviceMap): void {
  const names = new Set<string>();
  for (const { device, name } of tags) {
    const tag = `${edge}.${device}.${name}`;
    if (names.has(tag)) throw new DataError(`The device map has the tag ${tag} twice`);
    names.add(tag);
  }
}

/** The map without the characters that the database cannot hold. */
function storable(map: DeviceMap): DeviceMap {
  return JSON.parse(JSON.stringify(map), (_, value) => (typeof value === "string" ? storableText(value) : value));
}

/** Adds the map's tags and brings those that are there up to date. Resolves to their numbers, in the map's order. */
async function describe(
  transaction: Transaction,
  edgeId: number,
  hash: string,
  { site, tags }: DeviceMap,
): Promise<number[]> {
  await transaction.query("UPDATE edge SET site = $2, device_map = $3 WHERE edge_id = $1", [
    edgeId,
    site ?? null,
    hash,
  ]);
  const rows = await transaction.query<{ tag_id: number }>(
    `WITH mapped AS (
       SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[],
         $9::float8[]) WITH ORDINALITY AS m (device, name, kind, description, unit, equipment, low, high, position)
     ), upserted AS (
       INSERT INTO tag AS t (edge_id, device, name, kind, description, unit, equipment, range_low, range_high)
       SELECT $1, device, name, kind, description, unit, equipment, low, high FROM mapped
       ON CONFLICT (edge_id, device, name) DO UPDATE SET kind = excluded.kind, description = excluded.description,
         unit = excluded.unit, equipment = excluded.equipment, range_low = excluded.range_low,
         range_high = excluded.range_high
       RETURNING tag_id, device, name
     )
     SELECT tag_id FROM upserted JOIN mapped USING (device, name) ORDER BY position`,
    [
      edgeId,
      tags.map((tag) => tag.device),
      tags.map((tag) => tag.name),
      tags.map((tag) => tag.kind),
      tags.map((tag) => tag.description ?? null),
      tags.map((tag) => tag.unit ?? null),
      tags.map((tag) => tag.equipment ?? null),
      tags.map((tag) => tag.range?.[0] ?? null),
      tags.map((tag) => tag.range?.[1] ?? null),
    ],
  );
  return rows.map((row) => row.tag_id);
}
