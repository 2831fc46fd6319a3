import { Worker } from "node:worker_threads";
import { ConfigError, LinkError } from "../../protocols/errors.ts";
import type { Micros } from "../../protocols/reading.ts";
import type {
  AppendResult,
  BufferedFrame,
  BufferOptions,
  BufferStats,
  FrameBuffer,
  FrameRecord,
  Recovered,
} from "./buffer.ts";
import type { SqliteBuffer } from "./sqlite.ts";
import type { BufferAnswer, BufferCall } from "./thread.ts";

interface PendingCall {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/**
 * The buffer in a thread of its own, so that a slow disk never delays a device's answer or a keep-alive. A call that
 * fails for the disk's sake (full, read-only, failing) rejects with a LinkError: it may succeed later.
 */
export class ThreadedBuffer implements FrameBuffer {
  /** Rejects when the thread has died: the buffer then takes nothing any more. Pending until then, and after `close`. */
  readonly failed: Promise<never>;
  readonly #failed = Promise.withResolvers<never>();
  readonly #options: BufferOptions;
  readonly #pending = new Map<number, PendingCall>();
  #worker: Worker | undefined;
  #nextId = 0;

  constructor(options: BufferOptions) {
    this.#options = options;
    this.failed = this.#failed.promise;
    this.failed.catch(() => undefined); // whoever waits for it hears of it
  }

  async open(): Promise<Recovered> {
    const worker = new Worker(new URL("./thread.ts", import.meta.url), {
      workerData: this.#options,
      // Frames live outside of the thread's heap; what it holds itself is young and short-lived.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    this.#worker = worker;
    worker.on("message", (answer: BufferAnswer) => this.#settle(answer));
    worker.on("error", (error) => this.#died(worker, error));
    worker.on("exit", (code) => this.#died(worker, new Error(`it ended with code ${code}`)));
    try {
      return (await this.#call("open")) as Recovered;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  append(record: FrameRecord): Promise<AppendResult> {
    return this.#call("append", record) as Promise<AppendResult>;
  }

  mark(watermarks: ReadonlyMap<string, Micros>): Promise<void> {
    return this.#call("mark", watermarks) as Promise<void>;
  }

  oldest(afterSeq: number, limit: number): Promise<BufferedFrame[]> {
    return this.#call("oldest", afterSeq, limit) as Promise<BufferedFrame[]>;
  }

  release(seqs: readonly number[]): Promise<void> {
    return this.#call("release", seqs) as Promise<void>;
  }

  setAside(refused: readonly { readonly seq: number; readonly reason: string }[]): Promise<void> {
    return this.#call("setAside", refused) as Promise<void>;
  }

  saveMap(hash: string, bytes: Uint8Array): Promise<void> {
    return this.#call("saveMap", hash, bytes) as Promise<void>;
  }

  map(hash: string): Promise<Uint8Array | undefined> {
    return this.#call("map", hash) as Promise<Uint8Array | undefined>;
  }

  stats(): Promise<BufferStats> {
    return this.#call("stats") as Promise<BufferStats>;
  }

  /** Finishes what was asked before, and ends the thread. */
  async close(): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    const closed = this.#call("close").catch(() => undefined); // a buffer that did not open has nothing to close
    this.#worker = undefined;
    await closed;
    await worker.terminate();
  }

  #call(method: keyof SqliteBuffer, ...args: unknown[]): Promise<unknown> {
    const worker = this.#worker;
    if (worker === undefined) return Promise.reject(new LinkError("the buffer is closed"));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.postMessage({ id, method, args } satisfies BufferCall);
    });
  }

  #settle({ id, result, error }: BufferAnswer): void {
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    if (error === undefined) call?.resolve(result);
    else if (error.config) call?.reject(new ConfigError(error.message, { cause: error.cause }));
    else call?.reject(new LinkError(`the buffer's disk refuses: ${error.message}`, { cause: error.cause }));
  }

  #died(worker: Worker, cause: unknown): void {
    const error = new LinkError("the buffer's thread has died", { cause });
    if (this.#worker === worker) {
      this.#worker = undefined;
      this.#failed.reject(error);
    }
    for (const call of this.#pending.values()) call.reject(error);
    this.#pending.clear();
  }
}
