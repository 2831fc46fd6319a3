/** One row, by column name. */
export type Row = Record<string, unknown>;

/** Something that answers SQL: a database, or a transaction in it. */
export interface Queryable {
  /**
   * Runs one statement with parameters `$1` ….
   *
   * Both ways, values are: `int8` a number (safe integers only), `timestamptz` Micros (parameters: see `timestamp.ts`),
   * `bytea` a Uint8Array, the rest as their obvious counterparts. `R` is what the statement is known to return.
   * @throws LinkError | DataError
   */
  query<R = Row>(text: string, params?: readonly unknown[]): Promise<R[]>;
}

export interface Transaction extends Queryable {
  /** Runs several statements without parameters. */
  run(text: string): Promise<void>;
  /**
   * Copies rows into `target`, a table with its columns: `reading (time, number)`. The chunks, joined, are PostgreSQL's
   * binary COPY format; they must not be changed until the promise is settled.
   */
  copyIn(target: string, chunks: readonly Uint8Array[]): Promise<void>;
}

export interface TransactionOptions {
  /** Lifts every time limit, for migrations. */
  readonly unlimited?: boolean;
}

/** A small contract over a PostgreSQL server and an embedded PGlite. */
export interface Database extends Queryable {
  readonly engine: "postgresql" | "pglite";
  /** Runs `work` in a transaction: committed (durably) when the promise resolves, rolled back when it rejects. */
  transaction<T>(work: (transaction: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /** Runs one statement that is not allowed in a transaction, without a time limit. */
  runAlone(text: string): Promise<void>;
  /** Frees everything. Never throws; calls after it reject with a LinkError. */
  close(): Promise<void>;
}
