import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { ConfigError } from "../../protocols/errors.ts";
import type { Database, Transaction } from "./database.ts";

interface Migration {
  readonly number: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

/** The advisory lock that one process at a time migrates under: a number of our own. */
const migrationLock = 7_165_823_041;

const folder = new URL("./migrations/", import.meta.url);

/** Does `work` while no other process does such work on the same database. */
export async function oneAtATime<T>(database: Database, work: () => Promise<T>): Promise<T> {
  // PGlite's folder belongs to one process, and a transaction that waits would keep its only connection.
  if (database.engine === "pglite") return work();
  return database.transaction(
    async (transaction) => {
      await transaction.query("SELECT pg_advisory_xact_lock($1::int8)", [migrationLock]);
      return work();
    },
    { unlimited: true },
  );
}

/**
 * Runs the migrations that the database has not seen, in order, all in one transaction. Needs `oneAtATime`.
 * @throws ConfigError when the database is newer than this program, or a migration that ran has been changed since
 */
export async function migrate(database: Database): Promise<void> {
  const migrations = await load();
  const bringUpToDate = async (transaction: Transaction) => {
    await transaction.run(`CREATE TABLE IF NOT EXISTS schema_migration (
      number int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, ran_at timestamptz NOT NULL DEFAULT now())`);
    const ran = await transaction.query<{ number: number; name: string; checksum: string }>(
      "SELECT number, name, checksum FROM schema_migration ORDER BY number",
    );
    for (const { number, name, checksum } of ran) check(number, name, checksum, migrations);
    for (const migration of migrations.slice(ran.length)) await run(transaction, migration);
  };
  await database.transaction(bringUpToDate, { unlimited: true });
}

async function run(transaction: Transaction, { number, name, sql, checksum }: Migration): Promise<void> {
  await transaction.run(sql);
  await transaction.query("INSERT INTO schema_migration (number, name, checksum) VALUES ($1, $2, $3)", [
    number,
    name,
    checksum,
  ]);
}

function check(number: number, name: string, checksum: string, migrations: readonly Migration[]): void {
  const ours = migrations[number - 1];
  if (ours === undefined) {
    throw new ConfigError(
      `The database is newer than this program: it has migration ${number} (${name}), and this program knows ` +
        `${migrations.length}. Start the newer version of Millrace, or restore an older backup.`,
    );
  }
  if (ours.checksum !== checksum) {
    throw new ConfigError(
      `Migration ${number} (${ours.name}) is not the one that this database has seen. A released migration must not ` +
        "be changed: restore the file, and put the change into a new migration.",
    );
  }
}

/** The migrations that are in the folder, `0001_name.sql` first. */
async function load(): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".sql")).sort();
  return Promise.all(
    names.map(async (name, index) => {
      const number = Number.parseInt(name, 10);
      if (number !== index + 1) throw new Error(`Migration ${index + 1} is missing: the next file is ${name}`);
      const sql = (await readFile(new URL(name, folder), "utf8")).replaceAll("\r\n", "\n");
      return { number, name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}
