import type { IncomingFrame, Store } from "../../cloud/store/store.ts";
import { type Gap, type Micros, Quality, type Value } from "../../protocols/reading.ts";
import { type DeviceMap, type MappedTag, type ReadingColumns, RowKind } from "../../protocols/uplink/frame.ts";

/** A reading of a frame to be made; `tag` is its index in the device map. */
export interface Row {
  readonly tag: number;
  readonly time: Micros;
  readonly value: Value;
  readonly quality?: Quality;
}

export function columnsOf(rows: readonly Row[]): ReadingColumns {
  const texts: string[] = [];
  const columns = {
    count: rows.length,
    tag: new Uint32Array(rows.length),
    time: new Float64Array(rows.length),
    quality: new Uint32Array(rows.length),
    kind: new Uint8Array(rows.length),
    number: new Float64Array(rows.length),
    texts,
  };
  for (const [i, { tag, time, value, quality = Quality.Good }] of rows.entries()) {
    columns.tag[i] = tag;
    columns.time[i] = time;
    columns.quality[i] = quality;
    if (typeof value === "number") {
      columns.kind[i] = RowKind.Number;
      columns.number[i] = value;
    } else if (typeof value === "boolean") {
      columns.kind[i] = RowKind.Boolean;
      columns.number[i] = Number(value);
    } else if (typeof value === "string") {
      columns.kind[i] = RowKind.Text;
      texts.push(value);
    }
  }
  return columns;
}

/** 2026-05-01T12:00:00Z, from which the tests count their times. */
export const t0: Micros = 1_777_636_800_000_000;

/** One edge with one device `d`, its map and its streams. */
export class TestEdge {
  readonly name: string;
  readonly map: DeviceMap;
  readonly hash: string;

  constructor(name: string, tags: readonly (Partial<MappedTag> & { name: string })[], site = "pune") {
    this.name = name;
    this.map = {
      edge: name,
      site,
      devices: [{ name: "d", protocol: "modbus-tcp" }],
      tags: tags.map((tag) => ({ device: "d", kind: "any", ...tag })),
    };
    this.hash = Buffer.from(JSON.stringify(this.map)).toString("hex");
  }

  save(store: Store): Promise<void> {
    return store.saveDeviceMap(this.hash, this.map, Buffer.from(this.hash));
  }

  frame(seq: number, rows: readonly Row[], gaps: readonly Gap[] = [], stream = "0".repeat(32)): IncomingFrame {
    const raw = Buffer.from(`${this.name} ${stream} ${seq}`);
    return { edge: this.name, stream, seq, mapHash: this.hash, content: { readings: columnsOf(rows), gaps }, raw };
  }
}

/** All readings of a tag, read in pages. */
export async function allReadings(store: Store, tag: string, limit = 1000) {
  const all = [];
  const range = { from: Number.MIN_SAFE_INTEGER, to: Number.MAX_SAFE_INTEGER, limit };
  let page = await store.readings(tag, range);
  all.push(...page.readings);
  while (page.next !== null) {
    page = await store.readings(tag, { ...range, after: page.next });
    all.push(...page.readings);
  }
  return all;
}

/** How many readings a frame of the counter has. */
export const counterRows = 2000;
/** An edge with one tag that counts: frame n holds (n - 1) * counterRows up to n * counterRows - 1, a value a time. */
export const counterEdge = new TestEdge("counter", [{ name: "count" }]);

export function counterFrame(seq: number): IncomingFrame {
  const first = (seq - 1) * counterRows;
  const rows = Array.from({ length: counterRows }, (_, i) => ({ tag: 0, time: t0 + first + i, value: first + i }));
  return counterEdge.frame(seq, rows);
}
