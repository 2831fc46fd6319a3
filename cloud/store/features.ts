import type { Logger } from "pino";
import type { Database } from "./database.ts";
import type { StoreFeatures } from "./store.ts";

/** `auto`: what the database can do. `plain`: nothing beyond plain PostgreSQL. */
export type FeatureChoice = "auto" | "plain";

/** A chunk and its indices should fit in a quarter of the memory: a day holds for some thousand readings a second. */
const chunkInterval = "1 day";
/** Old enough that late frames, after an outage of days, mostly still find the row store. */
const columnstoreAfter = "7 days";

const noFeatures = { hypertable: false, columnstore: false, continuousAggregates: false };

/**
 * Turns on what the database can do beyond plain PostgreSQL. Safe to call again. Each feature that fails is done
 * without, with a line in the log: none is worth a reading.
 */
export async function applyFeatures(database: Database, choice: FeatureChoice, log: Logger): Promise<StoreFeatures> {
  const [server] = await database.query<{ version: string }>("SELECT current_setting('server_version') AS version");
  const version = server!.version;
  const plain = { engine: database.engine, version, ...noFeatures };
  if (database.engine === "pglite" || choice === "plain") return plain;

  const attempt = async (what: string, work: () => Promise<void>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      log.warn({ err: error }, `the database goes on without ${what}`);
      return false;
    }
  };

  const extension = await timescaledb(database, attempt);
  if (extension === undefined) return plain;
  const hypertable = await attempt("a hypertable", () => makeHypertable(database));
  const licensed = hypertable && extension.license === "timescale";
  return {
    engine: "timescaledb",
    version: `${version}, TimescaleDB ${extension.version} (${extension.license})`,
    hypertable,
    columnstore: licensed && (await attempt("a columnstore", () => addColumnstore(database))),
    continuousAggregates: licensed && (await attempt("continuous aggregates", () => addHourlyAggregate(database))),
  };
}

/** The extension's version and licence; undefined where there is none. */
async function timescaledb(
  database: Database,
  attempt: (what: string, work: () => Promise<void>) => Promise<boolean>,
): Promise<{ version: string; license: string } | undefined> {
  const available = await database.query<{ installed_version: string | null }>(
    "SELECT installed_version FROM pg_available_extensions WHERE name = 'timescaledb'",
  );
  if (available.length === 0) return undefined;
  if (available[0]!.installed_version === null) {
    const created = await attempt("TimescaleDB, which is installed on the server", () =>
      database.runAlone("CREATE EXTENSION IF NOT EXISTS timescaledb"),
    );
    if (!created) return undefined;
  }
  const [extension] = await database.query<{ version: string; license: string }>(
    `SELECT extversion AS version, coalesce(current_setting('timescaledb.license', true), 'unknown') AS license
     FROM pg_extension WHERE extname = 'timescaledb'`,
  );
  return extension;
}

async function makeHypertable(database: Database): Promise<void> {
  await database.runAlone(
    `SELECT create_hypertable('reading', by_range('time', INTERVAL '${chunkInterval}'),
       create_default_indexes => false, if_not_exists => true, migrate_data => true)`,
  );
}

async function addColumnstore(database: Database): Promise<void> {
  const [on] = await database.query(
    `SELECT FROM timescaledb_information.hypertables
     WHERE hypertable_name = 'reading' AND hypertable_schema = current_schema AND compression_enabled`,
  );
  if (on === undefined) {
    await database.runAlone(
      `ALTER TABLE reading SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = 'tag_id',
         timescaledb.orderby = 'time')`,
    );
  }
  await database.runAlone(
    `CALL add_columnstore_policy('reading', after => INTERVAL '${columnstoreAfter}', if_not_exists => true)`,
  );
}

/** `reading_hourly`: the good numbers of each tag by the hour, kept up to date for late data of the last month. */
async function addHourlyAggregate(database: Database): Promise<void> {
  await database.runAlone(
    `CREATE MATERIALIZED VIEW IF NOT EXISTS reading_hourly WITH (timescaledb.continuous) AS
     SELECT time_bucket(INTERVAL '1 hour', "time") AS hour, tag_id, count(number) AS readings, min(number) AS low,
       max(number) AS high, avg(number) AS mean
     FROM reading WHERE number IS NOT NULL AND quality >= 0 AND quality < x'40000000'::int
     GROUP BY hour, tag_id WITH NO DATA`,
  );
  await database.runAlone(
    `SELECT add_continuous_aggregate_policy('reading_hourly', start_offset => INTERVAL '31 days',
       end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '15 minutes', if_not_exists => true)`,
  );
}
