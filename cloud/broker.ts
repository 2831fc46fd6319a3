import { timingSafeEqual } from "node:crypto";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Aedes, type Client, type PublishPacket } from "aedes";
import type { Logger } from "pino";
import { ConfigError } from "../protocols/errors.ts";
import type { Secret } from "../protocols/secret.ts";
import { maxContentBytes } from "../protocols/uplink/envelope.ts";
import { edgeMayPublish, edgeMaySubscribe } from "../protocols/uplink/topics.ts";
import { PacketLimit } from "./packet-limit.ts";

export interface BrokerOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** The edges that may log in, each under its name. One without a password cannot. */
  readonly edges: readonly { readonly name: string; readonly password?: Secret }[];
  /** The cloud service's own user, who may read and write everything. */
  readonly service: { readonly user: string; readonly password: Secret };
  readonly log: Logger;
}

const roles = { edge: "edge", service: "service" } as const;
type Role = (typeof roles)[keyof typeof roles];

interface KnownClient extends Client {
  millrace?: { readonly role: Role; readonly user: string };
}

/** MQTT 3.1.1, 3.2.2.3: the return codes of a refused connection. */
const refusal = { badLogin: 4, notAuthorized: 5 } as const;
const connectTimeoutMs = 10_000;
/** What may be announced before the login. */
const maxLoginBytes = 64 * 1024;
/** The largest frame, with its header and topic. */
const maxPacketBytes = maxContentBytes + 64 * 1024;

/**
 * The embedded MQTT broker: one user and password per edge, and an access control list that lets an edge publish below
 * its own name and read its own acknowledgements, and nothing else. It keeps nothing for anybody: edges have no
 * persistent sessions, retained messages or QoS 2. Speaks MQTT 3.1.1.
 */
export class EmbeddedBroker {
  readonly #options: BrokerOptions;
  readonly #log: Logger;
  readonly #passwords = new Map<string, { readonly role: Role; readonly password: Buffer }>();
  /** Every connection, those without a login too, which the broker itself would leave open. */
  readonly #sockets = new Set<Socket>();
  #aedes: Aedes | undefined;
  #server: Server | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** Begins to listen. @returns the address, as a URL. @throws ConfigError when it cannot listen there */
  async start(): Promise<string> {
    const { edges, service, host, port } = this.#options;
    for (const { name, password } of edges) {
      if (password !== undefined) this.#admit(name, roles.edge, password);
    }
    this.#admit(service.user, roles.service, service.password);
    const aedes = await Aedes.createBroker({ concurrency: 200, connectTimeout: connectTimeoutMs });
    this.#aedes = aedes;
    this.#guard(aedes);
    const server = createServer((socket) => this.#accept(aedes, socket));
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(port, host, resolve);
      });
    } catch (error) {
      await this.stop();
      throw new ConfigError(
        `the broker cannot listen on ${host}:${port}: choose another broker.embedded.host or port`,
        { cause: error },
      );
    }
    this.#server = server;
    // Such as no file descriptor left for one more connection: those that are there go on.
    server.on("error", (error) => this.#log.error({ err: error }, "the broker could not accept a connection"));
    return urlOf("mqtt", server.address() as AddressInfo);
  }

  async stop(): Promise<void> {
    const [aedes, server] = [this.#aedes, this.#server];
    this.#aedes = undefined;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
    await new Promise<void>((resolve) => (aedes ? aedes.close(resolve) : resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #admit(user: string, role: Role, password: Secret): void {
    if (this.#passwords.has(user))
      throw new ConfigError(`the broker's user ${user} is named twice: choose another name`);
    this.#passwords.set(user, { role, password: Buffer.from(password.reveal()) });
  }

  /** Hands the connection to the broker, with a watch over what it announces. */
  #accept(aedes: Aedes, socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    const limit = new PacketLimit();
    const read = socket.read.bind(socket);
    let client: KnownClient | undefined;
    socket.read = (size?: number) => {
      const bytes: Buffer | null = read(size);
      const maxBytes = client?.millrace === undefined ? maxLoginBytes : maxPacketBytes;
      if (bytes === null || limit.admits(bytes, maxBytes)) return bytes;
      this.#log.warn(
        { user: client?.millrace?.user, from: socket.remoteAddress },
        `the broker ends a connection: it announces a packet of more than ${maxBytes} bytes, or an impossible one`,
      );
      socket.destroy();
      return null;
    };
    client = aedes.handle(socket);
  }

  #guard(aedes: Aedes): void {
    aedes.authenticate = (client: KnownClient, user, password, done) => {
      const known = user === undefined ? undefined : this.#passwords.get(user);
      const refuse = (why: string, returnCode: (typeof refusal)[keyof typeof refusal]) => {
        this.#log.warn({ user, from: remoteOf(client) }, `the broker refuses a login: ${why}`);
        done(Object.assign(new Error(why), { returnCode }), false);
      };
      if (known === undefined || !matches(known.password, password)) {
        refuse("unknown user or wrong password", refusal.badLogin);
        return;
      }
      // What would be kept for a session that never returns has no bound.
      if (!client.clean) {
        refuse("it asks for a persistent session; connect with clean session", refusal.notAuthorized);
        return;
      }
      client.millrace = { role: known.role, user: user! };
      // Each user's client ids are its own: a second client takes over its own user's session, never another's.
      client.id = `${user}/${client.id}`;
      done(null, true);
    };
    aedes.authorizePublish = (client: KnownClient | null, packet, done) => {
      const user = client?.millrace?.user;
      const allowed = mayPublish(client, packet);
      if (!allowed) {
        const { topic, retain, qos } = packet;
        this.#log.warn({ user, topic, retain, qos }, "the broker refuses a message: not this user's to publish");
      }
      done(allowed ? null : new Error(`user ${user} may not publish to ${packet.topic}`));
    };
    aedes.authorizeSubscribe = (client: KnownClient | null, subscription, done) => {
      const who = client?.millrace;
      const { topic } = subscription;
      const allowed = who?.role === roles.service || (who !== undefined && edgeMaySubscribe(who.user, topic));
      if (!allowed)
        this.#log.warn({ user: who?.user, topic }, "the broker refuses a subscription: not this user's to read");
      done(null, allowed ? subscription : null); // null is answered with a refusal, the connection stays
    };
    this.#logTroubles(aedes);
  }

  #logTroubles(aedes: Aedes): void {
    aedes.on("clientError", (client: KnownClient, error) => {
      this.#log.debug({ user: client.millrace?.user, err: error }, "a client's connection failed");
    });
    aedes.on("connectionError", (client: KnownClient, error) => {
      this.#log.debug({ from: remoteOf(client), err: error }, "a connection failed before its login");
    });
    // Without a listener it would end the process.
    (aedes as NodeJS.EventEmitter).on("error", (error: Error) => this.#log.error({ err: error }, "the broker failed"));
  }
}

/** An address that a program on this machine can use. */
export function urlOf(scheme: "http" | "mqtt", { address, port }: Pick<AddressInfo, "address" | "port">): string {
  const local: Record<string, string> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
  const host = local[address] ?? address;
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function mayPublish(client: KnownClient | null, { topic, retain, qos }: PublishPacket): boolean {
  const who = client?.millrace;
  if (who?.role === roles.service) return true;
  // Retained messages and those of QoS 2 would be kept in memory.
  return who !== undefined && edgeMayPublish(who.user, topic) && !retain && qos < 2;
}

function matches(expected: Buffer, given: Readonly<Uint8Array> | undefined): boolean {
  if (given === undefined) return false;
  // Of equal length, so that the comparison takes the same time wherever they differ.
  const padded = Buffer.alloc(expected.length);
  Buffer.from(given).copy(padded);
  return timingSafeEqual(expected, padded) && given.length === expected.length;
}

function remoteOf(client: Client): string | undefined {
  return (client.conn as { remoteAddress?: string }).remoteAddress;
}
