import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type CountingEdge, startCountingEdge } from "./counter-edge.ts";
import { print } from "./figures.ts";

const tags = 2000;
/** 2,000 tags, each 55 times a second: somewhat above the 100,000 values a second that are asked for. */
const periodMs = 18;
const warmUpSeconds = 10;
const seconds = 20;

interface Rate {
  readonly valuesPerSecond: number;
  readonly valuesPerCpuSecond: number;
}

/**
 * Values a second from an OPC UA subscription to durable disk, and what a value costs in CPU time; beside a bare
 * node-opcua client on the same server that only counts.
 */
export async function edgeBench(): Promise<void> {
  const bare = await measureBare();
  const edge = await measureEdge();
  print("asked of the server", (tags * 1000) / periodMs, "values/s");
  // Its defaults let the server's queues overflow at this rate; what it costs per value is the limit that counts.
  print("bare node-opcua client that only counts: received", bare.valuesPerSecond, "values/s");
  print("bare client, per second of CPU", bare.valuesPerCpuSecond, "values");
  print("edge, to durable disk", edge.valuesPerSecond, "values/s");
  print("edge, per second of CPU", edge.valuesPerCpuSecond, "values");
  print("CPU per value: edge over bare client", bare.valuesPerCpuSecond / edge.valuesPerCpuSecond, "", 2);
}

async function measureEdge(): Promise<Rate> {
  const edge = await startCountingEdge({ tags, periodMs });
  try {
    await delay(warmUpSeconds * 1000);
    const first = await edge.sample();
    await delay(seconds * 1000);
    const last = await edge.sample();
    const values = last.reported - first.reported;
    return {
      valuesPerSecond: values / (last.atSeconds - first.atSeconds),
      valuesPerCpuSecond: values / (last.cpuSeconds - first.cpuSeconds),
    };
  } finally {
    await edge.stop();
  }
}

async function measureBare(): Promise<Rate> {
  // The edge beside it is not wanted here, only its simulator.
  const simulator = await startCountingEdge({ tags, periodMs, edge: false });
  const client = startBare(simulator);
  try {
    await delay(warmUpSeconds * 1000);
    const first = await next(client);
    const begun = performance.now();
    await delay(seconds * 1000);
    const last = await next(client);
    const values = last.values - first.values;
    return {
      valuesPerSecond: values / ((performance.now() - begun) / 1000),
      valuesPerCpuSecond: values / (last.cpuSeconds - first.cpuSeconds),
    };
  } finally {
    client.kill("SIGKILL");
    await simulator.stop();
  }
}

function startBare({ opcua, nodeIds }: CountingEdge): ChildProcess {
  const script = fileURLToPath(new URL("./bare-client.ts", import.meta.url));
  return spawn(process.execPath, [script, opcua, String(periodMs), ...nodeIds], {
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
}

async function next(client: ChildProcess): Promise<{ values: number; cpuSeconds: number }> {
  const [message] = await once(client, "message");
  return message as { values: number; cpuSeconds: number };
}
