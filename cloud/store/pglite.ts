import { existsSync, rmSync, writeFileSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { Worker } from "node:worker_threads";
import type { Logger } from "pino";
import { LinkError, messageOf } from "../../protocols/errors.ts";
import type { Database, Row, Transaction, TransactionOptions } from "./database.ts";
import { FolderLock } from "./folder-lock.ts";
import { openAnswer, type PgliteAnswer, type PgliteFailure, type PgliteRequest } from "./pglite-worker.ts";
import { databaseError } from "./sql-error.ts";

/** PGlite makes no checkpoint by itself, and its write-ahead log grows until one is made. */
const checkpointAfterBytes = 64 * 1024 * 1024;
/** What a transaction writes beside the rows copied, roughly: pages that were not written since the checkpoint. */
const bytesPerTransaction = 64 * 1024;

/** A request that takes longer than this means that the engine hangs. */
const requestTimeoutMs = 300_000;

/** The body of a request, to which `Engine.ask` adds the number. */
type Task = PgliteRequest extends infer R ? (R extends PgliteRequest ? Omit<R, "id"> : never) : never;

/**
 * An embedded PostgreSQL in a folder, for one process: PGlite in a thread of its own. Transactions run one after the
 * other. When the engine breaks, it is started anew with the next call, and recovers as after a crash.
 */
export class PgliteDatabase implements Database {
  readonly engine = "pglite";
  readonly #folder: string;
  readonly #log: Logger;
  readonly #lock: FolderLock;
  #engine: Promise<Engine> | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;
  #bytesSinceCheckpoint = 0;

  private constructor(folder: string, log: Logger, lock: FolderLock) {
    this.#folder = folder;
    this.#log = log;
    this.#lock = lock;
  }

  /** Opens the database in the folder, or makes one. @throws ConfigError when another process has the folder */
  static async open(folder: string, log: Logger): Promise<PgliteDatabase> {
    const database = new PgliteDatabase(folder, log, FolderLock.take(folder));
    try {
      await database.#inTurn(async () => {});
      return database;
    } catch (error) {
      await database.close();
      throw error;
    }
  }

  query<R = Row>(text: string, params: readonly unknown[] = []): Promise<R[]> {
    return this.#inTurn((engine) => engine.query<R>(text, params));
  }

  runAlone(text: string): Promise<void> {
    return this.#inTurn((engine) => engine.run(text, Number.POSITIVE_INFINITY));
  }

  transaction<T>(
    work: (transaction: Transaction) => Promise<T>,
    { unlimited = false }: TransactionOptions = {},
  ): Promise<T> {
    return this.#inTurn(async (engine) => {
      let bytes = bytesPerTransaction;
      const transaction: Transaction = {
        query: (text, params = []) => engine.query(text, params),
        run: (text) => engine.run(text, unlimited ? Number.POSITIVE_INFINITY : requestTimeoutMs),
        copyIn: (target, chunks) => {
          for (const chunk of chunks) bytes += chunk.byteLength;
          return engine.copyIn(target, chunks);
        },
      };
      await engine.run("BEGIN");
      try {
        const result = await work(transaction);
        await engine.run("COMMIT");
        return result;
      } catch (error) {
        // When the engine broke, the transaction is gone with it.
        if (!engine.broken) await engine.run("ROLLBACK");
        throw error;
      } finally {
        this.#bytesSinceCheckpoint += bytes;
        if (this.#bytesSinceCheckpoint >= checkpointAfterBytes) await this.#checkpoint(engine);
      }
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#turn.catch(() => {});
    const engine = await this.#engine?.catch(() => undefined);
    await engine?.close();
    this.#lock.release();
  }

  /** The transaction before it is over already: a failure here is not the caller's. */
  async #checkpoint(engine: Engine): Promise<void> {
    this.#bytesSinceCheckpoint = 0;
    try {
      await engine.run("CHECKPOINT");
    } catch (error) {
      this.#log.warn({ err: error }, "the embedded database could not make a checkpoint; it will be tried again");
    }
  }

  #inTurn<T>(work: (engine: Engine) => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new LinkError("The database is closed"));
    const result = this.#turn.then(async () => work(await this.#running()));
    this.#turn = result.catch(() => {});
    return result;
  }

  async #running(): Promise<Engine> {
    const engine = await this.#engine;
    if (engine !== undefined && !engine.broken) return engine;
    if (engine !== undefined) {
      this.#log.warn("the embedded database broke down; starting it again");
      // The old thread must be gone: two at work in one folder would destroy it.
      await engine.close();
    }
    this.#engine = Engine.start(this.#folder);
    try {
      return await this.#engine;
    } catch (error) {
      this.#engine = undefined;
      throw error;
    }
  }
}

/** The thread that PGlite runs in, asked one thing at a time. */
class Engine {
  readonly #worker: Worker;
  #requests = openAnswer;
  #pending: { readonly id: number; settle(answer: PgliteAnswer): void } | undefined;
  #broken: LinkError | undefined;

  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.on("message", (answer: PgliteAnswer) => {
      if (answer.id === this.#pending?.id) this.#pending.settle(answer);
    });
    worker.on("error", (error) => this.#break(messageOf(error)));
    worker.on("exit", () => this.#break("its thread ended"));
  }

  static async start(folder: string): Promise<Engine> {
    const data = join(folder, "pgdata");
    const complete = join(folder, "complete");
    // Killed while it made the database: nothing can have been stored in it yet, and half of it is no use.
    if (!existsSync(complete)) rmSync(data, { recursive: true, force: true });
    const worker = new Worker(new URL(`./pglite-worker${extname(import.meta.url)}`, import.meta.url), {
      workerData: { folder: data },
      name: "pglite",
    });
    const engine = new Engine(worker);
    try {
      await engine.#answer(openAnswer, `The embedded database in ${folder} does not open`, requestTimeoutMs);
      if (!existsSync(complete)) {
        await syncTree(data);
        writeFileSync(complete, "The database in pgdata was made completely.\n", { flush: true });
      }
      return engine;
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  get broken(): boolean {
    return this.#broken !== undefined;
  }

  async query<R>(text: string, params: readonly unknown[]): Promise<R[]> {
    return (await this.#ask({ do: "query", text, params })) as R[];
  }

  async run(text: string, timeoutMs?: number): Promise<void> {
    await this.#ask({ do: "run", text }, [], timeoutMs);
  }

  async copyIn(target: string, chunks: readonly Uint8Array[]): Promise<void> {
    const text = `COPY ${target} FROM '/dev/blob' (FORMAT binary)`;
    const buffers = chunks.map((chunk) => chunk.buffer as ArrayBuffer);
    await this.#ask({ do: "copy", text, chunks }, buffers);
  }

  async close(): Promise<void> {
    if (!this.broken) {
      const ended = new Promise((resolve) => this.#worker.once("exit", resolve));
      const closed = await this.#ask({ do: "close" }).then(
        () => true,
        () => false,
      );
      if (closed) await ended;
    }
    await this.#worker.terminate();
  }

  #ask(task: Task, transfer: readonly ArrayBuffer[] = [], timeoutMs = requestTimeoutMs): Promise<readonly unknown[]> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    this.#requests += 1;
    const id = this.#requests;
    const answer = this.#answer(id, "The embedded database reports", timeoutMs);
    this.#worker.postMessage({ ...task, id }, transfer);
    return answer;
  }

  #answer(id: number, what: string, timeoutMs: number): Promise<readonly unknown[]> {
    return new Promise((resolve, reject) => {
      const timer = Number.isFinite(timeoutMs)
        ? setTimeout(() => this.#break(`it gave no answer within ${timeoutMs / 1000} s`), timeoutMs)
        : undefined;
      this.#pending = {
        id,
        settle: (answer) => {
          clearTimeout(timer);
          this.#pending = undefined;
          if ("rows" in answer) return resolve(answer.rows);
          reject(databaseError(errorOf(answer.failure), what));
          if (answer.failure.fatal) this.#break(answer.failure.message);
        },
      };
    });
  }

  /** The engine is of no use any more: refuses what is asked of it from now on. */
  #break(why: string): void {
    if (this.#broken !== undefined) return;
    this.#broken = new LinkError(`The embedded database broke down: ${why}`);
    this.#pending?.settle({ id: this.#pending.id, failure: { message: this.#broken.message, fatal: false } });
    void this.#worker.terminate();
  }
}

function errorOf({ message, code }: PgliteFailure): Error {
  return Object.assign(new Error(message), { code });
}

/** Brings a whole folder to the disk. PGlite makes a new database without doing so. */
async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile() || entry.isDirectory()) await syncPath(join(entry.parentPath, entry.name));
  }
  await syncPath(folder);
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
