import { mkdtemp, rm } from "node:fs/promises";
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
  const env: Record<string, string> = {
    MILLRACE_BROKER_PORT: "0",
    MILLRACE_HTTP_PORT: "0",
    MILLRACE_CLOUD_DATA: join(folder, "database"),
    MILLRACE_EDGE_DATA: join(folder, "edge"),
    MILLRACE_EDGE_PASSWORD: "edge",
    MILLRACE_CLOUD_PASSWORD: "cloud",
  };
  const run = (name: string, args: string[]) => new RigProcess("millrace.ts", args, env, join(folder, `${name}.log`));
  const demo = new URL("../../config/examples/demo/", import.meta.url).pathname;
  const plant = run("plant", ["simulate"]);
  const broker = run("broker", ["broker", join(demo, "cloud.yaml")]);
  const edge = run("edge", ["edge", join(demo, "edge.yaml")]);
  try {
    const [{ opcua, modbus }, { broker: url }] = await Promise.all([plant.start(), broker.start()]);
    const [host, port] = modbus!.split(":");
    Object.assign(env, { MILLRACE_SIM_OPCUA: opcua, MILLRACE_BROKER_URL: url });
    Object.assign(env, { MILLRACE_SIM_MODBUS_HOST: host, MILLRACE_SIM_MODBUS_PORT: port });
    const counted = count(url!);
    await edge.start();
    await delay(seconds * 1000);
    report(await counted.stop());
  } finally {
    await Promise.all([edge, plant, broker].map((process) => process.end("SIGTERM")));
    await rm(folder, { recursive: true, force: true });
  }
}

interface Counts {
  frames: number;
  readings: number;
  frameBytes: number;
  mapBytes: number;
  jsonBytes: number;
}

/** Stands in the cloud's place: counts what arrives, and acknowledges. */
function count(url: string): { stop(): Promise<Counts> } {
  const counts: Counts = { frames: 0, readings: 0, frameBytes: 0, mapBytes: 0, jsonBytes: 0 };
  const client = mqtt.connect(url, { username: "cloud", password: "cloud", protocolVersion: 4 });
  client.subscribe([...topics.upwardFilters], { qos: 1 });
  client.on("message", (topic, payload, packet) => {
    const upward = parseUpward(topic)!;
    const bytes = (packet.length ?? payload.length) + 2;
    if (upward.kind === "map") {
      counts.mapBytes += bytes;
      return;
    }
    const envelope = openEnvelope(payload);
    const { readings } = unpackContent(envelope);
    counts.frames++;
    counts.readings += readings.count;
    counts.frameBytes += bytes;
    for (let row = 0; row < readings.count; row++) {
      counts.jsonBytes += asJson(readings.tag[row]!, readings.time[row]!, readings.number[row], readings.quality[row]!);
    }
    const answer = encodeAcknowledgement({ stream: envelope.stream, committed: [envelope.seq] });
    client.publish(topics.acknowledgement(upward.edge), Buffer.from(answer), { qos: 1 });
  });
  return { stop: () => client.endAsync(true).then(() => counts) };
}

function report({ frames, readings, frameBytes, mapBytes, jsonBytes }: Counts): void {
  print(`readings in ${seconds} s of the demo plant`, readings, "readings");
  print("readings in a frame, on average", readings / frames, "readings", 1);
  print("on the wire, with MQTT's and the frame's headers", frameBytes / readings, "bytes/reading", 2);
  print("the same as terse JSON, one by one, without headers", jsonBytes / readings, "bytes/reading", 2);
  print("the device map, once a connection", mapBytes, "bytes");
}
