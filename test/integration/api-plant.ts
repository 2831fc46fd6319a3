import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { pino } from "pino";
import { Registry } from "prom-client";
import { createApi } from "../../cloud/api/server.ts";
import { openStore } from "../../cloud/store/open.ts";
import type { IncomingFrame, Store } from "../../cloud/store/store.ts";
import type { Gap, Micros, Reading } from "../../protocols/reading.ts";
import { encodeDeviceMap } from "../../protocols/uplink/device-map.ts";
import { type DeviceMap, type ReadingColumns, RowKind } from "../../protocols/uplink/frame.ts";

/** The API over a real embedded store in a folder of its own. */
export interface TestApi {
  readonly app: FastifyInstance;
  readonly store: Store;
  readonly registry: Registry;
  close(): Promise<void>;
}

export async function openTestApi(): Promise<TestApi> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-api-"));
  const log = pino({ level: "silent" });
  const store = await openStore({ embedded: { path: join(folder, "db") } }, { log });
  await store.migrate();
  const registry = new Registry();
  const ready = async () => {
    await store.ping();
    return { ok: true, checks: { database: { ok: true } } };
  };
  const app = createApi({ store, log, metrics: registry, ready, version: "1.2.3" });
  await app.ready();
  return {
    app,
    store,
    registry,
    async close() {
      await app.close();
      await store.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A reading of the tag at this index of the device map. */
export interface MappedReading extends Omit<Reading, "tag"> {
  readonly tag: number;
}

/** Readings as the columns of a frame: grouped by tag, in order of time. */
export function columnsOf(readings: readonly MappedReading[]): ReadingColumns {
  const rows = [...readings].sort((a, b) => a.tag - b.tag || a.time - b.time);
  return {
    count: rows.length,
    tag: Uint32Array.from(rows, ({ tag }) => tag),
    time: Float64Array.from(rows, ({ time }) => time),
    quality: Uint32Array.from(rows, ({ quality }) => quality),
    kind: Uint8Array.from(rows, ({ value }) => kindOf(value)),
    number: Float64Array.from(rows, ({ value }) => (typeof value === "string" ? 0 : Number(value))),
    texts: rows.flatMap(({ value }) => (typeof value === "string" ? [value] : [])),
  };
}

function kindOf(value: Reading["value"]): number {
  if (value === null) return RowKind.Null;
  if (typeof value === "number") return RowKind.Number;
  return typeof value === "boolean" ? RowKind.Boolean : RowKind.Text;
}

/** Feeds a store the way the ingest does: a device map, then frames of one stream that count 1, 2, 3 …. */
export class Feeder {
  readonly #store: Store;
  readonly #map: DeviceMap;
  readonly #stream: string;
  #hash = "";
  #seq = 0;

  constructor(store: Store, map: DeviceMap, stream = "0195f3c2a6b17c3e8d4f5a6b7c8d9e0f") {
    this.#store = store;
    this.#map = map;
    this.#stream = stream;
  }

  async saveMap(): Promise<void> {
    const { hash, bytes } = encodeDeviceMap(this.#map);
    this.#hash = hash;
    await this.#store.saveDeviceMap(hash, this.#map, bytes);
  }

  /** Leaves a hole in the sequence: these frames never arrive. */
  lose(frames: number): void {
    this.#seq += frames;
  }

  async write(readings: readonly MappedReading[], gaps: readonly Gap[] = []): Promise<void> {
    const frame: IncomingFrame = {
      edge: this.#map.edge,
      stream: this.#stream,
      seq: ++this.#seq,
      mapHash: this.#hash,
      content: { readings: columnsOf(readings), gaps },
      raw: new Uint8Array([1]),
    };
    const [outcome] = await this.#store.write([frame]);
    if (outcome !== "stored") throw new Error(`the frame was not stored: ${outcome}`);
  }
}

/** Microseconds of an ISO time with up to six decimals. */
export function micros(iso: string): Micros {
  const [, seconds, fraction = ""] = /^([^.Z]*)(?:\.(\d+))?Z$/.exec(iso)!;
  return Date.parse(`${seconds}Z`) * 1000 + Number(fraction.padEnd(6, "0"));
}
