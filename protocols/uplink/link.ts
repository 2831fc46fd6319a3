import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import type { Logger } from "pino";
import { ConfigError, LinkError, messageOf } from "../errors.ts";
import type { Secret } from "../secret.ts";
import { maxContentBytes } from "./envelope.ts";

/** How to reach the broker. */
export interface UplinkAddress {
  /** mqtt://, mqtts://, ws:// or wss:// */
  readonly url: string;
  readonly user: string;
  readonly password?: Secret;
  /** File of the certificate authority that signed the broker's certificate. */
  readonly ca?: string;
  readonly mqttVersion: "auto" | "5" | "3.1.1";
  readonly clientId: string;
}

/** A message as it arrived. Calling `taken` lets the next one come: not calling it slows the broker down. */
export type MessageHandler = (topic: string, payload: Buffer, taken: () => void) => void;

export interface UplinkHandlers {
  /** The topics to be subscribed to before `connected` is called. */
  readonly subscriptions: readonly string[];
  message: MessageHandler;
  /**
   * Called on each connection, once its subscriptions are granted.
   * @param receiveMaximum how many publications the broker takes before it has confirmed some; more make an MQTT 5
   *   broker end the connection, and the client library does not count
   */
  connected(client: MqttClient, receiveMaximum: number): void;
  /** Called when a connection that was announced is gone. */
  lost(): void;
}

const firstWaitMs = 250;
const longestWaitMs = 10_000;
/** After a connection shorter than this the next attempt waits as after a failed one, but no longer than 2 s. */
const stableMs = 5000;
const mostBriefFailures = 3;
/** So many short connections in a row are no accident. */
const suspiciousConnections = 3;
const keepaliveSeconds = 15;
/** For the connection itself, and again for its subscriptions. */
const connectTimeoutMs = 10_000;
const suspicion = "is another client with this client id connected, or does the broker's ACL refuse what is sent?";
/** A frame or device map of the largest size, with its headers. */
const maximumPacketSize = 2 * maxContentBytes;
/** MQTT's refusals of a protocol version: 3.1.1's return code and 5's reason code. */
const versionRefused = new Set([1, 0x84]);
/** MQTT 5's default, and no limit in 3.1.1 but that of the packet identifiers. */
const defaultReceiveMaximum = 65_535;

/**
 * Keeps an MQTT connection until `signal` is aborted. Each connection is a new client with a clean session: what has to
 * survive stands in our own stores, never in a broker's memory. With `mqttVersion: "auto"` MQTT 5 is tried first and
 * 3.1.1 where the broker refuses it.
 * @throws ConfigError when the certificate authority cannot be used
 */
export async function keepUplink(
  address: UplinkAddress,
  handlers: UplinkHandlers,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const ca = readAuthority(address.ca);
  let version: 4 | 5 = address.mqttVersion === "3.1.1" ? 4 : 5;
  const story = new LinkStory(log, address.url);
  while (!signal.aborted) {
    const error = await session(clientOptions(address, version, ca), address.url, signal, {
      ...handlers,
      connected(client, receiveMaximum) {
        story.connected(version);
        handlers.connected(client, receiveMaximum);
      },
    });
    story.ended();
    if (signal.aborted) return;
    if (version === 5 && address.mqttVersion === "auto" && versionRefused.has((error as { code?: number }).code ?? 0)) {
      version = 4;
      continue;
    }
    const waitMs = story.failed(error);
    await delay(waitMs * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
  }
}

/**
 * What is told of the link, and how long to wait. A broker that takes us and drops us again at once is no good news:
 * that is said once, and the attempts slow down.
 */
class LinkStory {
  readonly #log: Logger;
  readonly #broker: string;
  #failures = 0;
  #lastTrouble = "";
  #connected = false;
  /** How many connections in a row did not last. */
  #brief = 0;
  #stable: NodeJS.Timeout | undefined;

  constructor(log: Logger, broker: string) {
    this.#log = log;
    this.#broker = broker;
  }

  connected(version: 4 | 5): void {
    const tell = () =>
      this.#log.info({ broker: this.#broker, mqtt: version === 5 ? "5" : "3.1.1" }, "connected to the broker");
    this.#connected = true;
    const late = this.#brief++ > 0;
    if (!late) tell();
    this.#failures = Math.min(this.#failures, mostBriefFailures);
    this.#stable = setTimeout(() => {
      if (late) tell();
      this.#brief = 0;
      this.#failures = 0;
      this.#lastTrouble = "";
    }, stableMs);
  }

  ended(): void {
    clearTimeout(this.#stable);
  }

  /** @returns how long to wait before the next attempt, in milliseconds */
  failed(error: unknown): number {
    const again = this.#connected && this.#brief >= suspiciousConnections ? `, time and again: ${suspicion}` : "";
    const trouble = messageOf(error) + again;
    this.#connected = false;
    if (trouble !== this.#lastTrouble) {
      this.#log.warn({ broker: this.#broker }, `no connection to the broker: ${trouble}`);
    }
    this.#lastTrouble = trouble;
    return Math.min(firstWaitMs * 2 ** Math.min(this.#failures++, 10), longestWaitMs);
  }
}

function readAuthority(ca: string | undefined): Buffer | undefined {
  if (ca === undefined) return undefined;
  try {
    const pem = readFileSync(ca);
    new X509Certificate(pem); // Node takes a file that is no certificate, and then trusts nobody
    return pem;
  } catch (error) {
    throw new ConfigError(`the certificate authority ${ca} cannot be used: it has to be a PEM file`, { cause: error });
  }
}

function clientOptions(address: UplinkAddress, version: 4 | 5, ca: Buffer | undefined): IClientOptions {
  return {
    protocolVersion: version,
    clientId: address.clientId,
    username: address.user,
    password: address.password?.reveal(),
    ca,
    clean: true,
    keepalive: keepaliveSeconds,
    connectTimeout: connectTimeoutMs,
    reconnectPeriod: 0, // the loop above reconnects, with a fresh client
    resubscribe: false,
    queueQoSZero: false,
    // MQTT 5: a broker then keeps larger packets from us; nothing of ours is as large.
    ...(version === 5 && { properties: { maximumPacketSize } }),
  };
}

/** One connection, from its beginning to its end. Resolves with what ended it. */
async function session(
  options: IClientOptions,
  url: string,
  signal: AbortSignal,
  handlers: UplinkHandlers,
): Promise<unknown> {
  const ended = Promise.withResolvers<void>();
  const client = mqtt.connect(url, options);
  let announced = false;
  let trouble: unknown;
  const end = (error?: unknown) => {
    trouble ??= error;
    client.end(true);
  };
  const abort = () => end();
  signal.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => end(new LinkError("the broker does not answer in time")), 2 * connectTimeoutMs);
  client.handleMessage = (packet, done) => handlers.message(packet.topic, packet.payload as Buffer, () => done());
  client.on("error", end);
  client.on("disconnect", ({ reasonCode }) =>
    end(new LinkError(`the broker ends the connection: ${meaning(reasonCode)}`)),
  );
  client.on("connect", ({ properties }) => {
    client.subscribe([...handlers.subscriptions], { qos: 1 }, (error, granted) => {
      const refused = error != null || granted?.some(({ qos }) => qos >= 128);
      if (refused && client.connected) {
        const wanted = handlers.subscriptions.join(" or ");
        end(new LinkError(`the broker refuses the subscription to ${wanted}: check its ACL`));
      } else if (refused) {
        end(error);
      } else {
        clearTimeout(timer);
        announced = true;
        handlers.connected(client, properties?.receiveMaximum ?? defaultReceiveMaximum);
      }
    });
  });
  client.on("close", () => ended.resolve());
  await ended.promise;
  clearTimeout(timer);
  signal.removeEventListener("abort", abort);
  client.removeAllListeners();
  client.on("error", () => undefined); // a late error of a dead connection concerns nobody
  client.end(true);
  if (announced) handlers.lost();
  return trouble ?? new LinkError("the connection was closed");
}

/** MQTT 5's reasons for a broker to end a connection that a person can do something about; others by their number. */
function meaning(reasonCode = 0): string {
  const meanings: Record<number, string> = {
    135: "not authorized: check its ACL",
    139: "it is shutting down",
    142: "another client has logged in with the same client id: is it running twice?",
    147: "more messages under way than it takes",
    149: "a message is larger than it takes",
    151: "a quota is exceeded",
  };
  return meanings[reasonCode] ?? `reason code ${reasonCode}`;
}
