import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { type Logger, pino } from "pino";
import { Registry } from "prom-client";
import { EmbeddedBroker } from "../../../cloud/broker.ts";
import { Ingest } from "../../../cloud/ingest.ts";
import { IngestMetrics } from "../../../cloud/metrics.ts";
import { openStore } from "../../../cloud/store/open.ts";
import type { Store } from "../../../cloud/store/store.ts";
import { Secret } from "../../../protocols/secret.ts";
import { allReadings } from "../../contract/store-frames.ts";

export interface CloudRigOptions {
  /** The edges that are known; each logs in with `<name>-secret`. */
  readonly edges: readonly string[];
  /** An embedded database that is there already. A new one by default. */
  readonly folder?: string;
  /** A store that is open already, and is left open. */
  readonly store?: Store;
  readonly maxPendingBytes?: number;
  readonly maxRowsPerTransaction?: number;
  /** Puts something between ingest and the store. */
  readonly between?: (store: Store) => Store;
}

export const service = { user: "cloud", password: new Secret("cloud-secret") };

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A log that a test can read. */
export function recordedLog(): { log: Logger; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const sink = new PassThrough();
  sink.on("data", (chunk) => {
    for (const line of String(chunk).trimEnd().split("\n")) lines.push(JSON.parse(line));
  });
  return { log: pino({ level: "debug" }, sink), lines };
}

/** A broker on a port of its own, which knows the edges and the cloud service. */
export async function startTestBroker(
  edges: readonly string[],
  log: Logger,
): Promise<{ broker: EmbeddedBroker; url: string }> {
  const known = edges.map((name) => ({ name, password: new Secret(`${name}-secret`) }));
  const broker = new EmbeddedBroker({ host: "127.0.0.1", port: 0, edges: known, service, log });
  return { broker, url: await broker.start() };
}

/** An ingest at work. */
export class TestIngest {
  readonly registry = new Registry();
  readonly ingest: Ingest;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  constructor(url: string, store: Store, options: CloudRigOptions, log: Logger) {
    this.ingest = new Ingest({
      store,
      address: { url, ...service, mqttVersion: "3.1.1", clientId: `millrace-cloud-${Math.random()}` },
      edges: options.edges,
      maxRowsPerTransaction: options.maxRowsPerTransaction ?? 200_000,
      maxPendingBytes: options.maxPendingBytes ?? 64 * 1024 * 1024,
      metrics: new IngestMetrics(this.registry),
      log,
    });
    this.#running = this.ingest.run(this.#stopping.signal);
    this.#running.catch(() => undefined); // told by `stop`
  }

  /** The value of a metric, as it stands in `/metrics`. */
  async metric(name: string): Promise<number> {
    const line = (await this.registry.metrics()).split("\n").find((text) => text.startsWith(`${name} `));
    if (line === undefined) throw new Error(`there is no metric ${name}`);
    return Number(line.slice(name.length + 1));
  }

  frames(outcome: string): Promise<number> {
    return this.metric(`millrace_ingest_frames_total{outcome="${outcome}"}`);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }
}

/** Broker, store and ingest in this process, as `startCloud` joins them; the database is a real, embedded one. */
export class CloudRig {
  readonly broker: EmbeddedBroker;
  readonly url: string;
  readonly store: Store;
  readonly folder: string;
  readonly lines: readonly LogLine[];
  readonly ingest: TestIngest;
  readonly #options: CloudRigOptions;
  readonly #log: Logger;

  private constructor(
    parts: Pick<CloudRig, "broker" | "url" | "store" | "folder" | "lines">,
    options: CloudRigOptions,
    log: Logger,
  ) {
    this.broker = parts.broker;
    this.url = parts.url;
    this.store = parts.store;
    this.folder = parts.folder;
    this.lines = parts.lines;
    this.#options = options;
    this.#log = log;
    this.ingest = this.startIngest();
  }

  static async start(options: CloudRigOptions): Promise<CloudRig> {
    const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "millrace-cloud-")));
    const { log, lines } = recordedLog();
    const store = options.store ?? (await openStore({ embedded: { path: folder } }, { log }));
    if (options.store === undefined) await store.migrate();
    const { broker, url } = await startTestBroker(options.edges, log);
    const rig = new CloudRig({ broker, url, store, folder, lines }, options, log);
    await rig.listening(rig.ingest);
    return rig;
  }

  /** One more ingest on the same broker and store. */
  startIngest(): TestIngest {
    const { between = (store) => store } = this.#options;
    return new TestIngest(this.url, between(this.store), this.#options, this.#log);
  }

  async listening({ ingest }: TestIngest): Promise<void> {
    while (!ingest.connected) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** The values of an edge's tag `count` in the database, in order of time. */
  async counted(edge: string): Promise<unknown[]> {
    return (await allReadings(this.store, `${edge}.d.count`)).map(({ value }) => value);
  }

  /** Stops everything; the folder stays. */
  async halt(): Promise<void> {
    await this.ingest.stop();
    await this.broker.stop();
    if (this.#options.store === undefined) await this.store.close();
  }

  async close(): Promise<void> {
    await this.halt();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** What to throw instead of doing what is asked; undefined does it. May throw after `done`, when it is done already. */
export type Fault = (
  method: keyof Store,
  argument: unknown,
  done: () => Promise<unknown>,
) => Error | undefined | Promise<Error | undefined>;

/** The store, with faults put between it and whoever uses it. */
export function withFaults(store: Store, fault: Fault): Store {
  return new Proxy(store, {
    get(target, property) {
      const value = Reflect.get(target, property, target);
      if (typeof value !== "function") return value;
      return async (...given: unknown[]) => {
        const error = await fault(property as keyof Store, given[0], () => value.apply(target, given));
        if (error !== undefined) throw error;
        return value.apply(target, given);
      };
    },
  });
}
