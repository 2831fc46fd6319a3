import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import { collectDefaultMetrics, Registry } from "prom-client";
import type { CloudConfig } from "../config/cloud.ts";
import { ConfigError, LinkError, messageOf } from "../protocols/errors.ts";
import { Secret } from "../protocols/secret.ts";
import type { UplinkAddress } from "../protocols/uplink/link.ts";
import type { ReadyReport } from "./api/health.ts";
import { createApi } from "./api/server.ts";
import { backOff } from "./backoff.ts";
import { EmbeddedBroker, urlOf } from "./broker.ts";
import { Ingest } from "./ingest.ts";
import { IngestMetrics } from "./metrics.ts";
import { openStore, type StoreOptions } from "./store/open.ts";
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

/**
 * Starts the cloud service: broker (where it is embedded), store, ingest, API and console. A database that is down is
 * waited for; edges keep their frames meanwhile. Where the start fails, nothing is left behind.
 * @throws ConfigError when a port is taken, the embedded store's folder is in use, or a file or setting is missing
 */
export async function startCloud(config: CloudConfig, context: CloudContext): Promise<RunningCloud> {
  const { log, version, brokerElsewhere = false } = context;
  // What was started is stopped in the opposite order: here when the start fails, by `stop` when it does not.
  await using starting = new AsyncDisposableStack();
  // The broker first, as it is quick: edges may connect to it already, and are told when the cloud listens.
  const own = "embedded" in config.broker && !brokerElsewhere ? createBroker(config, log) : undefined;
  if (own) starting.defer(() => own.broker.stop());
  const brokerUrl = await own?.broker.start();
  const address = brokerAddress(config, brokerUrl, own?.password);
  const store = await openStore(storeOptions(config.store), { log });
  starting.defer(() => store.close());
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const ingest = new Ingest({
    store,
    address,
    edges: config.edges.map((edge) => edge.name),
    maxRowsPerTransaction: config.ingest.max_rows_per_transaction,
    maxPendingBytes: config.ingest.max_pending,
    metrics: new IngestMetrics(registry),
    log,
  });
  let migrated = false;
  const ready = () => readiness(store, ingest, migrated);
  const api = createApi({ store, log, metrics: registry, ready, version });
  starting.defer(() => api.close());
  await listen(api, config.http);

  const stopping = new AbortController();
  const working = (async () => {
    migrated = await migrateWhenUp(store, log, stopping.signal);
    if (!migrated) return;
    const retention = keepRetention(store, config.retention, log, stopping.signal);
    await ingest.run(stopping.signal);
    await retention;
  })();
  starting.defer(async () => {
    stopping.abort();
    await working.catch(() => undefined); // `finished` has told it
  });
  const http = urlOf("http", api.server.address() as AddressInfo);
  log.info({ http, broker: brokerUrl }, "the cloud service is running");
  const started = starting.move();
  return {
    addresses: { http, broker: brokerUrl },
    finished: working,
    async stop() {
      await started.disposeAsync();
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
  requirePassword(config.broker.password);
  const { broker } = createBroker(config, log);
  const url = await broker.start();
  log.info({ broker: url }, "the broker is running");
  const { promise, resolve } = Promise.withResolvers<void>();
  return { addresses: { broker: url }, finished: promise, stop: () => broker.stop().then(resolve) };
}

function requirePassword(password: Secret | undefined): void {
  if (password !== undefined) return;
  throw new ConfigError("a broker in a process of its own needs broker.password, by which the cloud service logs in");
}

function createBroker({ broker, edges }: CloudConfig, log: Logger): { broker: EmbeddedBroker; password: Secret } {
  if (!("embedded" in broker)) throw new ConfigError("no embedded broker is configured");
  const password = broker.password ?? new Secret(randomBytes(24).toString("base64url"));
  const service = { user: broker.user, password };
  return { broker: new EmbeddedBroker({ ...broker.embedded, edges, service, log }), password };
}

function brokerAddress({ broker }: CloudConfig, ownUrl: string | undefined, ownPassword?: Secret): UplinkAddress {
  const clientId = `millrace-cloud-${randomBytes(6).toString("hex")}`;
  if (!("embedded" in broker)) {
    const { url, user, password, ca, mqtt_version: version } = broker;
    return { url, user, password, ca, mqttVersion: version === 5 ? "5" : version, clientId };
  }
  const { user } = broker;
  if (ownUrl !== undefined) return { url: ownUrl, user, password: ownPassword, mqttVersion: "3.1.1", clientId };
  const { host, port } = broker.embedded;
  requirePassword(broker.password);
  if (port === 0) throw new ConfigError("a broker in a process of its own needs a fixed broker.embedded.port, not 0");
  return {
    url: urlOf("mqtt", { address: host, port }),
    user,
    password: broker.password,
    mqttVersion: "3.1.1",
    clientId,
  };
}

/** The store's options, with the certificate authority's file read. */
function storeOptions(store: CloudConfig["store"]): StoreOptions {
  if ("embedded" in store || store.ca === undefined) return store;
  try {
    return { ...store, ca: readFileSync(store.ca, "utf8") };
  } catch (error) {
    throw new ConfigError(`the certificate authority ${store.ca} (store.ca) cannot be read`, { cause: error });
  }
}

async function listen(api: FastifyInstance, { host, port }: CloudConfig["http"]): Promise<void> {
  try {
    await api.listen({ host, port });
  } catch (error) {
    throw new ConfigError(`the API cannot listen on ${host}:${port}: choose another http.host or http.port`, {
      cause: error,
    });
  }
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
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await store.migrate();
      if (attempt > 0) log.info("the database answers");
      return !signal.aborted;
    } catch (error) {
      if (!(error instanceof LinkError)) throw error;
      if (attempt === 0) log.warn(`the database is away; waiting for it: ${messageOf(error)}`);
      await backOff(attempt, signal);
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
