import { randomUUID } from "node:crypto";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { pino } from "pino";
import { openStore } from "../../cloud/store/open.ts";
import type { TestDatabase } from "./store.ts";

/** A superuser's URL of a PostgreSQL server with TimescaleDB; undefined when the tests have none. */
export const serverUrl = process.env.MILLRACE_TEST_POSTGRES_URL;

const log = pino({ level: process.env.MILLRACE_TEST_LOG ?? "silent" });

export function temporaryFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "millrace-store-"));
}

/** Embedded databases, each a copy of one that was made once, as making one takes seconds. */
export class EmbeddedDatabases {
  #folder: Promise<string> | undefined;

  async copy(): Promise<string> {
    this.#folder ??= makeEmbedded();
    const folder = await temporaryFolder();
    await cp(await this.#folder, folder, { recursive: true });
    return folder;
  }

  create = async (): Promise<TestDatabase> => {
    const path = await this.copy();
    return {
      shared: false,
      open: () => openStore({ embedded: { path } }, { log }),
      drop: () => rm(path, { recursive: true }),
    };
  };

  async dispose(): Promise<void> {
    if (this.#folder !== undefined) await rm(await this.#folder, { recursive: true });
  }
}

async function makeEmbedded(): Promise<string> {
  const path = await temporaryFolder();
  const store = await openStore({ embedded: { path } }, { log });
  await store.close();
  return path;
}

/** A new database on the server, which can also be asked as its administrator. */
export interface ServerDatabase extends TestDatabase {
  readonly url: string;
  /** Runs SQL in the database, by a connection of its own. */
  ask<R extends pg.QueryResultRow>(sql: string): Promise<R[]>;
  /** Alters the database: `SET synchronous_commit = off`. New connections see it. */
  alter(clause: string): Promise<void>;
}

export async function createServerDatabase(): Promise<ServerDatabase> {
  const name = `mr_test_${randomUUID().replaceAll("-", "")}`;
  const url = new URL(serverUrl!);
  url.pathname = name;
  await askServer(serverUrl!, `CREATE DATABASE ${name}`);
  return {
    shared: true,
    url: url.href,
    open: (features) => openStore({ url: url.href }, { log, features }),
    ask: (sql) => askServer(url.href, sql),
    alter: async (clause) => {
      await askServer(serverUrl!, `ALTER DATABASE ${name} ${clause}`);
    },
    drop: async () => {
      await askServer(serverUrl!, `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

async function askServer<R extends pg.QueryResultRow>(url: string, sql: string): Promise<R[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}
