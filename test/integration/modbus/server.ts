import { createServer, type Server, type Socket } from "node:net";

/** A request as it came over the wire. */
export interface Request {
  readonly transactionId: number;
  readonly unitId: number;
  readonly functionCode: number;
  readonly address: number;
  readonly length: number;
}

/**
 * A Modbus TCP server written from the specification for the tests, so that no library is at both ends. Every holding
 * register holds its own address, every input register 65535 minus that, every third coil is on, every fifth discrete.
 */
export class ModbusServer {
  /** Registers that hold something else, by `unit table address`: `1 holding 100`. */
  readonly values = new Map<string, number>();
  /** Addresses that are answered with exception 2. */
  isIllegal: (request: { unitId: number; table: string; address: number }) => boolean = () => false;
  /** Answers of a test's own, before anything else; undefined goes on as usual. */
  script: ((request: Request, socket: Socket) => Buffer | "silence" | undefined) | undefined;
  /** Units that never answer. */
  readonly silent = new Set<number>();
  /** Larger requests are refused with exception 3. */
  maxRegisters = 125;
  /** How long an answer takes. */
  delayMs = 0;
  /** Everything that was asked, oldest first. */
  readonly requests: Request[] = [];
  /** How often somebody connected. */
  accepted = 0;

  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;

  get port(): number {
    return this.#port;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Listens on a free port; later starts, after `stop`, take the same one. */
  async start(): Promise<this> {
    const server = createServer((socket) => this.#serve(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, "127.0.0.1", resolve);
    });
    this.#server = server;
    this.#port = (server.address() as { port: number }).port;
    return this;
  }

  /** Cuts all connections and listens no more. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  #serve(socket: Socket): void {
    this.accepted++;
    this.#sockets.add(socket);
    socket.setNoDelay();
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    let received: Buffer = Buffer.alloc(0);
    socket.on("data", (data: Buffer) => {
      received = Buffer.concat([received, data]);
      while (received.length >= 12) {
        const request = {
          transactionId: received.readUInt16BE(0),
          unitId: received[6]!,
          functionCode: received[7]!,
          address: received.readUInt16BE(8),
          length: received.readUInt16BE(10),
        };
        received = received.subarray(12);
        this.requests.push(request);
        this.#answer(request, socket);
      }
    });
  }

  #answer(request: Request, socket: Socket): void {
    const scripted = this.script?.(request, socket);
    if (scripted === "silence") return;
    if (scripted === undefined && this.silent.has(request.unitId)) return;
    const bytes = scripted ?? this.answerTo(request);
    if (this.delayMs === 0) socket.write(bytes);
    else setTimeout(() => !socket.destroyed && socket.write(bytes), this.delayMs).unref();
  }

  /** The right answer, as the whole frame. */
  answerTo(request: Request): Buffer {
    const { unitId, functionCode, address, length } = request;
    const table = ["", "coil", "discrete", "holding", "input"][functionCode];
    if (!table) return exception(request, 1);
    const onBits = functionCode <= 2;
    if (length === 0 || length > (onBits ? 2000 : this.maxRegisters)) return exception(request, 3);
    for (let at = address; at < address + length; at++) {
      if (at > 0xffff || this.isIllegal({ unitId, table, address: at })) return exception(request, 2);
    }
    const bytes = Buffer.alloc(onBits ? Math.ceil(length / 8) : length * 2);
    for (let index = 0; index < length; index++) {
      const at = address + index;
      const value = this.values.get(`${unitId} ${table} ${at}`) ?? held(table, at);
      if (onBits) bytes[index >> 3]! |= (value & 1) << (index & 7);
      else bytes.writeUInt16BE(value, index * 2);
    }
    return frame(request, Buffer.from([unitId, functionCode, bytes.length, ...bytes]));
  }
}

/** What the server holds at a place unless told otherwise. */
export function held(table: string, address: number): number {
  if (table === "coil") return address % 3 === 0 ? 1 : 0;
  if (table === "discrete") return address % 5 === 0 ? 1 : 0;
  return table === "input" ? 0xffff - address : address;
}

/** An exception response as the whole frame. */
export function exception(request: Request, code: number): Buffer {
  return frame(request, Buffer.from([request.unitId, request.functionCode | 0x80, code]));
}

/** Unit, function and data behind a right header. */
export function frame({ transactionId }: Request, payload: Buffer): Buffer {
  const header = Buffer.alloc(6);
  header.writeUInt16BE(transactionId, 0);
  header.writeUInt16BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}
