import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt, { type MqttClient } from "mqtt";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadEdge } from "../../config/load.ts";
import { topics } from "../../protocols/uplink/topics.ts";
import { createServerDatabase, type ServerDatabase, serverUrl } from "../contract/store-databases.ts";
import {
  type ComposeService,
  environmentOf,
  healthCommand,
  imageEnvironment,
  mountedAt,
  readCompose,
  resolved,
} from "./rig/compose.ts";
import { Mosquitto, mosquittoIsHere } from "./rig/mosquitto.ts";
import { freePort } from "./rig/port.ts";
import { RigProcess } from "./rig/process.ts";

/**
 * The topology of docker-compose.yml as plain processes: the same configuration files, commands, users and environment,
 * with addresses, ports and paths of this machine in place of the containers'.
 */
const { services } = readCompose();
const missing = [
  ...(mosquittoIsHere() ? [] : ["install mosquitto"]),
  ...(serverUrl === undefined ? ["set MILLRACE_TEST_POSTGRES_URL to a superuser's URL of a TimescaleDB"] : []),
];
const patience = { timeout: 25_000, interval: 100 };
const newPassword = () => randomBytes(24).toString("hex");
const secrets = {
  MILLRACE_DATABASE_PASSWORD: newPassword(),
  MILLRACE_CLOUD_PASSWORD: newPassword(),
  MILLRACE_EDGE_PASSWORD: newPassword(),
};
/** An edge beside the one of the compose file: what it must not do is tried. */
const stranger = { user: "line-9", password: newPassword() };

let folder: string;
let database: ServerDatabase;
let brokerUrl: string;
let broker: Mosquitto;
let plant: RigProcess;
let cloud: RigProcess;
let edge: RigProcess;
let plantAddresses: Record<string, string>;
let cloudHttp: string;
let edgeHttp: string;

/** A service's command on this machine. */
function processOf(name: string, addresses: Record<string, string>): RigProcess {
  const service = services[name]!;
  const environment = environmentOf(service, secrets);
  for (const address of Object.keys(addresses)) expect(environment, `of ${name}`).toHaveProperty(address);
  return new RigProcess("millrace.ts", argumentsOf(service), { ...environment, ...addresses }, join(folder, name));
}

/** Mounted paths become the files that are mounted, fixed ports any free one. */
function argumentsOf(service: ComposeService): string[] {
  return service.command!.map((argument, index, all) => {
    if (argument.startsWith("/")) return mountedAt(service, argument);
    return all[index - 1]?.endsWith("-port") ? "0" : argument;
  });
}

async function startTopology(): Promise<void> {
  folder = await mkdtemp(join(tmpdir(), "millrace-deployment-"));
  database = await createServerDatabase();
  const port = await freePort();
  brokerUrl = `mqtt://127.0.0.1:${port}`;
  const known = resolved(services.mosquitto!.environment!.MOSQUITTO_USERS!, secrets);
  const users = `${known}${stranger.user}:${stranger.password}\n`;
  broker = new Mosquitto(services.mosquitto!, { port, users, folder });
  plant = processOf("simulators", {});
  // The server may ask for a password of its own; then it stands in the URL.
  const { password } = new URL(database.url);
  cloud = processOf("cloud", {
    MILLRACE_BROKER_URL: brokerUrl,
    MILLRACE_DATABASE_URL: database.url,
    ...(password && { MILLRACE_DATABASE_PASSWORD: decodeURIComponent(password) }),
    MILLRACE_HTTP_PORT: "0",
  });
  [plantAddresses] = await Promise.all([plant.start(), broker.start()]);
  edge = processOf("edge", {
    MILLRACE_BROKER_URL: brokerUrl,
    MILLRACE_EDGE_DATA: join(folder, "buffer"),
    MILLRACE_EDGE_HTTP_PORT: "0",
    // By name, as in the compose file: the simulators listen on every address and know none of their own.
    MILLRACE_SIM_OPCUA: `opc.tcp://localhost:${new URL(plantAddresses.opcua!).port}`,
    MILLRACE_SIM_MODBUS_HOST: "localhost",
    MILLRACE_SIM_MODBUS_PORT: plantAddresses.modbus!.split(":")[1]!,
  });
  const [cloudAddresses, edgeAddresses] = await Promise.all([cloud.start(), edge.start()]);
  cloudHttp = cloudAddresses.http!;
  edgeHttp = edgeAddresses.http!;
}

function login(user: string | undefined, password: string | undefined): Promise<MqttClient> {
  const options = { protocolVersion: 5, reconnectPeriod: 0, username: user, password } as const;
  return mqtt.connectAsync(brokerUrl, options, false);
}

/** The reason code with which the broker refuses; "granted" when it does not. */
async function outcome(attempt: Promise<unknown>): Promise<unknown> {
  return attempt.then(
    () => "granted",
    (error: { code?: unknown }) => error.code,
  );
}
const notAuthorized = 0x87;

interface EdgeReport {
  readonly broker: string;
  readonly buffer: { readonly frames: number };
}

async function edgeReport(): Promise<EdgeReport> {
  return (await (await fetch(`${edgeHttp}/health/ready`)).json()) as EdgeReport;
}

interface StreamReport {
  readonly frames: number;
  readonly last_seq: number;
  readonly missing: readonly unknown[];
}

/** The cloud's account of the edge's only stream. */
async function streamReport(): Promise<StreamReport> {
  const response = await fetch(`${cloudHttp}/api/v1/edges`);
  const { items } = (await response.json()) as { items: { edge: string; streams: StreamReport[] }[] };
  expect(items).toMatchObject([{ edge: "pune-1", streams: [{}] }]);
  return items[0]!.streams[0]!;
}

/** Waits until the edge holds frames that it cannot send, and says how many. */
async function backlog(): Promise<number> {
  await expect.poll(async () => (await edgeReport()).buffer.frames, patience).toBeGreaterThanOrEqual(3);
  return (await edgeReport()).buffer.frames;
}

/** Waits until the cloud has everything up to a frame, none missing, and has acknowledged it to the edge. */
async function caughtUp(seq: number): Promise<void> {
  await expect.poll(async () => (await streamReport()).last_seq, patience).toBeGreaterThanOrEqual(seq);
  const { frames, last_seq: last, missing: holes } = await streamReport();
  expect(holes).toEqual([]);
  expect(frames).toBe(last);
  await expect.poll(async () => (await edgeReport()).buffer.frames, patience).toBeLessThanOrEqual(1);
}

/** Sum over the devices of one of the edge's counters. */
async function edgeTotal(metric: string): Promise<number> {
  const text = await (await fetch(`${edgeHttp}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `));
  expect(lines, metric).not.toEqual([]);
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

async function count(sql: string): Promise<number> {
  const [row] = await database.ask<{ count: string }>(sql);
  return Number(row!.count);
}

if (missing.length > 0) {
  it.skip(`NOT TESTED: the deployment on mosquitto and TimescaleDB, brought down and up again. ${missing.join("; ")}`);
} else {
  describe("the topology of docker-compose.yml", () => {
    const clients: MqttClient[] = [];

    beforeAll(startTopology);

    afterAll(async () => {
      await Promise.all(clients.map((client) => client.endAsync(true)));
      await Promise.all([edge, cloud, broker].map((part) => part?.end("SIGKILL")));
      await plant?.end("SIGTERM"); // it has a temporary folder to remove
      await database?.drop();
      await rm(folder, { recursive: true, force: true });
    });

    async function client(user: string, password: string): Promise<MqttClient> {
      const connected = await login(user, password);
      clients.push(connected);
      return connected;
    }

    it("brings readings of every tag into the hypertable, by MQTT 5", async () => {
      const { devices } = loadEdge(mountedAt(services.edge!, services.edge!.command![1]!), edge.env);
      const mapped = devices.flatMap((device) => device.tags.map((tag) => `${device.name}.${tag.name}`));
      const arrived = () =>
        database.ask<{ tag: string }>(
          "SELECT DISTINCT device || '.' || name AS tag FROM reading JOIN tag USING (tag_id) WHERE quality = 0",
        );
      await expect.poll(async () => (await arrived()).length, patience).toBe(mapped.length);
      expect((await arrived()).map(({ tag }) => tag).sort()).toEqual(mapped.sort());
      const hypertables = "SELECT hypertable_name AS name FROM timescaledb_information.hypertables";
      expect(await database.ask(hypertables)).toContainEqual({ name: "reading" });
      for (const user of ["cloud", "pune-1"]) expect(broker.log).toMatch(new RegExp(`\\(p5, c1, k\\d+, u'${user}'\\)`));
    });

    it("is healthy, as the image tells it", async () => {
      const addressOf = (service: string, origin: string) => {
        const { MILLRACE_HEALTH_URL: url } = { ...imageEnvironment(), ...services[service]!.environment };
        return origin + new URL(url!).pathname;
      };
      expect(await healthy(addressOf("cloud", cloudHttp))).toBe(0);
      expect(await healthy(addressOf("edge", edgeHttp))).toBe(0);
      expect(await healthy(addressOf("simulators", plantAddresses.control!))).toBe(0);
      expect(await healthy(addressOf("cloud", "http://127.0.0.1:1"))).toBe(1);
      expect(await healthy(`${cloudHttp}/nothing`)).toBe(1);
    });

    it("lets nobody in without the right password", async () => {
      expect(await outcome(client(stranger.user, stranger.password))).toBe("granted");
      expect(await outcome(login("pune-1", stranger.password))).toBe(notAuthorized);
      expect(await outcome(login("cloud", ""))).toBe(notAuthorized);
      expect(await outcome(login("line-10", stranger.password))).toBe(notAuthorized);
      expect(await outcome(login(undefined, undefined))).toBe(notAuthorized);
    });

    it("lets an edge write to its own topics alone", async () => {
      const own = topics.upward(stranger.user, "frame");
      const others = topics.upward("pune-1", "frame");
      const publish = async (who: MqttClient, topic: string) => outcome(who.publishAsync(topic, "x", { qos: 1 }));
      const other = await client(stranger.user, stranger.password);
      expect(await publish(other, own)).toBe("granted");
      expect(await publish(other, topics.upward(stranger.user, "map"))).toBe("granted");
      for (const topic of [others, topics.upward("pune-1", "map"), topics.acknowledgement("pune-1")])
        expect(await publish(other, topic), topic).toBe(notAuthorized);
      for (const topic of [topics.acknowledgement(stranger.user), topics.cloudReady, "millrace", "$SYS/broker/uptime"])
        expect(await publish(other, topic), topic).toBe(notAuthorized);
      const service = await client("cloud", secrets.MILLRACE_CLOUD_PASSWORD);
      expect(await publish(service, topics.cloudReady)).toBe("granted");
      expect(await publish(service, others)).toBe(notAuthorized);
      // The cloud has seen what the other edge sent by right, and has refused an edge that is not in its list.
      const refused = "SELECT DISTINCT edge FROM refused_message";
      await expect.poll(() => database.ask(refused), patience).toEqual([{ edge: stranger.user }]);
    });

    it("shows an edge its own acknowledgements alone", async () => {
      const [spy, witness, service] = await Promise.all([
        client(stranger.user, stranger.password),
        client("pune-1", secrets.MILLRACE_EDGE_PASSWORD),
        client("cloud", secrets.MILLRACE_CLOUD_PASSWORD),
      ]);
      const seen = { spy: new Set<string>(), witness: 0 };
      spy.on("message", (topic) => seen.spy.add(topic));
      witness.on("message", () => seen.witness++);
      const filters = [topics.acknowledgement("pune-1"), ...topics.upwardFilters, "#", "$SYS/#"];
      // A broker may refuse these at once, or grant them and then deliver nothing.
      for (const filter of filters) await spy.subscribeAsync(filter, { qos: 1 }).catch(() => undefined);
      await spy.subscribeAsync(topics.cloudReady, { qos: 1 });
      await witness.subscribeAsync(topics.acknowledgement("pune-1"), { qos: 1 });
      await expect.poll(() => seen.witness, patience).toBeGreaterThanOrEqual(3);
      await service.publishAsync(topics.cloudReady, "", { qos: 1 });
      await expect.poll(() => [...seen.spy], patience).toEqual([topics.cloudReady]);
    });

    it("loses nothing when the broker is killed and begins again with an empty memory", async () => {
      const { last_seq: before } = await streamReport();
      await broker.end("SIGKILL");
      const waiting = await backlog();
      expect((await edgeReport()).broker).toBe("away");
      await broker.start();
      await caughtUp(before + waiting);
    });

    it("loses nothing when the cloud service is killed", async () => {
      const { last_seq: before } = await streamReport();
      await cloud.end("SIGKILL");
      const waiting = await backlog();
      cloudHttp = (await cloud.start()).http!;
      await caughtUp(before + waiting);
    });

    it("has then stored each reading that the edge reported, once", async () => {
      await plant.end("SIGTERM"); // no more readings: both sides can be counted
      // All that the plant tells is good. For its end the edge itself adds a reading to each tag, null and bad.
      const good = () => count("SELECT count(*) FROM reading WHERE quality = 0");
      await expect
        .poll(async () => (await good()) - (await edgeTotal("millrace_edge_reported_total")), patience)
        .toBe(0);
      const framed = await count("SELECT sum(readings) AS count FROM frame_log");
      expect(await count("SELECT count(*) FROM reading")).toBe(framed);
      expect(await edgeTotal("millrace_edge_frames_refused_total")).toBe(0);
      expect(await database.ask("SELECT 1 FROM refused_message WHERE edge = 'pune-1'")).toEqual([]);
    });
  });
}

/** The exit code of the image's health check. */
function healthy(url: string): Promise<number | null> {
  const [command, ...args] = healthCommand();
  const path = `${join(process.execPath, "..")}:${process.env.PATH}`;
  const child = spawn(command!, args, { env: { PATH: path, MILLRACE_HEALTH_URL: url }, stdio: "ignore" });
  return new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
}
