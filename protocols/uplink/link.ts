import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import type { Logger } from "pino";
import { ConfigError, LinkError, messageOf } from "../errors.ts";
import type { Secret } from "../secret.ts";

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
  /** Called on each connection, once its subscriptions are granted. */
  connected(client: MqttClient): void;
  /** Called when a connection that was announced is gone. */
  lost(): void;
}

const firstWaitMs = 250;
const longestWaitMs = 10_000;
const keepaliveSeconds = 15;
const connectTimeoutMs = 10_000;
/** MQTT's refusals of a protocol version: 3.1.1's return code and 5's reason code. */
const versionRefused = new Set([1, 0x84]);

/**
 * Keeps an MQTT connection until `signal` is aborted. Each connection is a new client with a clean session: what has to
 * survive stands in our own stores, never in a broker's memory. With `mqttVersion: "auto"` MQTT 5 is tried first and
 * 3.1.1 where the broker refuses it.
 */
export async function keepUplink(
  address: UplinkAddress,
  handlers: UplinkHandlers,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const ca = readAuthority(address.ca);
  let version: 4 | 5 = address.mqttVersion === "3.1.1" ? 4 : 5;
  let failures = 0;
  let lastTrouble = "";
  while (!signal.aborted) {
    const error = await session(clientOptions(address, version, ca), address.url, signal, {
      ...handlers,
      connected(client) {
        log.info({ broker: address.url, mqtt: version === 5 ? "5" : "3.1.1" }, "connected to the broker");
        failures = 0;
        lastTrouble = "";
        handlers.connected(client);
      },
    });
    if (signal.aborted) return;
    if (version === 5 && address.mqttVersion === "auto" && versionRefused.has((error as { code?: number }).code ?? 0)) {
      version = 4;
      continue;
    }
    const trouble = messageOf(error);
    if (trouble !== lastTrouble) log.warn({ broker: address.url }, `no connection to the broker: ${trouble}`);
    lastTrouble = trouble;
    const waitMs = Math.min(firstWaitMs * 2 ** Math.min(failures++, 10), longestWaitMs);
    await delay(waitMs * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
  }
}

function readAuthority(ca: string | undefined): Buffer | undefined {
  if (ca === undefined) return undefined;
  try {
    return readFileSync(ca);
  } catch (error) {
    throw new ConfigError(`the certificate authority ${ca} cannot be read`, { cause: error });
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
  };
}

/** One connection, from its beginning to its end. Resolves with what ended it. */
function session(
  options: IClientOptions,
  url: string,
  signal: AbortSignal,
  handlers: UplinkHandlers,
): Promise<unknown> {
  return new Promise((resolve) => {
    const client = mqtt.connect(url, options);
    let announced = false;
    let trouble: unknown;
    const end = () => client.end(true);
    signal.addEventListener("abort", end, { once: true });
    client.handleMessage = (packet, done) => handlers.message(packet.topic, packet.payload as Buffer, () => done());
    client.on("error", (error) => {
      trouble ??= error;
      client.end(true);
    });
    client.on("connect", () => {
      client.subscribe([...handlers.subscriptions], { qos: 1 }, (error, granted) => {
        const refused = granted?.find(({ qos }) => qos >= 128);
        if (refused) trouble = new LinkError(`the broker refuses the subscription to ${refused.topic}: check its ACL`);
        if (error || refused) {
          trouble ??= error;
          client.end(true);
          return;
        }
        announced = true;
        handlers.connected(client);
      });
    });
    client.on("close", () => {
      signal.removeEventListener("abort", end);
      client.removeAllListeners();
      client.on("error", () => undefined); // a late error of a dead connection concerns nobody
      client.end(true);
      if (announced) handlers.lost();
      resolve(trouble ?? new LinkError("the connection was closed"));
    });
  });
}
