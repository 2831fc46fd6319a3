import { createServer, type Server, type Socket } from "node:net";
import mqtt, { type MqttClient } from "mqtt";
import { pino } from "pino";
import { afterEach, describe, expect, it } from "vitest";
import { EmbeddedBroker } from "../../../cloud/broker.ts";
import { Forwarder, type ForwarderOptions } from "../../../edge/forward.ts";
import { Secret } from "../../../protocols/secret.ts";
import { type Acknowledgement, encodeAcknowledgement } from "../../../protocols/uplink/acknowledgement.ts";
import { deviceMapHash, encodeDeviceMap } from "../../../protocols/uplink/device-map.ts";
import { openEnvelope } from "../../../protocols/uplink/envelope.ts";
import { parseUpward, topics } from "../../../protocols/uplink/topics.ts";
import { frame } from "../../contract/buffer-frames.ts";
import { openBuffer, type TestBuffer, testLog } from "./parts.ts";

const map = encodeDeviceMap({ edge: "line-3", devices: [], tags: [] });
const otherMap = encodeDeviceMap({ edge: "line-3", site: "pune", devices: [], tags: [] });
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startBroker(port = 0) {
  const broker = new EmbeddedBroker({
    host: "127.0.0.1",
    port,
    edges: [{ name: "line-3", password: new Secret("right") }],
    service: { user: "cloud", password: new Secret("cloud") },
    log: pino({ level: "silent" }),
  });
  const url = await broker.start();
  cleanups.push(() => broker.stop());
  return { broker, url, port: Number(new URL(url).port) };
}

/** The cloud's side: hears what the edge sends, and says what a test tells it to. */
async function startCloud(url: string) {
  const client: MqttClient = await mqtt.connectAsync(url, { username: "cloud", password: "cloud", protocolVersion: 4 });
  cleanups.push(() => client.endAsync(true));
  /** In order of arrival: the numbers of frames, and the hashes of device maps. */
  const heard: (number | string)[] = [];
  client.on("message", (topic, payload) => {
    heard.push(parseUpward(topic)!.kind === "map" ? deviceMapHash(payload) : openEnvelope(payload).seq);
  });
  await client.subscribeAsync([...topics.upwardFilters], { qos: 1 });
  const say = (acknowledgement: Partial<Acknowledgement>) =>
    client.publishAsync(topics.acknowledgement("line-3"), Buffer.from(encodeAcknowledgement(acknowledgement)), {
      qos: 1,
    });
  const ready = () => client.publishAsync(topics.cloudReady, "", { qos: 1 });
  return { client, heard, say, ready, next: () => heard.splice(0) };
}

async function startForwarder(
  url: string,
  wish: Partial<ForwarderOptions> & { frames?: number; password?: string; buffer?: TestBuffer } = {},
) {
  let streams = wish.streams;
  let { buffer } = wish;
  if (buffer === undefined) {
    const opened = await openBuffer();
    buffer = opened.buffer;
    streams = opened.recovered.streams;
    await buffer.saveMap(map.hash, map.bytes);
    for (let n = 0; n < (wish.frames ?? 3); n++) await buffer.append(frame({ mapHash: map.hash }));
  }
  const { log, said } = testLog();
  const forwarder = new Forwarder({
    edge: "line-3",
    streams: streams!,
    address: {
      url,
      user: "line-3",
      password: new Secret(wish.password ?? "right"),
      mqttVersion: "3.1.1",
      clientId: "edge",
    },
    window: 4,
    acknowledgeTimeoutMs: 60_000,
    log,
    ...wish,
    buffer,
  });
  const stopping = new AbortController();
  const run = forwarder.run(stopping.signal);
  const stop = async () => {
    stopping.abort();
    await run;
  };
  cleanups.push(stop);
  return { buffer, stream: streams!.at(-1)!.uuid, forwarder, said, stop };
}

const soon = { timeout: 5000, interval: 5 };
const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
/** Waits so long that whatever was going to be sent has been. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 100));

async function start(wish: Parameters<typeof startForwarder>[1] = {}) {
  const { url, broker, port } = await startBroker();
  const cloud = await startCloud(url);
  const edge = await startForwarder(url, wish);
  return { ...edge, cloud, url, broker, port };
}

describe("frames", () => {
  it("go out oldest first behind their map, no more at once than the window, and are deleted when acknowledged", async () => {
    const { buffer, cloud, stream, forwarder } = await start({ frames: 10, window: 4 });
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1, 2, 3, 4]);
    await settled();
    expect(cloud.next()).toHaveLength(5);
    await cloud.say({ stream, committed: [1, 2] });
    await expect.poll(() => cloud.heard, soon).toEqual([5, 6]);
    await cloud.say({ stream, committed: [3, 4, 5, 6] });
    await expect.poll(() => cloud.heard, soon).toEqual([5, 6, 7, 8, 9, 10]);
    await cloud.say({ stream, committed: [10, 8, 7, 9] });
    await expect.poll(async () => (await buffer.stats()).frames, soon).toBe(0);
    expect(forwarder.counts).toEqual({ sent: 10, resent: 0, acknowledged: 10, refused: 0 });
  });

  it("may be acknowledged in any order; the others stay", async () => {
    const { buffer, cloud, stream } = await start({ frames: 6, window: 3 });
    await expect.poll(() => cloud.heard, soon).toHaveLength(4);
    await cloud.say({ stream, committed: [3] });
    await expect.poll(() => cloud.heard.at(-1), soon).toBe(4);
    await cloud.say({ stream, committed: [4, 2] });
    await expect.poll(async () => (await buffer.oldest(0, 9)).map(({ seq }) => seq), soon).toEqual([1, 5, 6]);
  });

  it("that were appended meanwhile follow at once", async () => {
    const { buffer, cloud, forwarder } = await start({ frames: 0 });
    await expect.poll(() => forwarder.connected, soon).toBe(true);
    await buffer.append(frame({ mapHash: map.hash }));
    forwarder.notify();
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1]);
  });

  it("of an older device map take it along, each once", async () => {
    const { cloud, buffer, forwarder } = await start({ frames: 2, window: 10 });
    await expect.poll(() => cloud.heard, soon).toHaveLength(3);
    await buffer.saveMap(otherMap.hash, otherMap.bytes);
    await buffer.append(frame({ mapHash: otherMap.hash }));
    await buffer.append(frame({ mapHash: otherMap.hash }));
    forwarder.notify();
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1, 2, otherMap.hash, 3, 4]);
  });

  it("that the cloud refuses are set aside, become a gap, and hold up nothing", async () => {
    const { buffer, cloud, stream, said, forwarder } = await start({ frames: 5, window: 2 });
    await expect.poll(() => cloud.heard, soon).toHaveLength(3);
    await cloud.say({ stream, refused: [{ seq: 1, reason: "no such type" }] });
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1, 2, 3]);
    await expect.poll(async () => (await buffer.oldest(0, 9)).map(({ seq }) => seq), soon).toEqual([2, 3, 4, 5]);
    expect((await buffer.append(frame())).losses).toEqual([expect.objectContaining({ reason: "frame_refused" })]);
    expect(forwarder.counts.refused).toBe(1);
    expect(said).toContainEqual("error the cloud can never store these frames: they are set aside");
  });

  it("of another stream are none of its business, and neither is what is no acknowledgement", async () => {
    const { buffer, cloud, stream, said } = await start({ frames: 2 });
    await expect.poll(() => cloud.heard, soon).toHaveLength(3);
    await cloud.say({ stream: "ff".repeat(16), committed: [1, 2], refused: [{ seq: 1, reason: "" }] });
    await cloud.client.publishAsync(topics.acknowledgement("line-3"), "\xff\xff\xff", { qos: 1 });
    await cloud.say({ stream, committed: [2] });
    await expect.poll(async () => (await buffer.oldest(0, 9)).map(({ seq }) => seq), soon).toEqual([1]);
    expect(said).toContainEqual("warn a message of the cloud is not understood");
  });
});

describe("a device map", () => {
  it("that the cloud asks for is sent, and then the frames again", async () => {
    const { cloud, stream } = await start({ frames: 2 });
    await expect.poll(() => cloud.next(), soon).toEqual([map.hash, 1, 2]);
    await cloud.say({ stream, mapsNeeded: [map.hash] });
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1, 2]);
  });

  it("that the cloud never stops asking for is not sent in a circle", async () => {
    const { cloud, stream, forwarder } = await start({ frames: 2 });
    cloud.client.on("message", () => void cloud.say({ stream, mapsNeeded: [map.hash] }));
    await expect.poll(() => forwarder.counts.sent, soon).toBeGreaterThan(4);
    const { sent } = forwarder.counts;
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(forwarder.counts.sent - sent).toBeLessThanOrEqual(8);
    expect(forwarder.counts.sent - sent).toBeGreaterThan(0);
  });

  it("that is damaged on disk, and that the cloud has not, takes its frames aside, and no other", async () => {
    const { buffer, recovered } = await openBuffer();
    await buffer.saveMap(map.hash, otherMap.bytes);
    await buffer.append(frame({ mapHash: map.hash }));
    await buffer.saveMap(otherMap.hash, otherMap.bytes);
    for (let n = 0; n < 3; n++) await buffer.append(frame({ mapHash: otherMap.hash }));
    const { cloud, stream, said } = await start({ buffer, streams: recovered.streams, window: 2 });
    // The cloud may have it from before: so the frame is tried.
    await expect.poll(() => cloud.heard, soon).toEqual([1, otherMap.hash, 2]);
    await cloud.say({ stream, mapsNeeded: [map.hash], committed: [2] });
    await expect.poll(async () => (await buffer.oldest(0, 9)).map(({ seq }) => seq), soon).toEqual([3, 4]);
    await expect.poll(() => cloud.heard.at(-1), soon).toBe(4);
    expect(said).toContainEqual("error frames are set aside: their device map is damaged or gone");
  });
});

describe("what is not acknowledged", () => {
  it("is sent again after a while, and after a longer while, said once, until it is", async () => {
    const { cloud, stream, said, forwarder } = await start({ frames: 2, acknowledgeTimeoutMs: 300 });
    const times: number[] = [];
    cloud.client.on("message", (topic) => {
      if (parseUpward(topic)!.kind === "frame") times.push(performance.now());
    });
    await expect.poll(() => cloud.heard.filter((one) => one === 1).length, { timeout: 10_000 }).toBe(3);
    await settled();
    expect(cloud.next()).toEqual([map.hash, 1, 2, 1, 2, 1, 2]);
    const [second, third] = [times.at(-4)!, times.at(-2)!];
    expect(third - second).toBeGreaterThan(590);
    expect(forwarder.counts).toMatchObject({ sent: 6, resent: 4 });
    await cloud.say({ stream, committed: [1, 2] });
    await expect.poll(() => said.at(-1), soon).toBe("info the cloud acknowledges again");
    expect(said.filter((line) => line.startsWith("warn"))).toHaveLength(1);
  });

  it("is sent again at once when the cloud says that it has begun to listen", async () => {
    const { cloud } = await start({ frames: 3, window: 2 });
    await expect.poll(() => cloud.next(), soon).toEqual([map.hash, 1, 2]);
    await cloud.ready();
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1, 2]);
  });

  it("is sent again when the cloud is ready in the midst of sending, without a frame left out", async () => {
    const { cloud, stream, buffer } = await start({ frames: 60, window: 10 });
    let answered = 0;
    cloud.client.on("message", (topic, payload) => {
      if (parseUpward(topic)!.kind === "map") return;
      void cloud.say({ stream, committed: [openEnvelope(payload).seq] });
      if (++answered % 7 === 0) void cloud.ready();
    });
    await cloud.ready();
    await expect.poll(async () => (await buffer.stats()).frames, { timeout: 10_000 }).toBe(0);
    expect([...new Set(cloud.heard)].filter((one) => typeof one === "number").sort((a, b) => a - b)).toEqual(
      numbers(1, 60),
    );
  });

  it("is sent again, the map too, when the broker comes back at its address", async () => {
    const { broker, port, forwarder, said } = await start({ frames: 2 });
    await expect.poll(() => forwarder.counts.sent, soon).toBe(2);
    await broker.stop();
    await expect.poll(() => forwarder.connected, soon).toBe(false);
    const { url } = await startBroker(port);
    const cloud = await startCloud(url);
    await expect.poll(() => cloud.heard.slice(-3), { timeout: 10_000 }).toEqual([map.hash, 1, 2]);
    expect(said.filter((line) => line.startsWith("info connected"))).toHaveLength(1); // of a broker just come, once it lasts
    expect(said.filter((line) => line.startsWith("warn no connection")).length).toBeGreaterThan(0);
  });
});

describe("a disk that refuses", () => {
  it("to delete is asked again until it does, and what it keeps is not counted twice", async () => {
    const { buffer, cloud, stream, said, forwarder } = await start({ frames: 3 });
    await expect.poll(() => cloud.heard, soon).toHaveLength(4);
    const release = buffer.release.bind(buffer);
    let refused = 0;
    buffer.release = (seqs) => (++refused <= 2 ? Promise.reject(new Error("disk full")) : release(seqs));
    await cloud.say({ stream, committed: [1, 2, 3] });
    await expect.poll(async () => (await buffer.stats()).frames, { timeout: 5000 }).toBe(0);
    expect(said.filter((line) => line.includes("cannot be deleted"))).toHaveLength(1);
    expect(forwarder.counts.acknowledged).toBe(3);
    expect(cloud.heard).toHaveLength(4);
  });

  it("to read is asked again", async () => {
    const { buffer, cloud, said, forwarder } = await start({ frames: 0 });
    await expect.poll(() => forwarder.connected, soon).toBe(true);
    const oldest = buffer.oldest.bind(buffer);
    buffer.oldest = () => Promise.reject(new Error("disk I/O error"));
    await buffer.append(frame({ mapHash: map.hash }));
    forwarder.notify();
    await expect.poll(() => said.filter((line) => line.includes("cannot be read")).length, soon).toBe(1);
    buffer.oldest = oldest;
    await expect.poll(() => cloud.heard, soon).toEqual([map.hash, 1]);
    expect(said.filter((line) => line.includes("cannot be read"))).toHaveLength(1);
  });
});

describe("a broker that confirms nothing", () => {
  it("is left and tried again, so that what is sent again does not pile up", async () => {
    const deaf = await startDeafBroker();
    const { forwarder, said } = await startForwarder(deaf.url, { frames: 4, window: 4, acknowledgeTimeoutMs: 100 });
    await expect.poll(() => deaf.connections(), { timeout: 10_000 }).toBeGreaterThan(1);
    expect(said).toContainEqual("error the broker confirms nothing: connecting anew");
    await expect.poll(() => forwarder.counts.sent, soon).toBeGreaterThan(4);
  });
});

/** Takes every connection and subscription, and confirms no publication. */
async function startDeafBroker() {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server: Server = createServer((socket) => {
    connections++;
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (data: Buffer) => {
      if (data[0] === 0x10) socket.write(Buffer.from([0x20, 2, 0, 0])); // CONNACK
      const at = data.findIndex((byte, n) => byte === 0x82 && n + 3 < data.length);
      if (at >= 0 && data[0] !== 0x32) socket.write(Buffer.from([0x90, 4, data[at + 2]!, data[at + 3]!, 1, 1])); // SUBACK
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as { port: number };
  return { url: `mqtt://127.0.0.1:${port}`, connections: () => connections };
}

it("is left within moments when the agent stops, connected or not", async () => {
  const { stop, forwarder } = await start({ frames: 1 });
  await expect.poll(() => forwarder.counts.sent, soon).toBe(1);
  const began = performance.now();
  await stop();
  const away = await startForwarder("mqtt://127.0.0.1:1");
  await expect.poll(() => away.said.length, soon).toBe(1);
  await away.stop();
  expect(performance.now() - began).toBeLessThan(1000);
});
