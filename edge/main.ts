import type { AddressInfo } from "node:net";
import type { FastifyInstance } from "fastify";
import type { Logger } from "pino";
import type { EdgeConfig, Registry } from "../config/edge.ts";
import type { DeviceConfig, TagConfig } from "../protocols/device.ts";
import type { Protocol } from "../protocols/driver.ts";
import { ConfigError } from "../protocols/errors.ts";
import { encodeDeviceMap } from "../protocols/uplink/device-map.ts";
import type { DeviceMap } from "../protocols/uplink/frame.ts";
import type { FrameBuffer, Recovered } from "./buffer/buffer.ts";
import { ThreadedBuffer } from "./buffer/threaded.ts";
import { DeviceCollector } from "./collect.ts";
import { Forwarder } from "./forward.ts";
import { FrameWriter } from "./frames.ts";
import { edgeHealth } from "./health.ts";
import { watchStandstill } from "./standstill.ts";

/** An agent at work. */
export interface RunningEdge {
  /** Where the agent's own HTTP listens, when it is configured. */
  readonly addresses: { readonly http?: string };
  /** Rejects when the agent cannot go on; resolves after `stop`. */
  readonly finished: Promise<void>;
  /** Stops collecting, puts what was collected on disk and leaves; unsent frames wait for the next start. */
  stop(): Promise<void>;
}

/** Parts of an edge's configuration that do not depend on who runs it. */
export interface EdgeContext {
  readonly log: Logger;
  readonly version: string;
  readonly registry: Registry;
}

/**
 * Starts an agent: collect → report → buffer → forward.
 * @throws ConfigError when the buffer cannot be opened or the HTTP port is taken; nothing is left open then
 */
export async function startEdge(config: EdgeConfig, context: EdgeContext): Promise<RunningEdge> {
  const buffer = new ThreadedBuffer({
    edge: config.edge,
    path: config.buffer.path,
    maxBytes: config.buffer.max_size,
    whenFull: config.buffer.when_full,
  });
  const recovered = await buffer.open();
  try {
    return await startOn(buffer, recovered, config, context);
  } catch (error) {
    await buffer.close();
    throw error;
  }
}

async function startOn(
  buffer: ThreadedBuffer,
  recovered: Recovered,
  config: EdgeConfig,
  { log, version, registry }: EdgeContext,
): Promise<RunningEdge> {
  const edgeLog = log.child({ edge: config.edge });
  const map = encodeDeviceMap(deviceMap(config, registry));
  await buffer.saveMap(map.hash, map.bytes);
  const forwarder = createForwarder(config, recovered, buffer, edgeLog);
  const writer = new FrameWriter({
    buffer,
    limits: { maxReadings: config.frame.max_readings, lingerMs: config.frame.linger },
    mapHash: map.hash,
    deviceOf: config.devices.flatMap((device) => device.tags.map(() => device.name)),
    losses: recovered.losses,
    log: edgeLog,
    appended: () => forwarder.notify(),
  });
  const collectors = await createCollectors(config, { writer, recovered, registry, log: edgeLog });
  const http =
    config.http &&
    (await listen(edgeHealth({ edge: config.edge, version, collectors, writer, buffer, forwarder }), config.http));

  closeGapsOfRemovedDevices(config.devices, recovered, writer);
  writer.start();
  const stopping = new AbortController();
  const collecting = collectors.map((collector) => collector.run(stopping.signal));
  const standstill = watchStandstill((from, to) => {
    for (const collector of collectors) collector.stoodStill(from, to);
  }, edgeLog);
  const forwarding = new AbortController();
  const forwarded = forwarder.run(forwarding.signal);
  edgeLog.info({ devices: collectors.length, stream: recovered.streams.at(-1)!.uuid }, "the edge agent is running");
  return {
    addresses: { http: http && addressOf(http) },
    finished: Promise.race([buffer.failed, Promise.all([...collecting, forwarded])]).then(() => undefined),
    async stop() {
      stopping.abort();
      clearInterval(standstill);
      // What failed has said so through `finished`; the rest is put on disk all the same.
      await Promise.allSettled(collecting);
      await writer.close();
      forwarding.abort();
      await Promise.allSettled([forwarded]);
      await http?.close();
      await buffer.close();
      edgeLog.info("the edge agent has stopped");
    },
  };
}

async function listen(app: FastifyInstance, address: { host: string; port: number }): Promise<FastifyInstance> {
  try {
    await app.listen(address);
    return app;
  } catch (error) {
    await app.close();
    throw new ConfigError(
      `health and metrics cannot be served on ${address.host}:${address.port}: choose another http.port or http.host`,
      { cause: error },
    );
  }
}

function addressOf(http: FastifyInstance): string {
  const { address, port } = http.server.address() as AddressInfo;
  return `http://${address.includes(":") ? `[${address}]` : address}:${port}`;
}

/** What the cloud is told of the tags. */
function deviceMap({ edge, site, devices }: EdgeConfig, registry: Registry): DeviceMap {
  const tags = (device: DeviceConfig) =>
    device.tags.map((tag: TagConfig) => ({
      device: device.name,
      name: tag.name,
      kind: registry[device.protocol]!.valueKind(tag as never),
      description: tag.description,
      unit: tag.unit,
      equipment: tag.equipment ?? device.equipment,
      range: tag.range,
    }));
  return {
    edge,
    site,
    devices: devices.map(({ name, protocol, description }) => ({ name, protocol, description })),
    tags: devices.flatMap(tags),
  };
}

function createForwarder(config: EdgeConfig, { streams }: Recovered, buffer: FrameBuffer, log: Logger): Forwarder {
  const { uplink, edge } = config;
  return new Forwarder({
    edge,
    streams,
    buffer,
    address: {
      url: uplink.url,
      user: uplink.user ?? edge,
      password: uplink.password,
      ca: uplink.ca,
      mqttVersion: uplink.mqtt_version === 5 ? "5" : uplink.mqtt_version,
      clientId: `millrace-edge-${edge}`,
    },
    window: uplink.window,
    acknowledgeTimeoutMs: uplink.acknowledge_timeout,
    log,
  });
}

async function createCollectors(
  config: EdgeConfig,
  { writer, recovered, registry, log }: { writer: FrameWriter; recovered: Recovered; registry: Registry; log: Logger },
): Promise<DeviceCollector[]> {
  const loaded = new Map<string, Protocol<never>>();
  const collectors: DeviceCollector[] = [];
  let firstTag = 0;
  for (const device of config.devices) {
    const protocol = loaded.get(device.protocol) ?? (await registry[device.protocol]!.load());
    loaded.set(device.protocol, protocol);
    collectors.push(
      new DeviceCollector({
        device,
        protocol,
        firstTag,
        writer,
        backoff: { firstMs: config.reconnect.first, longestMs: config.reconnect.longest },
        watermark: recovered.watermarks.get(device.name),
        openGaps: recovered.openGaps.filter((gap) => gap.device === device.name),
        log,
      }),
    );
    firstTag += device.tags.length;
  }
  return collectors;
}

/** A device that was removed from the device map has no gap any more from now on. */
function closeGapsOfRemovedDevices(devices: readonly DeviceConfig[], recovered: Recovered, writer: FrameWriter): void {
  const known = new Set(devices.map((device) => device.name));
  for (const gap of recovered.openGaps.filter(({ device }) => !known.has(device))) {
    const to = Math.max(gap.from, recovered.watermarks.get(gap.device) ?? 0);
    writer.addGap({ ...gap, to, detail: "the device was removed from the device map" });
  }
}
