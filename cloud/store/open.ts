import type { Logger } from "pino";
import type { FeatureChoice } from "./features.ts";
import { PgliteDatabase } from "./pglite.ts";
import { PostgresDatabase, type PostgresOptions } from "./postgres.ts";
import { SqlStore } from "./sql-store.ts";
import type { Store } from "./store.ts";

/** Where the store is: a folder of this process alone, or a PostgreSQL server, with TimescaleDB or without. */
export type StoreOptions = { readonly embedded: { readonly path: string } } | PostgresOptions;

export interface StoreContext {
  readonly log: Logger;
  /** `plain` uses nothing beyond plain PostgreSQL even where there is more. Default: `auto`. */
  readonly features?: FeatureChoice;
}

/**
 * Opens the store; `migrate` has to be called before anything else. A server that is down is no error yet: then the
 * calls throw LinkErrors until it is up.
 * @throws ConfigError when the folder is in use, or the URL is none
 */
export async function openStore(options: StoreOptions, { log, features = "auto" }: StoreContext): Promise<Store> {
  const database =
    "embedded" in options ? await PgliteDatabase.open(options.embedded.path, log) : new PostgresDatabase(options, log);
  return new SqlStore(database, features, log);
}
