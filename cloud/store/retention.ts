import type { Database } from "./database.ts";
import type { RetentionLimits, RetentionResult, StoreFeatures } from "./store.ts";
import { timestampText } from "./timestamp.ts";

/** Rows that one transaction deletes: short enough that writers are not kept waiting. */
const rowsPerBatch = 20_000;

/**
 * Deletes what is older than the limits. Whole chunks of a hypertable are dropped, so that readings of up to a chunk's
 * length more are kept there. Which frames have arrived stays known: `stream.arrived` holds it.
 */
export async function applyRetention(
  database: Database,
  features: StoreFeatures,
  limits: RetentionLimits,
): Promise<RetentionResult> {
  let chunks = 0;
  let readings = 0;
  if (limits.readings !== undefined) {
    const before = timestampText(limits.readings);
    if (features.hypertable) {
      chunks = (await database.query("SELECT drop_chunks('reading', older_than => $1::timestamptz)", [before])).length;
    } else {
      readings = await deleteBatches(database, "reading", '"time" < $1', before);
    }
    await deleteBatches(database, "gap", "to_time < $1", before);
  }
  const frames =
    limits.frames === undefined
      ? 0
      : await deleteBatches(database, "frame_log", "received_at < $1", timestampText(limits.frames));
  // PGlite has no autovacuum: nobody else makes room, counts rows for the planner, and keeps transaction ids from
  // running out (after 2 thousand million of them, a database that was never vacuumed takes no more writes).
  if (database.engine === "pglite") await database.runAlone("VACUUM (ANALYZE)");
  return { chunks, readings, frames };
}

async function deleteBatches(database: Database, table: string, where: string, before: string): Promise<number> {
  let deleted = 0;
  for (;;) {
    const [batch] = await database.query<{ rows: number }>(
      `WITH deleted AS (
         DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${table} WHERE ${where} LIMIT $2)) RETURNING 1
       ) SELECT count(*) AS rows FROM deleted`,
      [before, rowsPerBatch],
    );
    deleted += batch!.rows;
    if (batch!.rows < rowsPerBatch) return deleted;
  }
}
