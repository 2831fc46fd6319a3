import { once } from "node:events";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import type { Logger } from "pino";
import { ConfigError } from "../../protocols/errors.ts";
import type { Secret } from "../../protocols/secret.ts";
import type { Database, Row, Transaction, TransactionOptions } from "./database.ts";
import { databaseError } from "./sql-error.ts";
import { parseTimestamp } from "./timestamp.ts";

export interface PostgresOptions {
  /** `postgres://user@host:port/database?sslmode=verify-full`. */
  readonly url: string;
  /** Instead of the user in `url`. */
  readonly user?: string;
  readonly password?: Secret;
  /** The certificate (PEM) that signed the server's: turns TLS on, with the server's name checked. */
  readonly ca?: string;
}

const connectTimeoutMs = 10_000;
/** Longer than any statement of ours; maintenance and migrations set their own. */
const statementTimeoutMs = 120_000;
/** The client's own limit, for a server that has gone without a word. */
const answerTimeoutMs = statementTimeoutMs + 15_000;
/** The longest that a timer takes: 24 days. */
const longestTimeoutMs = 2 ** 31 - 1;
/** The writers' two or three connections, and those of queries. */
const connections = 8;

const oid = { bytea: 17, int8: 20, timestamptz: 1184 } as const;

/** Raises the durability where an administrator lowered it: what is acknowledged must be on disk. Never lowers it. */
const sessionSettings = `SET TimeZone = 'UTC'; SET DateStyle = 'ISO';
  SET statement_timeout = ${statementTimeoutMs}; SET idle_in_transaction_session_timeout = ${statementTimeoutMs};
  SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`;

/** A PostgreSQL server, through a pool of connections. */
export class PostgresDatabase implements Database {
  readonly engine = "postgresql";
  readonly #pool: pg.Pool;

  /** Connects with the first call. @throws ConfigError when the URL is none */
  constructor(options: PostgresOptions, log: Logger) {
    this.#pool = new pg.Pool({
      ...connectionOf(options),
      max: connections,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: answerTimeoutMs,
      keepAlive: true,
      application_name: "millrace",
      types: { getTypeParser },
      onConnect: async (client) => {
        await client.query(sessionSettings);
      },
    });
    // A server that goes down ends idle connections too; the next call makes new ones.
    this.#pool.on("error", (error) => log.debug({ err: error }, "an idle database connection ended"));
  }

  async query<R = Row>(text: string, params: readonly unknown[] = []): Promise<R[]> {
    try {
      return (await this.#pool.query(text, [...params])).rows as R[];
    } catch (error) {
      throw databaseError(error, "The database reports");
    }
  }

  async runAlone(text: string): Promise<void> {
    await this.#withClient(async (client) => {
      await client.query("SET statement_timeout = 0");
      await client.query(unhurried(text));
      await client.query(`SET statement_timeout = ${statementTimeoutMs}`);
    });
  }

  transaction<T>(
    work: (transaction: Transaction) => Promise<T>,
    { unlimited = false }: TransactionOptions = {},
  ): Promise<T> {
    return this.#withClient(async (client) => {
      const run = (text: string) => client.query(unlimited ? unhurried(text) : text);
      await run("BEGIN");
      if (unlimited) {
        await run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0");
      }
      const result = await work({
        query: async <R>(text: string, params: readonly unknown[] = []) =>
          (await client.query(unlimited ? unhurried(text) : text, [...params])).rows as R[],
        run: async (text) => {
          await run(text);
        },
        copyIn: (target, chunks) => copyIn(client, target, chunks),
      });
      const { command } = await run("COMMIT");
      // PostgreSQL answers the COMMIT of a transaction in which a statement failed with ROLLBACK, and no error.
      if (command !== "COMMIT") throw new Error(`the transaction was rolled back: ${command}`);
      return result;
    });
  }

  async close(): Promise<void> {
    if (!this.#pool.ending) await this.#pool.end();
  }

  /** Lends a connection. After an error it is not used again: its server rolls back, whatever state it was in. */
  async #withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    let client: pg.PoolClient | undefined;
    let failed = true;
    // Without a listener, a connection that ends while it is lent would end the process.
    const ignore = () => {};
    try {
      client = await this.#pool.connect();
      client.on("error", ignore);
      const result = await work(client);
      failed = false;
      return result;
    } catch (error) {
      throw databaseError(error, "The database reports");
    } finally {
      client?.off("error", ignore);
      client?.release(failed);
    }
  }
}

/** The query without the client's time limit. pg knows the option; its types do not. */
function unhurried(text: string): pg.QueryConfig {
  return { text, query_timeout: longestTimeoutMs } as pg.QueryConfig;
}

async function copyIn(client: pg.PoolClient, target: string, chunks: readonly Uint8Array[]): Promise<void> {
  const stream = client.query(copyFrom(`COPY ${target} FROM STDIN (FORMAT binary)`));
  await new Promise<void>((resolve, reject) => {
    stream.on("error", reject);
    stream.on("finish", resolve);
    const send = async () => {
      for (const chunk of chunks) if (!stream.write(chunk)) await once(stream, "drain");
      stream.end();
    };
    send().catch(reject);
  });
}

function connectionOf({ url, user, password, ca }: PostgresOptions): pg.PoolConfig {
  if (!URL.canParse(url) || !/^postgres(ql)?:$/.test(new URL(url).protocol)) {
    throw new ConfigError("The database's address must be a URL such as postgres://millrace@db.example:5432/millrace");
  }
  // What the URL says of TLS would replace the certificate given beside it.
  const address = new URL(url);
  if (user !== undefined) address.username = encodeURIComponent(user);
  // In the URL, because pg prefers even an empty password there to one given beside it.
  if (password !== undefined) address.password = encodeURIComponent(password.reveal());
  if (ca !== undefined) for (const key of ["sslmode", "sslrootcert", "ssl"]) address.searchParams.delete(key);
  return {
    connectionString: address.href,
    ...(ca === undefined ? {} : { ssl: { ca, rejectUnauthorized: true } }),
  };
}

function getTypeParser(type: number, format?: "text" | "binary"): (value: string) => unknown {
  if (type === oid.int8) return Number;
  if (type === oid.timestamptz) return parseTimestamp;
  return pg.types.getTypeParser(type, format as "text");
}
