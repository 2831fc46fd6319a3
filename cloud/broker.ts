import { timingSafeEqual } from "node:crypto";
import { type AddressInfo, createServer, type Server } from "node:net";
import { Aedes, type Client } from "aedes";
import type { Logger } from "pino";
import { ConfigError } from "../protocols/errors.ts";
import type { Secret } from "../protocols/secret.ts";
import { edgeMayPublish, edgeMaySubscribe } from "../protocols/uplink/topics.ts";

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

/** Why a connection or a request was refused, as counted. */
const acl = { edge: "edge", service: "service" } as const;
type Role = (typeof acl)[keyof typeof acl];

interface KnownClient extends Client {
  millrace?: { readonly role: Role; readonly user: string };
}

/**
 * The embedded MQTT broker: one user and password per edge, and an access control list that lets an edge publish below
 * its own name and read its own acknowledgements, and nothing else. Speaks MQTT 3.1.1.
 */
export class EmbeddedBroker {
  readonly #options: BrokerOptions;
  readonly #log: Logger;
  readonly #passwords = new Map<string, { readonly role: Role; readonly password: Buffer }>();
  #aedes: Aedes | undefined;
  #server: Server | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** Begins to listen. @returns the address, as a URL. @throws ConfigError when the port is taken */
  async start(): Promise<string> {
    const { edges, service, host, port } = this.#options;
    for (const { name, password } of edges) {
      if (password !== undefined) this.#admit(name, acl.edge, password);
    }
    this.#admit(service.user, acl.service, service.password);
    const aedes = await Aedes.createBroker({ concurrency: 200 });
    this.#aedes = aedes;
    this.#guard(aedes);
    const server = createServer(aedes.handle);
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) =>
        reject(new ConfigError(`the broker cannot listen on ${host}:${port}: choose another port`, { cause: error })),
      );
      server.listen(port, host, resolve);
    });
    const { port: actual } = server.address() as AddressInfo;
    return `mqtt://${host === "0.0.0.0" ? "127.0.0.1" : host}:${actual}`;
  }

  #admit(user: string, role: Role, password: Secret): void {
    if (this.#passwords.has(user))
      throw new ConfigError(`the broker's user ${user} is named twice: choose another name`);
    this.#passwords.set(user, { role, password: Buffer.from(password.reveal()) });
  }

  #guard(aedes: Aedes): void {
    aedes.authenticate = (client: KnownClient, user, password, done) => {
      const known = user === undefined ? undefined : this.#passwords.get(user);
      if (known === undefined || !matches(known.password, password)) {
        this.#log.warn({ user, from: remoteOf(client) }, "the broker refuses a login: unknown user or wrong password");
        done(Object.assign(new Error("bad user name or password"), { returnCode: 4 as const }), false);
        return;
      }
      client.millrace = { role: known.role, user: user! };
      done(null, true);
    };
    aedes.authorizePublish = (client: KnownClient | null, { topic, retain }, done) => {
      const who = client?.millrace;
      const allowed = who?.role === acl.service || (who !== undefined && !retain && edgeMayPublish(who.user, topic));
      if (!allowed) this.#log.warn({ user: who?.user, topic }, "the broker refuses a message: not this user's topic");
      done(allowed ? null : new Error(`user ${who?.user} may not publish to ${topic}`));
    };
    aedes.authorizeSubscribe = (client: KnownClient | null, subscription, done) => {
      const who = client?.millrace;
      const allowed =
        who?.role === acl.service || (who !== undefined && edgeMaySubscribe(who.user, subscription.topic));
      if (!allowed) {
        this.#log.warn({ user: who?.user, topic: subscription.topic }, "the broker refuses a subscription");
      }
      done(null, allowed ? subscription : null); // null is answered with a refusal, the connection stays
    };
    aedes.on("clientError", (client: KnownClient, error) => {
      this.#log.debug({ user: client.millrace?.user, err: error }, "a client's connection failed");
    });
    aedes.on("connectionError", (client: KnownClient, error) => {
      this.#log.debug({ from: remoteOf(client), err: error }, "a connection failed before its login");
    });
  }

  async stop(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#aedes === undefined || this.#server === undefined) return;
    this.#server.close(() => resolve());
    const aedes = this.#aedes;
    await new Promise<void>((closed) => aedes.close(closed));
    await promise;
  }
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
