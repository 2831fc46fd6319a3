import { randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { collectDefaultMetrics, Registry } from "prom-client";
import type { CloudConfig } from "../config/cloud.ts";
import { ConfigError, LinkError, messageOf } from "../protocols/errors.ts";
import { Secret } from "../protocols/secret.ts";
import type { UplinkAddress } from "../protocols/uplink/link.ts";
import type { ReadyReport } from "./api/health.ts";
import { createApi } from "./api/server.ts";
import { EmbeddedBroker } from "./broker.ts";
import { Ingest } from "./ingest.ts";
import { IngestMetrics } from "./metrics.ts";
import { openStore } from "./store/open.ts";
import type { Store } from "./store/store.ts";

/** A cloud service, or a broker, at work. */
export interface RunningCloud {
  readonly addresses: { readonly http?: string; readonly broker?: string };
  /** Rejects when the service cannot go on; resolves after `stop`. */
  readonly finished: Promise<void>;
  stop(): Promise<void>;
}

export interface CloudContext {
  readonly log: Logger;
  readonly version: string;
  /** True when the embedded broker of the configuration runs as a process of its own (`startBroker`). */
  readonly brokerElsewhere?: boolean;
}

const retentionEveryMs = 3_600_000;
const firstWaitMs = 250;
const longestWaitMs = 5000;

/**
 * Starts the cloud service: broker (where it is embedded), store, ingest, API and console. A database that is down is
 * waited for; edges keep their frames meanwhile.
 * @throws ConfigError when a port is taken or the embedded store's folder is in use
 */
export async function startCloud(config: CloudConfig, context: CloudContext): Promise<RunningCloud> {
  const { log, version, brokerElsewhere = false } = context;
  const store = await openStore(config.store, { log });
  const own = "embedded" in config.broker && !brokerElsewhere ? createBroker(config, log) : undefined;
  const brokerUrl = await own?.broker.start();
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const ingest = new Ingest({
    store,
    address: brokerAddress(config, brokerUrl, own?.password),
    edges: config.edges.map((edge) => edge.name),
    maxRowsPerTransaction: config.ingest.max_rows_per_transaction,
    maxPendingBytes: config.ingest.max_pending,
    metrics: new IngestMetrics(registry),
    log,
  });
  let migrated = false;
  const ready = () => readiness(store, ingest, migrated);
  const api = createApi({ store, log, metrics: registry, ready, version });
  try {
    await api.listen(config.http);
  } catch (error) {
    const { host, port } = config.http;
    throw new ConfigError(`the API cannot listen on ${host}:${port}: choose another http.port`, { cause: error });
  }

  const stopping = new AbortController();
  const working = (async () => {
    migrated = await migrateWhenUp(store, log, stopping.signal);
    if (!migrated) return;
    const retention = keepRetention(store, config.retention, log, stopping.signal);
    await ingest.run(stopping.signal);
    await retention;
  })();
  const { address, port } = api.server.address() as AddressInfo;
  const http = `http://${address === "0.0.0.0" || address === "::" ? "127.0.0.1" : address}:${port}`;
  log.info({ http, broker: brokerUrl }, "the cloud service is running");
  return {
    addresses: { http, broker: brokerUrl },
    finished: working,
    async stop() {
      stopping.abort();
      await working.catch(() => undefined); // `finished` has told it
      await api.close();
      await own?.broker.stop();
      await store.close();
      log.info("the cloud service has stopped");
    },
  };
}

/**
 * Starts the embedded broker as a process of its own, from the cloud's configuration.
 * @throws ConfigError when the configuration names no embedded broker, or no password for the cloud service's user
 */
export async function startBroker(config: CloudConfig, { log }: CloudContext): Promise<RunningCloud> {
  if (!("embedded" in config.broker)) {
    throw new ConfigError("this configuration names a broker elsewhere (broker.url): there is none to be started");
  }
  if (config.broker.password === undefined) {
    throw new ConfigError("a broker in a process of its own needs broker.password, by which the cloud service logs in");
  }
  const { broker } = createBroker(config, log);
  const url = await broker.start();
  log.info({ broker: url }, "the broker is running");
  const { promise, resolve } = Promise.withResolvers<void>();
  return { addresses: { broker: url }, finished: promise, stop: () => broker.stop().then(resolve) };
}

function createBroker({ broker, edges }: CloudConfig, log: Logger): { broker: EmbeddedBroker; password: Secret } {
  if (!("embedded" in broker)) throw new ConfigError("no embedded broker is configured");
  const password = broker.password ?? new Secret(randomBytes(24).toString("base64url"));
  const service = { user: broker.user, password };
  return { broker: new EmbeddedBroker({ ...broker.embedded, edges, service, log }), password };
}

function brokerAddress({ broker }: CloudConfig, ownUrl: string | undefined, ownPassword?: Secret): UplinkAddress {
  const clientId = `millrace-cloud-${randomBytes(6).toString("hex")}`;
  if ("embedded" in broker) {
    const url = ownUrl ?? `mqtt://${broker.embedded.host}:${broker.embedded.port}`;
    return { url, user: broker.user, password: ownPassword ?? broker.password, mqttVersion: "3.1.1", clientId };
  }
  const { url, user, password, ca, mqtt_version: version } = broker;
  return { url, user, password, ca, mqttVersion: version === 5 ? "5" : version, clientId };
}

async function readiness(store: Store, ingest: Ingest, migrated: boolean): Promise<ReadyReport> {
  const database = await store.ping().then(
    () => (migrated ? { ok: true } : { ok: false, detail: "the schema is being brought up to date" }),
    (error: unknown) => ({ ok: false, detail: messageOf(error) }),
  );
  const broker = ingest.connected ? { ok: true } : { ok: false, detail: "not connected" };
  return { ok: database.ok && broker.ok, checks: { database, broker } };
}

/** Resolves to false when the service was stopped before the database came up. */
async function migrateWhenUp(store: Store, log: Logger, signal: AbortSignal): Promise<boolean> {
  for (let waitMs = firstWaitMs; !signal.aborted; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
    try {
      await store.migrate();
      return true;
    } catch (error) {
      if (!(error instanceof LinkError)) throw error;
      if (waitMs === firstWaitMs) log.warn(`the database is away; waiting for it: ${messageOf(error)}`);
      await delay(waitMs, undefined, { signal }).catch(() => undefined);
    }
  }
  return false;
}

async function keepRetention(
  store: Store,
  limits: CloudConfig["retention"],
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const nowUs = Date.now() * 1000;
    const readings = limits.readings === undefined ? undefined : nowUs - limits.readings * 1000;
    try {
      const removed = await store.applyRetention({ readings, frames: nowUs - limits.frame_log * 1000 });
      log.debug(removed, "what is older than the retention was deleted");
    } catch (error) {
      log.warn({ err: error }, `old data could not be deleted; tried again later: ${messageOf(error)}`);
    }
    await delay(retentionEveryMs, undefined, { signal }).catch(() => undefined);
  }
}
