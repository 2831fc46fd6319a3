import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import mqtt from "mqtt";
import { encodeAcknowledgement } from "../../protocols/uplink/acknowledgement.ts";
import { openEnvelope, unpackContent } from "../../protocols/uplink/envelope.ts";
import { parseUpward, topics } from "../../protocols/uplink/topics.ts";
import { RigProcess } from "../integration/rig/process.ts";
import { print } from "./figures.ts";

const seconds = 60;
/** A reading as the least JSON that says the same: {"t":"line-1.speed","ts":1780000000000,"v":12.3,"q":0} */
const asJson = (tag: number, time: number, value: unknown, quality: number) =>
  JSON.stringify({ t: `device.tag-${tag}`, ts: time / 1000, v: value, q: quality }).length;

/** Bytes a reading takes on the wire: the demo's plant, its edge and its device map for a minute, MQTT's headers included. */
export async function wireBench(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const cloud = await startAcknowledgingBroker(folder, "pune-1");
  const demo = new URL("../../config/examples/demo/edge.yaml", import.meta.url).pathname;
  const plant = new RigProcess("millrace.ts", ["simulate"], {}, join(folder, "plant.log"));
  const edge = new RigProcess("millrace.ts", ["edge", demo], {}, join(folder, "edge.log"));
  try {
    const { opcua, modbus } = await plant.start();
    const [host, port] = modbus!.split(":");
    edge.env = {
      MILLRACE_BROKER_URL: cloud.url,
      MILLRACE_EDGE_PASSWORD: "edge",
      MILLRACE_EDGE_DATA: join(folder, "edge"),
      MILLRACE_EDGE_HTTP_PORT: "0",
      MILLRACE_SIM_OPCUA: opcua!,
      MILLRACE_SIM_MODBUS_HOST: host!,
      MILLRACE_SIM_MODBUS_PORT: port!,
    };
    await edge.start();
    await delay(seconds * 1000);
    report(cloud.counts);
  } finally {
    await Promise.all([edge.end("SIGTERM"), plant.end("SIGTERM")]);
    await cloud.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

export interface WireCounts {
  frames: number;
  readings: number;
  frameBytes: number;
  mapBytes: number;
  jsonBytes: number;
}

/** The embedded broker as a process, and a client that stands in the cloud's place: it counts and acknowledges. */
export async function startAcknowledgingBroker(folder: string, edge: string) {
  const file = join(folder, "cloud.yaml");
  await writeFile(
    file,
    `broker: { embedded: { port: 0 }, user: cloud, password: cloud }
edges: [{ name: ${edge}, password: edge }]
store: { embedded: { path: ./unused } }
`,
  );
  const broker = new RigProcess("millrace.ts", ["broker", file], {}, join(folder, "broker.log"));
  const url = (await broker.start()).broker!;
  const counts: WireCounts = { frames: 0, readings: 0, frameBytes: 0, mapBytes: 0, jsonBytes: 0 };
  const client = await mqtt.connectAsync(url, { username: "cloud", password: "cloud", protocolVersion: 4 });
  client.on("message", (topic, payload, packet) => {
    // A packet's length does not count its own first bytes: type, and the length itself.
    countMessage(counts, topic, payload, packet.length! + 1 + (packet.length! < 128 ? 1 : 2));
    if (parseUpward(topic)!.kind === "map") return;
    const { stream, seq } = openEnvelope(payload);
    const answer = Buffer.from(encodeAcknowledgement({ stream, committed: [seq] }));
    client.publish(topics.acknowledgement(edge), answer, { qos: 1 });
  });
  await client.subscribeAsync([...topics.upwardFilters], { qos: 1 });
  return {
    url,
    counts,
    async stop() {
      await client.endAsync(true);
      await broker.end("SIGTERM");
    },
  };
}

function countMessage(counts: WireCounts, topic: string, payload: Buffer, bytes: number): void {
  if (parseUpward(topic)!.kind === "map") {
    counts.mapBytes += bytes;
    return;
  }
  const { readings } = unpackContent(openEnvelope(payload));
  counts.frames++;
  counts.readings += readings.count;
  counts.frameBytes += bytes;
  for (let row = 0; row < readings.count; row++) {
    counts.jsonBytes += asJson(readings.tag[row]!, readings.time[row]!, readings.number[row], readings.quality[row]!);
  }
}

function report({ frames, readings, frameBytes, mapBytes, jsonBytes }: WireCounts): void {
  print(`readings in ${seconds} s of the demo plant`, readings, "readings");
  print("readings in a frame, on average", readings / frames, "readings", 1);
  print("on the wire, with MQTT's and the frame's headers", frameBytes / readings, "bytes/reading", 2);
  print("the same as terse JSON, one by one, without headers", jsonBytes / readings, "bytes/reading", 2);
  print("the device map, once a connection", mapBytes, "bytes");
}
