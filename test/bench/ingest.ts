import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt, { type MqttClient } from "mqtt";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import { CopyEncoder, readingTarget } from "../../cloud/store/copy-encoder.ts";
import { decodeAcknowledgement } from "../../protocols/uplink/acknowledgement.ts";
import { encodeDeviceMap } from "../../protocols/uplink/device-map.ts";
import { type PackedContent, packContent, sealFrame } from "../../protocols/uplink/envelope.ts";
import { type DeviceMap, type ReadingColumns, RowKind } from "../../protocols/uplink/frame.ts";
import { topics } from "../../protocols/uplink/topics.ts";
import { RigProcess } from "../integration/rig/process.ts";
import { median, print } from "./figures.ts";

const edge = "bench";
const tagCount = 1000;
const readingsPerFrame = 8000;
const framesPerRound = 300;
const rounds = 5;
/** Frames under way: as several edges with windows of 16 would have. */
const window = 64;

const map: DeviceMap = {
  edge,
  devices: [{ name: "line", protocol: "modbus-tcp" }],
  tags: Array.from({ length: tagCount }, (_, n) => ({ device: "line", name: `tag_${n}`, kind: "number" as const })),
};

/** Frame n: each tag at 8 successive seconds, values as an instrument of one decimal place gives them. */
function columnsOf(n: number): ReadingColumns {
  const perTag = readingsPerFrame / tagCount;
  const rows = Array.from({ length: readingsPerFrame }, (_, row) => row);
  const time = (row: number) => 1_780_000_000_000_000 + (n * perTag + (row % perTag)) * 1_000_000;
  return {
    count: readingsPerFrame,
    tag: Uint32Array.from(rows, (row) => Math.floor(row / perTag)),
    time: Float64Array.from(rows, time),
    quality: new Uint32Array(readingsPerFrame),
    kind: new Uint8Array(readingsPerFrame).fill(RowKind.Number),
    number: Float64Array.from(rows, (row) => Math.round(500 + 300 * Math.sin(row / 50 + n)) / 10),
    texts: [],
  };
}

/**
 * Readings a second from the publish of the first frame to the acknowledgement of the last, through broker, ingest and
 * COMMIT; beside raw binary COPY of the same rows, already encoded, into the same table.
 * MILLRACE_BENCH_POSTGRES_URL names a TimescaleDB; without it there is nothing to compare with.
 */
export async function ingestBench(): Promise<void> {
  const serverUrl = process.env.MILLRACE_BENCH_POSTGRES_URL;
  if (serverUrl === undefined) {
    console.log("  SKIPPED: set MILLRACE_BENCH_POSTGRES_URL to a TimescaleDB or PostgreSQL that may be used for it");
    return;
  }
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const name = `mr_bench_${randomBytes(4).toString("hex")}`;
  const admin = new pg.Client(serverUrl);
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const cloud = await startCloud(folder, url.href);
  try {
    await measure(cloud.broker, url.href);
  } finally {
    await cloud.process.end("SIGTERM");
    await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
    await admin.end();
    await rm(folder, { recursive: true, force: true });
  }
}

async function startCloud(folder: string, storeUrl: string) {
  const file = join(folder, "cloud.yaml");
  await writeFile(
    file,
    `broker: { embedded: { port: 0 } }
edges: [{ name: ${edge}, password: bench }]
store: { url: "${storeUrl}" }
http: { port: 0 }
log: { level: warn }
`,
  );
  const process = new RigProcess("millrace.ts", ["cloud", file], {}, join(folder, "cloud.log"));
  const { broker } = await process.start();
  return { process, broker: broker! };
}

async function measure(broker: string, url: string): Promise<void> {
  const frames = Array.from({ length: framesPerRound }, (_, n) => columnsOf(n));
  const encodedMap = encodeDeviceMap(map);
  const packed = frames.map((columns) => packContent(encodedMap.hash, columns, []));
  const client = await mqtt.connectAsync(broker, { username: edge, password: "bench", protocolVersion: 4 });
  await client.subscribeAsync(topics.acknowledgement(edge), { qos: 1 });
  const databases = [new pg.Client(url), new pg.Client(url)];
  for (const each of databases) await each.connect();
  const database = databases[0]!;
  await sendMap(client, Buffer.from(encodedMap.bytes));
  const chunks = copyChunks(frames, await tagIds(database));

  const raw: number[] = [];
  const rawTwice: number[] = [];
  const ingest: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await database.query("TRUNCATE reading, frame_log");
    raw.push(await rawCopy([database], chunks));
    await database.query("TRUNCATE reading, frame_log");
    rawTwice.push(await rawCopy(databases, chunks));
    await database.query("TRUNCATE reading, frame_log");
    ingest.push(await publishAll(client, packed));
    const { rows } = await database.query("SELECT count(*)::int AS count FROM reading");
    if (rows[0].count !== framesPerRound * readingsPerFrame) throw new Error(`${rows[0].count} readings arrived`);
  }
  await client.endAsync(true);
  for (const each of databases) await each.end();
  print("raw binary COPY, one connection", median(raw), "readings/s");
  print("raw binary COPY, two connections at once", median(rawTwice), "readings/s");
  print("MQTT to committed and acknowledged", median(ingest), "readings/s");
  print("of raw COPY on one connection", median(ingest.map((rate, round) => rate / raw[round]!)), "", 2);
  print("of raw COPY on two, as ingest uses", median(ingest.map((rate, round) => rate / rawTwice[round]!)), "", 2);
}

async function tagIds(database: pg.Client): Promise<number[]> {
  const { rows } = await database.query("SELECT tag_id, name FROM tag");
  const byName = new Map(rows.map((row) => [row.name as string, row.tag_id as number]));
  return map.tags.map((tag) => byName.get(tag.name)!);
}

/** The rows as bytes of COPY, in transactions of as many rows as ingest makes them. */
function copyChunks(frames: readonly ReadingColumns[], ids: readonly number[]): Uint8Array[][] {
  const framesPerCopy = 24; // about 200,000 rows, ingest's bound
  const copies: Uint8Array[][] = [];
  for (let start = 0; start < frames.length; start += framesPerCopy) {
    const encoder = new CopyEncoder();
    for (const [n, columns] of frames.slice(start, start + framesPerCopy).entries())
      encoder.add(columns, ids, start + n);
    copies.push(encoder.finish());
  }
  return copies;
}

async function rawCopy(databases: readonly pg.Client[], copies: readonly Uint8Array[][]): Promise<number> {
  const waiting = [...copies];
  const started = performance.now();
  const copyAll = async (database: pg.Client) => {
    for (let chunks = waiting.shift(); chunks !== undefined; chunks = waiting.shift()) {
      const stream = database.query(copyFrom(`COPY ${readingTarget} FROM STDIN (FORMAT binary)`));
      for (const chunk of chunks) if (!stream.write(chunk)) await once(stream, "drain");
      stream.end();
      await once(stream, "finish");
    }
  };
  await Promise.all(databases.map(copyAll));
  return (framesPerRound * readingsPerFrame) / ((performance.now() - started) / 1000);
}

async function sendMap(client: MqttClient, bytes: Buffer): Promise<void> {
  const stored = Promise.withResolvers<void>();
  const listen = (_topic: string, payload: Buffer) => {
    if (decodeAcknowledgement(payload).mapsStored.length > 0) stored.resolve();
  };
  client.on("message", listen);
  await client.publishAsync(topics.upward(edge, "map"), bytes, { qos: 1 });
  await stored.promise;
  client.off("message", listen);
}

async function publishAll(client: MqttClient, packed: readonly PackedContent[]): Promise<number> {
  const stream = randomUUID().replaceAll("-", "");
  const sealed = packed.map((content, n) => Buffer.from(sealFrame({ edge, stream, seq: n + 1 }, content)));
  const done = Promise.withResolvers<void>();
  let next = 0;
  let acknowledged = 0;
  const send = () => {
    while (next < sealed.length && next - acknowledged < window) {
      client.publish(topics.upward(edge, "frame"), sealed[next++]!, { qos: 1 });
    }
  };
  const listen = (_topic: string, payload: Buffer) => {
    acknowledged += decodeAcknowledgement(payload).committed.length;
    if (acknowledged >= sealed.length) done.resolve();
    else send();
  };
  client.on("message", listen);
  const started = performance.now();
  send();
  await done.promise;
  client.off("message", listen);
  return (packed.length * readingsPerFrame) / ((performance.now() - started) / 1000);
}
