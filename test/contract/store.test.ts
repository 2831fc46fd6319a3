import { rm } from "node:fs/promises";
import { pino } from "pino";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import { PgliteDatabase } from "../../cloud/store/pglite.ts";
import { storeContract } from "./store.ts";
import { createServerDatabase, EmbeddedDatabases, serverUrl } from "./store-databases.ts";

const log = pino({ level: "silent" });

/** Tables, columns, constraints, indices and sequences, a line each. */
const schemaQuery = `
  SELECT line FROM (
    SELECT c.relname AS place, 1 AS part, a.attnum AS number, c.relname || '.' || a.attname || ' ' ||
      format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END ||
      CASE WHEN l.collname = 'C' THEN ' collate C' ELSE '' END ||
      CASE WHEN a.attidentity <> '' THEN ' identity' ELSE '' END ||
      coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') || ' storage ' || a.attstorage::text AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT conrelid::regclass::text, 2, 0, conrelid::regclass || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT tablename, 3, 0, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT sequencename, 4, 0, 'sequence ' || sequencename || ' increment ' || increment_by
    FROM pg_sequences WHERE schemaname = 'public'
  ) s ORDER BY place COLLATE "C", part, number, line COLLATE "C"`;

const embedded = new EmbeddedDatabases();
storeContract("pglite", embedded.create);

describe("pglite: the schema", () => {
  it("is the one that is checked in: look at the difference, then update it with `vitest -u`", async () => {
    const path = await embedded.copy();
    onTestFinished(() => rm(path, { recursive: true }));
    const store = await openStore({ embedded: { path } }, { log });
    await store.migrate();
    await store.close();
    const database = await PgliteDatabase.open(path, log);
    onTestFinished(() => database.close());
    const lines = (await database.query<{ line: string }>(schemaQuery)).map(({ line }) => line);
    await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot("store-schema.txt");
  });
});

afterAll(() => embedded.dispose());

if (serverUrl === undefined) {
  it.skip("NOT TESTED: the store on PostgreSQL and TimescaleDB. Set MILLRACE_TEST_POSTGRES_URL to a superuser's URL");
} else {
  storeContract("postgresql", createServerDatabase, "plain");
  storeContract("timescaledb", createServerDatabase);

  describe.each(["plain", "auto"] as const)("a server's schema (features: %s)", (features) => {
    it("is that of the embedded database", async () => {
      const database = await createServerDatabase();
      onTestFinished(() => database.drop());
      const store = await database.open(features);
      await store.migrate();
      await store.close();
      const lines = (await database.ask<{ line: string }>(schemaQuery)).map(({ line }) => line);
      await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot("store-schema.txt");
    });
  });
}
