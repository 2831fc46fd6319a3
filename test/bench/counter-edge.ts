import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RigProcess } from "../integration/rig/process.ts";

/** What an edge's own metrics say at one moment. */
export interface EdgeSample {
  readonly atSeconds: number;
  /** Values that went into frames. */
  readonly reported: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
}

export interface CountingEdge {
  readonly opcua: string;
  readonly nodeIds: readonly string[];
  sample(): Promise<EdgeSample>;
  stop(): Promise<void>;
}

/** A simulator in counter mode on OPC UA, and an edge that subscribes to all of it and puts it on disk. */
export async function startCountingEdge(options: {
  tags: number;
  periodMs: number;
  /** Where to send; by default nowhere: the buffer keeps everything. */
  broker?: { url: string; password: string };
  /** False: the simulator alone, for another client. */
  edge?: boolean;
}): Promise<CountingEdge> {
  const { tags, periodMs, broker, edge: withEdge = true } = options;
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const counter = ["--counter", String(periodMs), "--counter-tags", String(tags)];
  const plant = new RigProcess("millrace.ts", ["simulate", ...counter], {}, join(folder, "plant.log"));
  const { opcua } = await plant.start();
  const names = Array.from({ length: tags }, (_, n) => String(n + 1).padStart(4, "0"));
  const file = join(folder, "edge.yaml");
  await writeFile(
    file,
    `edge: bench
uplink: { url: "${broker?.url ?? "mqtt://127.0.0.1:9"}", password: "${broker?.password ?? "none"}" }
buffer: { path: ./buffer, max_size: 4 GiB }
http: { port: 0 }
log: { level: warn }
devices:
  - name: counter
    protocol: opcua
    endpoint: ${opcua}
    sampling: 0 ms
    publishing: 100 ms
    queue: ${Math.ceil(2000 / periodMs) + 10}
    tags:
${names.map((n) => `      - { name: c${n}, node: "nsu=urn:millrace:plant;s=Counter.${n}" }`).join("\n")}
`,
  );
  const edge = new RigProcess("millrace.ts", ["edge", file], {}, join(folder, "edge.log"));
  const http = withEdge ? (await edge.start()).http : undefined;
  return {
    opcua: opcua!,
    nodeIds: names.map((n) => `Counter.${n}`),
    sample: () => sampleOf(http!),
    async stop() {
      await Promise.all([edge.end("SIGTERM"), plant.end("SIGTERM")]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function sampleOf(http: string): Promise<EdgeSample> {
  const text = await (await fetch(`${http}/metrics`)).text();
  const value = (name: string) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)`, "m").exec(text)?.[1]);
  return {
    atSeconds: performance.now() / 1000,
    reported: value("millrace_edge_reported_total"),
    cpuSeconds: value("process_cpu_seconds_total"),
    rssBytes: value("process_resident_memory_bytes"),
  };
}
