import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Worker } from "node:worker_threads";
import mqtt from "mqtt";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { EmbeddedBroker } from "../../cloud/broker.ts";
import { loadEdge } from "../../config/load.ts";
import { ThreadedBuffer } from "../../edge/buffer/threaded.ts";
import { type RunningEdge, startEdge } from "../../edge/main.ts";
import { deviceFields, tagFields } from "../../protocols/device.ts";
import type { Driver } from "../../protocols/driver.ts";
import { ConfigError, LinkError } from "../../protocols/errors.ts";
import { type Gap, now, type Reading } from "../../protocols/reading.ts";
import type { ProtocolEntry } from "../../protocols/registry.ts";
import { Secret } from "../../protocols/secret.ts";
import { encodeAcknowledgement } from "../../protocols/uplink/acknowledgement.ts";
import { openEnvelope, unpackContent } from "../../protocols/uplink/envelope.ts";
import { parseUpward, topics } from "../../protocols/uplink/topics.ts";
import { type Row, rowsOf, testLog } from "../unit/edge/parts.ts";
import { RigProcess } from "./rig/process.ts";

let folder: string;
const cleanups: (() => Promise<unknown> | unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-agent-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const soon = { timeout: 15_000, interval: 20 };

/** What the device of the test gives next; without anything to give it shows a sign of life. */
type Script = () => readonly Reading[] | undefined;

function scripted(script: Script): ProtocolEntry {
  const driver: Driver = {
    quietMs: 300,
    connect: async () => undefined,
    close: async () => undefined,
    async *readings(signal) {
      while (!signal.aborted) {
        yield script() ?? [];
        await delay(5, undefined, { signal }).catch(() => undefined);
      }
    },
  };
  return {
    schema: z.strictObject({
      ...deviceFields,
      protocol: z.literal("scripted"),
      tags: z.array(z.strictObject(tagFields)),
    }),
    load: async () => ({ driver: () => driver }),
    plan: async () => [],
    valueKind: () => "number",
  };
}

/** Starts an agent in this process, on a device map with what the test adds to it. */
async function startAgent(script: Script, map: { uplink?: string; buffer?: string; more?: string } = {}) {
  const file = join(folder, "edge.yaml");
  writeFileSync(
    file,
    `edge: line-3
uplink: { url: "${map.uplink ?? "mqtt://127.0.0.1:1"}", password: right, mqtt_version: 3.1.1 }
buffer: { path: ./buffer, ${map.buffer ?? ""} }
frame: { linger: 10 ms }
${map.more ?? "devices: [{ name: press, protocol: scripted, tags: [{ name: force }, { name: speed }] }]"}
`,
  );
  const registry = { scripted: scripted(script) };
  const { log, said } = testLog();
  const config = loadEdge(file, process.env, registry);
  const agent = await startEdge(config, { log, version: "1.2.3", registry });
  agent.finished.catch(() => undefined); // each test looks for itself
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= agent.stop();
    return stopped;
  };
  cleanups.push(stop);
  return { agent, said, stop, config, registry, log };
}

/** A broker, and a cloud that takes every frame, acknowledges it and remembers what it held. */
async function startCloud() {
  const broker = new EmbeddedBroker({
    host: "127.0.0.1",
    port: 0,
    edges: [{ name: "line-3", password: new Secret("right") }],
    service: { user: "cloud", password: new Secret("cloud") },
    log: pino({ level: "silent" }),
  });
  const url = await broker.start();
  cleanups.push(() => broker.stop());
  const client = await mqtt.connectAsync(url, { username: "cloud", password: "cloud", protocolVersion: 4 });
  cleanups.push(() => client.endAsync(true));
  /** By stream, in the order in which streams began to arrive, and number. */
  const streams = new Map<string, Map<number, { rows: Row[]; gaps: readonly Gap[] }>>();
  client.on("message", (topic, payload) => {
    if (parseUpward(topic)!.kind === "map") return;
    const envelope = openEnvelope(payload);
    const { readings, gaps } = unpackContent(envelope);
    const frames = streams.get(envelope.stream) ?? new Map();
    streams.set(envelope.stream, frames.set(envelope.seq, { rows: rowsOf(readings), gaps }));
    const answer = encodeAcknowledgement({ stream: envelope.stream, committed: [envelope.seq] });
    client.publish(topics.acknowledgement("line-3"), Buffer.from(answer), { qos: 1 });
  });
  await client.subscribeAsync([...topics.upwardFilters], { qos: 1 });
  const inOrder = () =>
    [...streams.values()].flatMap((frames) => [...frames].sort(([a], [b]) => a - b).map(([, frame]) => frame));
  const rows = () => inOrder().flatMap((frame) => frame.rows);
  const gaps = () => inOrder().flatMap((frame) => [...frame.gaps]);
  return { url, rows, gaps };
}

const health = async (agent: RunningEdge, path: string) => {
  const response = await fetch(`${agent.addresses.http}${path}`);
  return { status: response.status, body: await response.text() };
};

/** Random numbers that no compression makes smaller, `size` in a batch, until there were `total`. */
function flood(total: number, size: number) {
  const given: number[] = [];
  const script: Script = () => {
    if (given.length >= total) return undefined;
    return Array.from({ length: size }, () => {
      const value = Math.random();
      given.push(value);
      return { tag: "force", time: now(), value, quality: 0 };
    });
  };
  return { given, script };
}

describe("an agent", () => {
  it("brings what the device gave to the cloud, in order, and empties its buffer", async () => {
    const cloud = await startCloud();
    let count = 0;
    const { agent } = await startAgent(
      () => (count < 500 ? [{ tag: "force", time: now(), value: ++count, quality: 0 }] : undefined),
      {
        uplink: cloud.url,
        more: `http: { port: 0 }\ndevices: [{ name: press, protocol: scripted, tags: [{ name: force }] }]`,
      },
    );
    await expect.poll(() => cloud.rows().length, soon).toBe(500);
    expect(cloud.rows().map(({ value }) => value)).toEqual(Array.from({ length: 500 }, (_, n) => n + 1));
    await expect.poll(async () => JSON.parse((await health(agent, "/health/ready")).body).buffer.frames, soon).toBe(0);
  });

  it("answers for its health and its figures", async () => {
    const { agent } = await startAgent(() => [{ tag: "force", time: now(), value: 1, quality: 0 }], {
      more: `http: { port: 0 }\ndevices: [{ name: press, protocol: scripted, tags: [{ name: force }] }]`,
    });
    expect(await health(agent, "/health/live")).toEqual({
      status: 200,
      body: JSON.stringify({ status: "ok", edge: "line-3", version: "1.2.3" }),
    });
    await expect
      .poll(async () => JSON.parse((await health(agent, "/health/ready")).body).buffer.frames, soon)
      .toBeGreaterThan(2);
    const { status, body } = await health(agent, "/health/ready");
    expect(status).toBe(503);
    expect(JSON.parse(body)).toMatchObject({
      ok: false,
      devices: { press: "up" },
      broker: "away",
      buffer: { bytes: expect.any(Number) },
    });
    const metrics = (await health(agent, "/metrics")).body;
    expect(metrics).toMatch(/^millrace_edge_device_up\{device="press"\} 1$/m);
    expect(metrics).toMatch(/^millrace_edge_readings_total\{device="press"\} [1-9]\d*$/m);
    expect(metrics).toMatch(/^millrace_edge_buffer_frames [1-9]\d*$/m);
    expect(metrics).toMatch(/^millrace_edge_broker_connected 0$/m);
    expect(metrics).toMatch(/^millrace_edge_disk_trouble 0$/m);
  });

  it("without a device forwards what is in its buffer, and stops", async () => {
    const first = await startAgent(() => [{ tag: "force", time: now(), value: 1, quality: 0 }]);
    await delay(50);
    await first.stop();
    const cloud = await startCloud();
    const { agent, stop } = await startAgent(() => undefined, {
      uplink: cloud.url,
      more: "devices: []\nhttp: { port: 0 }",
    });
    await expect.poll(() => cloud.rows().length, soon).toBeGreaterThan(0);
    await expect.poll(async () => (await health(agent, "/health/ready")).status, soon).toBe(200);
    await stop();
    await agent.finished;
  });

  it("whose buffer's thread dies is finished, says why, and still stops", async () => {
    const { promise: started, resolve } = Promise.withResolvers<Worker>();
    process.once("worker", resolve);
    const { agent, stop } = await startAgent(() => [{ tag: "force", time: now(), value: 1, quality: 0 }]);
    await (await started).terminate();
    await expect(agent.finished).rejects.toThrow(LinkError);
    await expect(agent.finished).rejects.toThrow("the buffer's thread has died");
    await stop();
  });

  it("that cannot listen says which setting to change, and leaves its buffer to others", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => taken.once("listening", listening));
    cleanups.push(() => new Promise((closed) => taken.close(closed)));
    const { port } = taken.address() as { port: number };
    const start = startAgent(() => undefined, { more: `http: { port: ${port} }\ndevices: []` });
    await expect(start).rejects.toThrow(ConfigError);
    await expect(start).rejects.toThrow(/http\.port/);
    const buffer = new ThreadedBuffer({
      edge: "line-3",
      path: join(folder, "buffer"),
      maxBytes: 2 ** 30,
      whenFull: "drop_oldest",
    });
    await buffer.open();
    await buffer.close();
  });
});

describe("a full buffer", () => {
  it("with drop_oldest: what is gone is told, reading by reading, and everything else arrives", async () => {
    const { given, script } = flood(400_000, 5000);
    const first = await startAgent(script, { buffer: "max_size: 1 MiB, when_full: drop_oldest" });
    await expect.poll(() => given.length, soon).toBe(400_000);
    await first.stop();
    const cloud = await startCloud();
    // With more room: a frame that is dropped while it is on its way is told as lost and arrives all the same.
    await startAgent(() => undefined, { uplink: cloud.url, buffer: "max_size: 4 MiB, when_full: drop_oldest" });
    const losses = () => [
      ...new Map(
        cloud
          .gaps()
          .filter(({ reason }) => reason === "buffer_full")
          .map((gap) => [gap.from, gap]),
      ).values(),
    ];
    const lost = () => losses().reduce((sum, { detail }) => sum + Number.parseInt(detail, 10), 0);
    await expect.poll(() => cloud.rows().filter(({ value }) => value !== null).length + lost(), soon).toBe(400_000);
    expect(lost()).toBeGreaterThan(200_000);
    // The newest are those that were kept.
    const arrived = cloud.rows().flatMap(({ value }) => (value === null ? [] : [value]));
    expect(arrived).toEqual(given.slice(-arrived.length));
    for (const { device, tag, from, to } of losses()) {
      expect([device, tag]).toEqual(["press", null]);
      expect(to).toBeGreaterThanOrEqual(from);
    }
  });

  it("with stop_collecting: the device waits, nothing that was taken is lost, and the wait is a gap", async () => {
    const cloud = await startCloud();
    const { given, script } = flood(400_000, 5000);
    const full = "max_size: 1 MiB, when_full: stop_collecting";
    const first = await startAgent(script, {
      buffer: full,
      more: "http: { port: 0 }\ndevices: [{ name: press, protocol: scripted, tags: [{ name: force }] }]",
    });
    await expect
      .poll(async () => JSON.parse((await health(first.agent, "/health/ready")).body).buffer.trouble, soon)
      .toMatch(/buffer is full/);
    await delay(200);
    const taken = given.length;
    expect(taken).toBeLessThan(400_000);
    await delay(400);
    expect(given.length).toBe(taken);
    const began = performance.now();
    await first.stop();
    expect(performance.now() - began).toBeLessThan(2000);
    // What was still in memory could not be kept; from there the device has a gap, and the next run goes on.
    await startAgent(script, { uplink: cloud.url, buffer: full });
    await expect.poll(() => given.length, soon).toBe(400_000);
    await expect.poll(() => cloud.rows().at(-1)?.value, soon).toBe(given.at(-1));
    const arrived = cloud.rows().flatMap(({ value }) => (value === null ? [] : [value]));
    const lostAtStop = 400_000 - arrived.length;
    const places = new Map(given.map((value, place) => [value, place]));
    const missing = arrived.findIndex((value, place) => places.get(value as number) !== place);
    expect(arrived.slice(0, missing)).toEqual(given.slice(0, missing));
    expect(arrived.slice(missing)).toEqual(given.slice(missing + lostAtStop));
    const stoppedGap = cloud.gaps().find(({ reason, to }) => reason === "agent_stopped" && to !== null)!;
    const lastBefore = cloud.rows().filter(({ value }) => value !== null)[missing - 1]!;
    expect(stoppedGap.from).toBeLessThanOrEqual(lastBefore.time);
  });

  it("with stop_collecting, drained again: the wait alone is the gap", async () => {
    const cloud = await startCloud();
    const { given, script } = flood(300_000, 5000);
    await startAgent(script, { buffer: "max_size: 1 MiB, when_full: stop_collecting", uplink: cloud.url });
    await expect.poll(() => given.length, soon).toBe(300_000);
    await expect.poll(() => cloud.rows().length, soon).toBe(300_000);
    expect(cloud.rows().map(({ value }) => value)).toEqual(given);
    expect(cloud.gaps().every(({ reason }) => reason === "buffer_full")).toBe(true);
  });
});

describe("an agent that is its own process", () => {
  it("asked to end by SIGTERM puts everything on disk first", async () => {
    const file = join(folder, "edge.yaml");
    writeFileSync(
      file,
      `edge: counting
uplink: { url: "mqtt://127.0.0.1:1", password: p }
buffer: { path: ./buffer }
frame: { linger: 1 h }
http: { port: 0 }
devices: [{ name: counter, protocol: counter, tags: [{ name: count }] }]
`,
    );
    const epoch = (Date.now() - 3_600_000) * 1000;
    const edge = new RigProcess(
      "test/integration/rig/counter-edge.ts",
      [file],
      { COUNTER_EPOCH: String(epoch) },
      join(folder, "edge.log"),
    );
    cleanups.push(() => edge.end("SIGKILL"));
    const { http } = await edge.start();
    const counted = async () =>
      Number(/readings_total\{device="counter"\} (\d+)/.exec(await (await fetch(`${http}/metrics`)).text())?.[1]);
    await expect.poll(counted, soon).toBeGreaterThan(20);
    const seen = await counted();
    await edge.end("SIGTERM");
    expect(edge.logTail(1)).toContain("the edge agent has stopped");

    const buffer = new ThreadedBuffer({
      edge: "counting",
      path: join(folder, "buffer"),
      maxBytes: 2 ** 30,
      whenFull: "drop_oldest",
    });
    const { watermarks } = await buffer.open();
    const frames = await buffer.oldest(0, 1000);
    await buffer.close();
    const values = frames.flatMap(({ bytes }) =>
      rowsOf(unpackContent(openEnvelope(bytes)).readings).map(({ value }) => value),
    );
    expect(values.length).toBeGreaterThanOrEqual(seen);
    expect(values).toEqual(Array.from({ length: values.length }, (_, n) => n + 1));
    expect(watermarks.get("counter")).toBe(epoch + values.length * 1000);
  });
});
