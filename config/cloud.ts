import { z } from "zod";
import { name } from "../protocols/device.ts";
import { size } from "../protocols/quantity.ts";
import { secret } from "../protocols/secret.ts";
import { host, log, mqttVersion, path, port, positiveDuration, url } from "./settings.ts";

/**
 * The schema of the cloud service's file.
 * @param folder the file's folder: paths in the file are relative to it
 */
export function cloudSchema(folder: string) {
  return z.strictObject({
    broker: z
      .union([embeddedBroker, externalBroker(folder)])
      .describe("The MQTT broker that the edges send to: `embedded` runs one here, `url` names one elsewhere."),
    edges: z.array(edge).prefault([]).describe("The edges that may send."),
    store: z
      .union([embeddedStore(folder), postgresStore(folder)])
      .describe("Where readings are stored: `embedded` keeps them in a folder, `url` in TimescaleDB or PostgreSQL."),
    http: http.prefault({}).describe("The API and the console."),
    retention: retention.prefault({}).describe("How long data is kept."),
    ingest: ingest.prefault({}).describe("How frames become rows."),
    log,
  });
}

/** The cloud's configuration: durations in milliseconds, sizes in bytes, paths absolute, secrets wrapped. */
export type CloudConfig = z.output<ReturnType<typeof cloudSchema>>;

const brokerUser = z
  .string()
  .min(1)
  .default("cloud")
  .describe("The user as which the cloud service logs in to the broker.");

const embeddedBroker = z.strictObject({
  embedded: z
    .strictObject({
      host: host.default("127.0.0.1").describe("The address to listen on; 0.0.0.0 is every one of this machine."),
      port: port.default(1883).describe("The TCP port to listen on; 0 takes any free one."),
    })
    .describe("A broker of our own, for which `edges` lists users and passwords."),
  user: brokerUser,
  password: secret
    .optional()
    .describe(
      "That user's password. Needed when the broker runs as a process of its own; made up at each start otherwise.",
    ),
});

function externalBroker(folder: string) {
  return z.strictObject({
    url: url(["mqtt", "mqtts", "ws", "wss"], "mqtts://broker.plant.example:8883").describe("The broker's address."),
    user: brokerUser,
    password: secret.optional().describe('That user\'s password, best as "${env:NAME}" or "${file:/path}".'),
    ca: path(folder)
      .optional()
      .describe(
        "The certificate authority (PEM file) that signed the broker's certificate; the system's own by default.",
      ),
    mqtt_version: mqttVersion,
  });
}

const edge = z.strictObject({
  name: name.describe("The edge's name, and its MQTT user."),
  password: secret.optional().describe("The edge's MQTT password; the embedded broker lets nobody in without."),
  description: z.string().optional().describe("Where the edge stands and what it reads, for people."),
});

function embeddedStore(folder: string) {
  return z.strictObject({
    embedded: z
      .strictObject({ path: path(folder).describe("The folder that holds the database.") })
      .describe("A PostgreSQL inside the cloud service, for a first look and for small plants."),
  });
}

function postgresStore(folder: string) {
  return z.strictObject({
    url: url(["postgres", "postgresql"], "postgres://db.plant.example:5432/millrace").describe(
      "The address of TimescaleDB or PostgreSQL, with the name of the database.",
    ),
    user: z.string().min(1).optional().describe("The database user; the one in `url` by default."),
    password: secret.optional().describe('That user\'s password, best as "${env:NAME}" or "${file:/path}".'),
    ca: path(folder)
      .optional()
      .describe("The certificate authority (PEM file) that signed the server's certificate; with it, TLS is demanded."),
  });
}

const http = z.strictObject({
  host: host.default("127.0.0.1").describe("The address to listen on; 0.0.0.0 is every one of this machine."),
  port: port.default(8080).describe("The TCP port to listen on; 0 takes any free one."),
});

const retention = z.strictObject({
  readings: positiveDuration.optional().describe("How long readings are kept; for ever by default."),
  frame_log: positiveDuration
    .prefault("30 d")
    .describe(
      "How long the raw frames are kept, from which readings can be made anew after a wrong scale was corrected.",
    ),
});

const ingest = z.strictObject({
  max_rows_per_transaction: z
    .int()
    .min(1)
    .default(200_000)
    .describe("The most readings that are committed together; one frame is never split."),
  max_pending: size.prefault("64 MiB").describe("The most memory for frames that wait to be committed."),
});
