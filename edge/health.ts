import Fastify, { type FastifyInstance } from "fastify";
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { BufferStats, FrameBuffer } from "./buffer/buffer.ts";
import type { DeviceCollector } from "./collect.ts";
import type { Forwarder } from "./forward.ts";
import type { FrameWriter } from "./frames.ts";

export interface EdgeParts {
  readonly edge: string;
  readonly version: string;
  readonly collectors: readonly DeviceCollector[];
  readonly writer: FrameWriter;
  readonly buffer: FrameBuffer;
  readonly forwarder: Forwarder;
}

/**
 * The agent's own HTTP: `/health/live`, `/health/ready` (503 while a device is down, the broker is away or the disk
 * takes nothing, with what is wrong) and `/metrics` for Prometheus.
 */
export function edgeHealth(parts: EdgeParts): FastifyInstance {
  const app = Fastify({ logger: false });
  const metrics = edgeMetrics(parts);
  app.get("/health/live", async () => ({ status: "ok", edge: parts.edge, version: parts.version }));
  app.get("/health/ready", async (_request, reply) => {
    const devices = Object.fromEntries(parts.collectors.map(({ device, state }) => [device.name, state]));
    const { connected } = parts.forwarder;
    const { trouble } = parts.writer;
    const ok = connected && trouble === undefined && parts.collectors.every(({ state }) => state === "up");
    reply.code(ok ? 200 : 503);
    const stats = await statsOf(parts.buffer);
    const buffer = { frames: stats?.frames, bytes: stats?.bytes, trouble };
    return { ok, devices, broker: connected ? "connected" : "away", buffer };
  });
  app.get("/metrics", async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  return app;
}

/** undefined when the buffer does not answer: the rest of the report is then needed all the more. */
async function statsOf(buffer: FrameBuffer): Promise<BufferStats | undefined> {
  return buffer.stats().catch(() => undefined);
}

function edgeMetrics({ collectors, writer, buffer, forwarder }: EdgeParts): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  perDevice("millrace_edge_device_up", "1 while the device answers", ({ state }) => (state === "up" ? 1 : 0));
  perDevice("millrace_edge_readings_total", "Readings the device has given", ({ readings }) => readings);
  perDevice("millrace_edge_reported_total", "Readings that went into frames", ({ reported }) => reported);
  single("millrace_edge_disk_trouble", "1 while the buffer takes nothing", () =>
    writer.trouble === undefined ? 0 : 1,
  );
  single("millrace_edge_broker_connected", "1 while the broker is connected", () => (forwarder.connected ? 1 : 0));
  for (const kind of ["sent", "resent", "acknowledged", "refused"] as const) {
    single(`millrace_edge_frames_${kind}_total`, `Frames ${kind} since the start`, () => forwarder.counts[kind]);
  }
  single(
    "millrace_edge_buffer_frames",
    "Frames that the cloud has not acknowledged",
    async () => (await statsOf(buffer))?.frames,
  );
  single("millrace_edge_buffer_bytes", "Bytes in use in the buffer", async () => (await statsOf(buffer))?.bytes);
  return registry;

  function perDevice(name: string, help: string, value: (collector: DeviceCollector) => number): void {
    new Gauge({
      name,
      help,
      labelNames: ["device"],
      registers: [registry],
      collect() {
        for (const collector of collectors) this.set({ device: collector.device.name }, value(collector));
      },
    });
  }

  function single(name: string, help: string, value: () => number | Promise<number | undefined>): void {
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        this.set((await value()) ?? Number.NaN);
      },
    });
  }
}
