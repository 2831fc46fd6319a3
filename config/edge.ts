import { z } from "zod";
import { type DeviceConfig, name } from "../protocols/device.ts";
import { duration, size } from "../protocols/quantity.ts";
import type { ProtocolEntry } from "../protocols/registry.ts";
import { secret } from "../protocols/secret.ts";
import { host, log, mqttVersion, path, port, positiveDuration, url } from "./settings.ts";

/** The protocols that a device map can name. */
export type Registry = Readonly<Record<string, ProtocolEntry>>;

/** Any device of any protocol in the registry, told apart by `protocol`. */
function device(registry: Registry): z.ZodType<DeviceConfig> {
  const schemas = Object.values(registry).map((entry) => entry.schema);
  const union = z.discriminatedUnion("protocol", schemas as [z.ZodObject, ...z.ZodObject[]]);
  // Each protocol's schema spreads `deviceFields` and has a list of tags that spread `tagFields`.
  return union as unknown as z.ZodType<DeviceConfig>;
}

/**
 * The schema of an edge's file, once its templates and CSV files are expanded.
 * @param folder the file's folder: paths in the file are relative to it
 */
export function edgeSchema(registry: Registry, folder: string) {
  return z.strictObject({
    edge: name.describe(
      "The edge's name, unique in the plant; it is also its MQTT user unless `uplink.user` says otherwise.",
    ),
    site: z.string().min(1).optional().describe("The site where the edge stands, for people."),
    uplink: uplink(folder).describe("The way to the cloud: an MQTT broker."),
    buffer: buffer(folder).describe("The readings on disk that the cloud has not yet acknowledged."),
    frame: frame.prefault({}).describe("How readings are packed for disk and wire."),
    reconnect: reconnect.prefault({}).describe("How soon a lost device is tried again; the pause doubles each time."),
    http: z
      .strictObject({
        host: host.default("127.0.0.1").describe("The address to listen on; 0.0.0.0 is every one of this machine."),
        port: port.describe("The TCP port to listen on; 0 takes any free one."),
      })
      .optional()
      .describe("Health and metrics of the agent over HTTP; not served unless given."),
    log,
    devices: z.array(device(registry)).describe("The devices that this edge reads."),
  });
}

/** An edge's configuration: durations in milliseconds, sizes in bytes, paths absolute, secrets wrapped. */
export type EdgeConfig = z.output<ReturnType<typeof edgeSchema>>;

function uplink(folder: string) {
  return z.strictObject({
    url: url(["mqtt", "mqtts", "ws", "wss"], "mqtts://broker.plant.example:8883").describe("The broker's address."),
    user: z.string().min(1).optional().describe("The MQTT user; the edge's name by default."),
    password: secret.optional().describe('The MQTT password, best as "${env:NAME}" or "${file:/path}".'),
    ca: path(folder)
      .optional()
      .describe(
        "The certificate authority (PEM file) that signed the broker's certificate; the system's own by default.",
      ),
    mqtt_version: mqttVersion,
    window: z
      .int()
      .min(1)
      .max(1000)
      .default(16)
      .describe("How many frames may be under way, not yet acknowledged by the cloud."),
    acknowledge_timeout: positiveDuration
      .prefault("10 s")
      .describe("A frame that is not acknowledged within this time is sent again."),
  });
}

/** Less would hold no two frames of the largest size. */
const minBufferBytes = 1024 * 1024;

function buffer(folder: string) {
  return z.strictObject({
    path: path(folder).describe("The folder that holds the buffer."),
    max_size: size
      .refine((bytes) => bytes >= minBufferBytes, { error: () => "1 MiB or more" })
      .prefault("1 GiB")
      .describe("The most disk space that the buffer takes; at least 1 MiB."),
    when_full: z
      .enum(["drop_oldest", "stop_collecting"])
      .default("drop_oldest")
      .describe(
        "What to give up when the buffer is full: the oldest readings, or new ones. Either is recorded as a gap.",
      ),
  });
}

const frame = z.strictObject({
  max_readings: z.int().min(1).max(65536).default(8192).describe("The most readings in one frame."),
  linger: duration
    .prefault("1 s")
    .describe(
      "The longest a reading waits for others before its frame is closed and written to disk. Longer: fewer bytes on the wire; shorter: readings are sooner safe and sooner seen.",
    ),
});

const reconnect = z.strictObject({
  first: positiveDuration.prefault("1 s").describe("The pause before the first new attempt."),
  longest: positiveDuration.prefault("30 s").describe("The longest pause between two attempts."),
});
