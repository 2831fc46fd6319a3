import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { startCountingEdge } from "./counter-edge.ts";
import { print } from "./figures.ts";
import { startAcknowledgingBroker } from "./wire.ts";

const tags = 10_000;
const seconds = 60;

/** Resident memory of an edge that reads 10,000 OPC UA tags once a second and forwards them. */
export async function memoryBench(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const cloud = await startAcknowledgingBroker(folder, "bench");
  const edge = await startCountingEdge({ tags, periodMs: 1000, broker: { url: cloud.url, password: "edge" } });
  try {
    let peak = 0;
    const first = await edge.sample();
    for (let second = 0; second < seconds; second++) {
      await delay(1000);
      peak = Math.max(peak, (await edge.sample()).rssBytes);
    }
    const last = await edge.sample();
    const elapsed = last.atSeconds - first.atSeconds;
    print(`${tags} tags at 1 s: resident memory, at its peak`, peak / 1e6, "MB");
    print("resident memory at the end", last.rssBytes / 1e6, "MB");
    print("values", (last.reported - first.reported) / elapsed, "values/s");
    print("CPU", ((last.cpuSeconds - first.cpuSeconds) / elapsed) * 100, "% of a core", 1);
  } finally {
    await edge.stop();
    await cloud.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
