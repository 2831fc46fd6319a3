/**
 * An edge agent whose one device is a source that counts: at step n every tag reads n. The source goes on after the
 * last step that the edge's buffer holds durably, as a device with a memory of its own would. So each number has to
 * arrive in the database once, however often this process is killed.
 *
 * Arguments: the device map. COUNTER_HOLD=1 in the environment: count no further, only forward.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { loadEdge } from "../../../config/load.ts";
import { startEdge } from "../../../edge/main.ts";
import { deviceFields, tagFields } from "../../../protocols/device.ts";
import type { Driver } from "../../../protocols/driver.ts";
import type { ProtocolEntry } from "../../../protocols/registry.ts";
import { fail, runService, serviceLog } from "../../../service.ts";

/**
 * Step n is at this time (µs, from the environment: the start of the test) plus n ms: never ahead of the clock, so that
 * the edge's watermark names the last durable step.
 */
const epoch = Number(process.env.COUNTER_EPOCH);
const stepMicros = 1000;
const periodMs = 5;

const counterDevice = z.strictObject({
  ...deviceFields,
  protocol: z.literal("counter"),
  tags: z.array(z.strictObject(tagFields)),
});

function lastDurableStep(bufferPath: string): number {
  const file = join(bufferPath, "buffer.sqlite");
  if (!existsSync(file)) return 0;
  const database = new DatabaseSync(file);
  try {
    const exists = database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'watermark'").get();
    const row = exists && database.prepare("SELECT time FROM watermark WHERE device = 'counter'").get();
    return row ? ((row as { time: number }).time - epoch) / stepMicros : 0;
  } finally {
    database.close();
  }
}

function counterDriver(tags: readonly string[], resumeAfter: number): Driver {
  return {
    // The collector takes nothing for granted within this time: the watermark is then the last reading's time alone.
    quietMs: 20 * 86_400_000,
    connect: async () => undefined,
    close: async () => undefined,
    async *readings(signal) {
      for (let step = resumeAfter + 1; !signal.aborted; step++) {
        const time = epoch + step * stepMicros;
        if (process.env.COUNTER_HOLD === "1") yield [];
        else yield tags.map((tag) => ({ tag, time, value: step, quality: 0 }));
        await delay(process.env.COUNTER_HOLD === "1" ? 200 : periodMs, undefined, { signal }).catch(() => undefined);
      }
    },
  };
}

function counterEntry(resumeAfter: number): ProtocolEntry {
  return {
    schema: counterDevice,
    load: async () => ({
      driver: (device: z.infer<typeof counterDevice>) =>
        counterDriver(
          device.tags.map((tag) => tag.name),
          resumeAfter,
        ),
    }),
    plan: async () => [],
    valueKind: () => "number",
  };
}

runService(async () => {
  const file = process.argv[2]!;
  const config = loadEdge(file, process.env, { counter: counterEntry(0) });
  const resumeAfter = lastDurableStep(config.buffer.path);
  const registry = { counter: counterEntry(resumeAfter) };
  const running = await startEdge(config, { log: serviceLog("edge", "info"), version: "test", registry });
  return { ...running, addresses: { ...running.addresses, resumedAfter: String(resumeAfter) } };
}).catch(fail);
