import type { Logger } from "pino";
import { LinkError, messageOf } from "../protocols/errors.ts";
import { backOff } from "./backoff.ts";
import type { RefusedMessage, Store } from "./store/store.ts";

interface Entry {
  readonly message: RefusedMessage;
  readonly kept: () => void;
}

/** How many refused messages may wait for the database at once, and their bytes together; more are only counted. */
const maxWaiting = 100;
const maxWaitingBytes = 4 * 1024 * 1024;

/**
 * Keeps refused messages in the store for inspection, all that wait in one transaction: whoever floods the cloud with
 * garbage takes one turn at the database, not one for each message. Waits for a database that is away.
 */
export class Quarantine {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #failed: (error: unknown) => void;
  #waiting: Entry[] = [];
  /** Of those that wait and those that are being written. */
  #count = 0;
  #bytes = 0;
  #wake: () => void = () => undefined;

  /** @param failed is told of each failure of the database */
  constructor(store: Store, log: Logger, failed: (error: unknown) => void) {
    this.#store = store;
    this.#log = log;
    this.#failed = failed;
  }

  /** Keeps the message, unless too many wait already. @param kept is called once it is committed */
  keep(message: RefusedMessage, kept: () => void = () => undefined): void {
    const bytes = message.payload.byteLength;
    if (this.#count > 0 && (this.#count >= maxWaiting || this.#bytes + bytes > maxWaitingBytes)) return;
    this.#waiting.push({ message, kept });
    this.#count++;
    this.#bytes += bytes;
    this.#wake();
  }

  /** Writes what is to be kept until `signal` is aborted; then tries once more with what is left. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#wake());
    for (;;) {
      if (this.#waiting.length > 0) await this.#write(this.#waiting.splice(0), signal);
      else if (signal.aborted) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  async #write(entries: readonly Entry[], signal: AbortSignal): Promise<void> {
    const written = await this.#writeUntilDone(
      entries.map(({ message }) => message),
      signal,
    );
    this.#count -= entries.length;
    for (const { message } of entries) this.#bytes -= message.payload.byteLength;
    if (written) for (const { kept } of entries) kept();
  }

  async #writeUntilDone(messages: readonly RefusedMessage[], signal: AbortSignal): Promise<boolean> {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#store.keepRefused(messages);
        return true;
      } catch (error) {
        if (!(error instanceof LinkError)) {
          this.#log.error({ err: error }, `refused messages could not be kept: ${messageOf(error)}`);
          return false;
        }
        this.#failed(error);
        if (signal.aborted) return false;
        await backOff(attempt, signal);
      }
    }
  }
}
