import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Logger } from "pino";
import type { RegisterImage } from "./registers.ts";

export interface ModbusServerOptions {
  readonly host: string;
  /** 0: any free port; once chosen it stays. */
  readonly port: number;
  /** The units behind the address. */
  readonly units: ReadonlyMap<number, RegisterImage>;
  readonly log: Logger;
}

/** The function codes that are served. Writing is answered with exception 1, illegal function. */
const functions = { 1: "coil", 2: "discrete", 3: "holding", 4: "input" } as const;
const illegalFunction = 1;
const illegalAddress = 2;
const illegalValue = 3;
const targetDoesNotRespond = 0x0b;

const headerBytes = 7; // transaction, protocol, length, unit
const longestPdu = 253;

/**
 * A Modbus TCP server (Modbus Messaging on TCP/IP Implementation Guide V1.0b) with several units behind one address, as
 * a gateway has them. A unit that is not there, or down, is answered with exception 11, as gateways do.
 */
export class ModbusServer {
  readonly #options: ModbusServerOptions;
  readonly #unitsDown = new Set<number>();
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port: number;

  constructor(options: ModbusServerOptions) {
    this.#options = options;
    this.#port = options.port;
  }

  /** The port listened on; 0 before the first start. */
  get port(): number {
    return this.#port;
  }

  /** Begins to listen. Also after `stop`, and then on the same port. */
  async start(): Promise<void> {
    if (this.#server) return;
    const server = createServer((socket) => this.#serve(socket));
    server.listen(this.#port, this.#options.host);
    await once(server, "listening");
    this.#server = server;
    const address = server.address();
    if (address && typeof address === "object") this.#port = address.port;
  }

  /** Refuses connections and cuts those there are. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(server, "close");
  }

  /** Makes one unit silent behind the gateway, or brings it back. */
  setUnitDown(unit: number, down: boolean): void {
    if (down) this.#unitsDown.add(unit);
    else this.#unitsDown.delete(unit);
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", (error) => this.#options.log.debug({ err: error }, "a Modbus client went away"));
    socket.on("drain", () => socket.resume());
    let received: Buffer = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      received = this.#answerAll(socket, received.length === 0 ? chunk : Buffer.concat([received, chunk]));
    });
  }

  /** Answers each whole request; returns the rest. What cannot be Modbus ends the connection. */
  #answerAll(socket: Socket, received: Buffer): Buffer {
    let at = 0;
    while (received.length - at > headerBytes) {
      const protocol = received.readUInt16BE(at + 2);
      const length = received.readUInt16BE(at + 4); // of unit and PDU
      if (protocol !== 0 || length < 2 || length > longestPdu + 1) {
        socket.destroy();
        return Buffer.alloc(0);
      }
      const end = at + headerBytes - 1 + length;
      if (end > received.length) break;
      const unit = received[at + headerBytes - 1]!;
      const pdu = this.#answer(unit, received.subarray(at + headerBytes, end));
      const header = Buffer.from(received.subarray(at, at + headerBytes));
      header.writeUInt16BE(pdu.length + 1, 4);
      if (!socket.write(Buffer.concat([header, pdu]))) socket.pause();
      at = end;
    }
    return received.subarray(at);
  }

  #answer(unitId: number, request: Buffer): Buffer {
    const code = request[0]!;
    const refuse = (exception: number) => Buffer.from([code | 0x80, exception]);
    const unit = this.#unitsDown.has(unitId) ? undefined : this.#options.units.get(unitId);
    if (!unit) return refuse(targetDoesNotRespond);
    const table = functions[code as keyof typeof functions];
    if (!table) return refuse(illegalFunction);
    if (request.length !== 5) return refuse(illegalValue);
    const address = request.readUInt16BE(1);
    const count = request.readUInt16BE(3);
    const onBits = table === "coil" || table === "discrete";
    if (count < 1 || count > (onBits ? 2000 : 125)) return refuse(illegalValue);
    const data = onBits ? unit.bits(table, address, count) : unit.registers(table, address, count);
    return data ? Buffer.concat([Buffer.from([code, data.length]), data]) : refuse(illegalAddress);
  }
}
