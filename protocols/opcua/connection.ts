import {
  AttributeIds,
  type ClientSecureChannelLayer,
  type ClientSession,
  type ClientSessionPublishService,
  type ClientSessionRawSubscriptionService,
  type EndpointDescription,
  MessageSecurityMode,
  OPCUAClient,
  SecurityPolicy,
  type UserIdentityInfo,
  UserTokenType,
} from "node-opcua-client";
import type { Logger } from "pino";
import { ConfigError, LinkError, messageOf } from "../errors.ts";
import type { OpcuaDevice } from "./config.ts";
import { applicationName, type Identity } from "./identity.ts";

/** How long a polite goodbye may take before the connection is cut. */
const goodbyeMs = 1000;
/** How long a server keeps the session of an agent that is gone. */
const sessionTimeoutMs = 120_000;
/** The library cuts a connection that is silent for so long. Silence is judged earlier and better by the subscription. */
const idleMs = 300_000;

const namespaceArray = "i=2255";
const maxMonitoredItemsPerCall = "i=11714";

/** A session with the services below the library's own subscriptions, which the driver uses instead of those. */
export type Session = ClientSession & ClientSessionRawSubscriptionService & ClientSessionPublishService;

/** The status with which a server refuses a request, by name (`BadTooManyOperations`); undefined for other errors. */
export function statusNameOf(error: unknown): string | undefined {
  return /\bBad[A-Z]\w+/.exec(messageOf(error))?.[0];
}

/**
 * One session with one server, from `open` to `close`. It never reconnects: when it is lost, `lost` is aborted with the
 * LinkError as its reason, and everything that waits for the server fails with that.
 */
export class Connection {
  readonly #device: OpcuaDevice;
  readonly #log: Logger;
  readonly #lost = new AbortController();
  #client: OPCUAClient | undefined;
  #channel: ClientSecureChannelLayer | undefined;
  #session: Session | undefined;
  #silent = false;

  constructor(device: OpcuaDevice, log: Logger) {
    this.#device = device;
    this.#log = log;
  }

  /** Aborted when the session is of no more use. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** The library's session. Only between a successful `open` and `close`. */
  get session(): Session {
    if (!this.#session) throw new LinkError(`no session with ${this.#device.endpoint}`);
    return this.#session;
  }

  /** Declares the session lost; the first reason counts. */
  fail(message: string, cause?: unknown): void {
    this.#lost.abort(new LinkError(`${this.#device.endpoint}: ${message}`, { cause }));
  }

  /** Declares the session lost because the server gives no answer: there is no use in saying goodbye to it. */
  failSilent(message: string): void {
    this.#silent = true;
    this.fail(message);
  }

  /**
   * Connects, checks what the server offers against what is wanted, and logs in.
   * @throws ConfigError when the server offers no way in that fits the configuration, or refuses the login
   * @throws LinkError when it cannot be reached
   */
  async open(identity: Identity, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const stop = AbortSignal.any([signal, this.lost]);
    const { endpoint, timeout } = this.#device;
    const client = OPCUAClient.create({
      ...identity,
      applicationName,
      clientName: `${applicationName} ${this.#device.name}`,
      securityMode: MessageSecurityMode.None,
      securityPolicy: SecurityPolicy.None,
      // A server may give a host name in its endpoints that this machine does not know: stay with the address dialled.
      endpointMustExist: false,
      connectionStrategy: { maxRetry: 0 },
      keepSessionAlive: false,
      requestedSessionTimeout: sessionTimeoutMs,
      transportTimeout: Math.max(idleMs, timeout),
      defaultTransactionTimeout: timeout,
    });
    this.#client = client;
    client.on("secure_channel_created", (channel) => {
      this.#channel = channel;
    });
    await this.#ask("connect", () => client.connect(endpoint), stop);
    client.on("close", (cause) => this.fail("connection lost", cause ?? undefined));
    const offered = await this.#ask("ask for the endpoints", () => client.getEndpoints(), stop);
    const user = this.#userFor(offered);
    try {
      this.#session = (await this.#ask("open a session", () => client.createSession(user), stop)) as Session;
    } catch (error) {
      if (/^Bad(UserAccessDenied|IdentityToken\w+)$/.test(statusNameOf(error) ?? "")) {
        const who = this.#device.login ? `the user ${this.#device.login.user}` : "an anonymous session";
        throw new ConfigError(`${endpoint} refuses ${who}: check login in the device map`, { cause: error });
      }
      throw error;
    }
    this.#session.on("session_closed", () => this.fail("session closed"));
  }

  /** The server's namespace URIs by index, as they are in this session. */
  async namespaces(): Promise<string[]> {
    const uris = await this.#read(namespaceArray);
    return Array.isArray(uris) ? uris.map(String) : [];
  }

  /** How many items the server takes in one call; undefined when it sets no limit or does not tell. */
  async maxItemsPerCall(): Promise<number | undefined> {
    const limit = await this.#read(maxMonitoredItemsPerCall);
    return typeof limit === "number" && limit > 0 ? limit : undefined;
  }

  /** Sends a request; an error of any kind, silence and the loss of the session are a LinkError that says `what`. */
  request<T>(what: string, send: (session: Session) => Promise<T>): Promise<T> {
    return this.#ask(what, () => send(this.session), this.lost);
  }

  /** Ends the session politely where the server still answers, cuts the connection where not. Never throws. */
  async close(): Promise<void> {
    this.fail("closed");
    const client = this.#client;
    this.#client = undefined;
    if (!client) return;
    if (this.#silent) this.#channel?.forceConnectionBreak();
    const goodbye = client.disconnect().catch((error) => this.#log.debug({ error: messageOf(error) }, "disconnect"));
    if (await settled(goodbye, goodbyeMs)) return;
    this.#channel?.forceConnectionBreak();
    await settled(goodbye, goodbyeMs);
  }

  async #read(nodeId: string): Promise<unknown> {
    const answer = await this.request(`read ${nodeId}`, (session) =>
      session.read({ nodeId, attributeId: AttributeIds.Value }),
    );
    return answer.value.value;
  }

  async #ask<T>(what: string, send: () => Promise<T>, stop: AbortSignal): Promise<T> {
    const { endpoint, timeout } = this.#device;
    stop.throwIfAborted();
    const cut = Promise.withResolvers<never>();
    const abort = () => cut.reject(stop.reason);
    const late = () => {
      this.#silent = true;
      cut.reject(new LinkError(`${endpoint} did not answer within ${timeout} ms (${what})`));
    };
    const timer = setTimeout(late, timeout);
    stop.addEventListener("abort", abort, { once: true });
    try {
      return await Promise.race([send(), cut.promise]);
    } catch (error) {
      // What the library says after the loss is less than what is known already.
      if (stop.aborted) throw stop.reason;
      if (error instanceof LinkError) throw error;
      throw new LinkError(`cannot ${what} at ${endpoint}`, { cause: error });
    } finally {
      clearTimeout(timer);
      stop.removeEventListener("abort", abort);
    }
  }

  /** The user to log in as, where an offered endpoint takes it. Never settles for anything else than what was asked. */
  #userFor(offered: readonly EndpointDescription[]): UserIdentityInfo {
    const { endpoint, login } = this.#device;
    const fitting = offered.filter(
      (one) => one.securityMode === MessageSecurityMode.None && one.securityPolicyUri === SecurityPolicy.None,
    );
    const wanted = login ? UserTokenType.UserName : UserTokenType.Anonymous;
    const token = fitting.flatMap((one) => one.userIdentityTokens ?? []).find((one) => one.tokenType === wanted);
    if (!token) {
      const asked = login
        ? "a user name and password without message security"
        : "an anonymous session without security";
      throw new ConfigError(`${endpoint} does not offer ${asked}. It offers: ${offersOf(offered)}`);
    }
    if (!login) return { type: UserTokenType.Anonymous };
    if (!token.securityPolicyUri || token.securityPolicyUri === SecurityPolicy.None) {
      this.#log.warn("the server takes the password unencrypted: anyone on the network can read it");
    }
    return { type: UserTokenType.UserName, userName: login.user, password: login.password.reveal() };
  }
}

/** True when `work` is done within `ms`. */
async function settled(work: Promise<unknown>, ms: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), ms);
  const done = await Promise.race([work.then(() => true), promise]);
  clearTimeout(timer);
  return done;
}

/** "SignAndEncrypt Basic256Sha256 (UserName, Certificate); None (Anonymous)" */
function offersOf(endpoints: readonly EndpointDescription[]): string {
  const offers = endpoints.map((one) => {
    const policy = one.securityPolicyUri?.split("#")[1] ?? "None";
    const mode = MessageSecurityMode[one.securityMode];
    const users = (one.userIdentityTokens ?? []).map((token) => UserTokenType[token.tokenType]);
    return `${mode === "None" ? "no security" : `${mode} ${policy}`} (${[...new Set(users)].join(", ") || "no kind of user"})`;
  });
  return [...new Set(offers)].join("; ") || "nothing";
}
