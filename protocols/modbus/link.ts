import { connect, type Socket } from "node:net";
import modbus from "modbus-serial";
import { LinkError } from "../errors.ts";
import type { Span } from "./plan.ts";

/** What came of a request. */
export type Answer =
  /** The registers, two bytes each, or the packed bits: exactly as many as were asked for. */
  | { readonly kind: "data"; readonly bytes: Buffer }
  /** An exception response with its code (Modbus Application Protocol V1.1b3, 7). */
  | { readonly kind: "exception"; readonly code: number }
  /** Nothing within the timeout, or not all of it. */
  | { readonly kind: "silence" }
  /** Something that does not answer the request: another unit, function, or length. */
  | { readonly kind: "garbage"; readonly detail: string };

/**
 * The only way to one host and port: one connection, one request at a time, whoever asks. It opens the connection when
 * a request needs it, and drops it after silence or garbage: what arrives later than its time arrives at a socket that
 * nobody reads any more, and can never become the answer to another request.
 */
export class Link {
  readonly #host: string;
  readonly #port: number;
  #connection: Connection | undefined;
  #lastTurn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  /** Opens the connection, if it is not open. @throws LinkError */
  open(timeoutMs: number, signal: AbortSignal): Promise<void> {
    return this.#inTurn(signal, async () => {
      await this.#opened(timeoutMs);
    });
  }

  /**
   * Reads a span. An abort gives up waiting at once; the request itself is brought to its end before the next one.
   * @throws LinkError when the connection cannot be opened, or is lost twice in a row
   */
  read(span: Span, timeoutMs: number, signal: AbortSignal): Promise<Answer> {
    return this.#inTurn(signal, async () => {
      // The device may have closed a connection that was idle for long, which shows at the next request.
      return (
        (await this.#ask(span, timeoutMs)) ??
        (await this.#ask(span, timeoutMs)) ??
        this.#fail("the device closes the connection over the request")
      );
    });
  }

  /** Cuts the connection; whoever waits for an answer gets a LinkError. For `Links` alone. */
  close(): void {
    this.#closed = true;
    this.#drop();
  }

  /** Does the work when everything that was asked before is done. */
  #inTurn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(() => {
      signal.throwIfAborted();
      return work();
    });
    this.#lastTurn = turn.catch(() => {});
    return unlessAborted(turn, signal);
  }

  /** One try; undefined when the connection was lost over it. */
  async #ask(span: Span, timeoutMs: number): Promise<Answer | undefined> {
    const connection = await this.#opened(timeoutMs);
    const answer = await connection.read(span, timeoutMs);
    if (answer?.kind !== "data" && answer?.kind !== "exception") this.#drop();
    return answer;
  }

  async #opened(timeoutMs: number): Promise<Connection> {
    if (this.#closed) this.#fail("the link is closed");
    if (this.#connection?.isOpen) return this.#connection;
    this.#drop();
    this.#connection = new Connection(this.#host, this.#port);
    try {
      await this.#connection.open(timeoutMs);
    } catch (cause) {
      this.#drop();
      this.#fail("cannot connect", cause);
    }
    return this.#connection;
  }

  #drop(): void {
    this.#connection?.destroy();
    this.#connection = undefined;
  }

  #fail(what: string, cause?: unknown): never {
    throw new LinkError(`${this.#host}:${this.#port}: ${what}`, { cause });
  }
}

/** The links of one agent: devices with the same host and port share one. */
export class Links {
  readonly #shared = new Map<string, { readonly link: Link; users: number }>();

  /** The link to an address. Every `acquire` needs its `release`. */
  acquire(host: string, port: number): Link {
    const key = `${host}:${port}`;
    const shared = this.#shared.get(key) ?? { link: new Link(host, port), users: 0 };
    shared.users++;
    this.#shared.set(key, shared);
    return shared.link;
  }

  /** Gives a link back; the last one who does closes it. */
  release(link: Link): void {
    for (const [key, shared] of this.#shared) {
      if (shared.link !== link || --shared.users > 0) continue;
      this.#shared.delete(key);
      link.close();
    }
  }
}

/** What modbus-serial tells in its debug mode: the frames as they came, so that they can be checked once more. */
interface Witnessed {
  readonly responses?: readonly Uint8Array[];
  readonly modbusResponses?: readonly Uint8Array[];
  readonly modbusCode?: number;
  readonly message?: string;
}

/**
 * One socket and the library on it. The library makes the requests and reads the answers; the socket is ours, because
 * the library does not tell a pending request that the connection was lost, and its timeouts leave the socket as it is.
 */
class Connection {
  readonly #socket: Socket;
  readonly #client = new modbus.default();

  constructor(host: string, port: number) {
    this.#socket = connect({ host, port, noDelay: true, keepAlive: true });
    // Whoever waits learns of an error through "close", which follows it.
    this.#socket.on("error", () => {});
    Object.assign(this.#client, { isDebugEnabled: true });
  }

  get isOpen(): boolean {
    return this.#socket.readyState === "open";
  }

  async open(timeoutMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(() => reject(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
    this.#socket.once("connect", resolve);
    this.#socket.once("error", reject);
    this.#socket.once("close", () => reject(new Error("closed while connecting")));
    await promise.finally(() => clearTimeout(timer));
    await this.#client.linkTCP(this.#socket, { port: this.#socket.remotePort! });
  }

  /**
   * The answer to a request; undefined when the connection was lost over it. Never rejects. The unit goes along as an
   * argument, because the library's `setID` is for a single user.
   */
  read(span: Span, timeoutMs: number): Promise<Answer | undefined> {
    const { promise, resolve } = Promise.withResolvers<Answer | undefined>();
    const lost = () => resolve(undefined);
    const timer = setTimeout(() => resolve({ kind: "silence" }), timeoutMs);
    this.#socket.once("close", lost);
    const write = { coil: "writeFC1", discrete: "writeFC2", holding: "writeFC3", input: "writeFC4" } as const;
    this.#client[write[span.table]](span.unitId, span.address, span.length, (error: Witnessed | null, result) => {
      if (error) resolve(this.isOpen ? failure(span, error) : undefined);
      else resolve(success(span, result));
    });
    return promise.finally(() => {
      clearTimeout(timer);
      this.#socket.off("close", lost);
    });
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** The library has checked unit, function and length of an answer, but takes its byte count on trust. */
function success(span: Span, { buffer, responses }: { buffer: Buffer } & Witnessed): Answer {
  const { table, length } = span;
  const expected = table === "coil" || table === "discrete" ? Math.ceil(length / 8) : length * 2;
  if (buffer.length === expected) return { kind: "data", bytes: buffer };
  return garbage(`${expected} bytes asked for, ${buffer.length} announced`, responses);
}

/** The library takes an exception for ours whatever unit it names and however long it is. */
function failure(span: Span, error: Witnessed): Answer {
  const frame = error.modbusResponses?.at(-1);
  const isException = error.modbusCode !== undefined && frame?.length === 5 && frame[0] === span.unitId;
  return isException
    ? { kind: "exception", code: error.modbusCode! }
    : garbage(error.message ?? "no answer", error.modbusResponses);
}

function garbage(what: string, frames: readonly Uint8Array[] | undefined): Answer {
  const bytes = Buffer.from(frames?.at(-1) ?? []).subarray(0, -2); // without the checksum that the library adds
  return { kind: "garbage", detail: `${what} (${bytes.toString("hex", 0, 32)})` };
}

/** The outcome of `work`, or the signal's reason as soon as it is aborted. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
