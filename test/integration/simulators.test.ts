import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import modbus from "modbus-serial";
import { OPCUACertificateManager } from "node-opcua-certificate-manager";
import {
  AttributeIds,
  ClientMonitoredItemGroup,
  type ClientSession,
  DataType,
  type DataValue,
  MessageSecurityMode,
  OPCUAClient,
  SecurityPolicy,
  StatusCodes,
  TimestampsToReturn,
} from "node-opcua-client";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { FaultError, type PlantServiceOptions, type RunningPlant, startPlant } from "../../simulators/main.ts";

const log = pino({ level: "silent" });
const closing: (() => Promise<unknown>)[] = [];
let folder: string;
let certificates: OPCUACertificateManager;
/** A sound plant for the tests that only read. */
let sound: RunningPlant;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-test-"));
  certificates = new OPCUACertificateManager({ rootFolder: folder, automaticallyAcceptUnknownCertificate: true });
  await certificates.initialize();
  sound = await startPlant({ log });
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

afterAll(async () => {
  await sound.stop();
  await certificates.dispose();
  await rm(folder, { recursive: true, force: true });
});

async function start(options: Partial<PlantServiceOptions> = {}): Promise<RunningPlant> {
  const plant = await startPlant({ log, ...options });
  closing.push(() => plant.stop());
  return plant;
}

async function openSession(endpoint: string, secure = false): Promise<ClientSession> {
  const client = OPCUAClient.create({
    clientCertificateManager: certificates,
    endpointMustExist: false,
    connectionStrategy: { maxRetry: 0 },
    securityMode: secure ? MessageSecurityMode.SignAndEncrypt : MessageSecurityMode.None,
    securityPolicy: secure ? SecurityPolicy.Basic256Sha256 : SecurityPolicy.None,
  });
  await client.connect(endpoint);
  const session = await client.createSession();
  closing.push(async () => {
    await session.close().catch(() => {});
    await client.disconnect();
  });
  return session;
}

async function openModbus(address: string, unit: number): Promise<InstanceType<typeof modbus.default>> {
  const [host, port] = address.split(":");
  const client = new modbus.default();
  await client.connectTCP(host!, { port: Number(port) });
  client.setTimeout(2000);
  client.setID(unit);
  closing.push(() => new Promise<void>((resolve) => client.close(() => resolve())));
  return client;
}

async function call(plant: RunningPlant, method: string, path: string, body?: unknown) {
  const response = await fetch(plant.addresses.control + path, {
    method,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: the tests say what they expect of each answer
  return { status: response.status, body: (await response.json()) as any };
}

async function readNode(session: ClientSession, name: string): Promise<DataValue> {
  const index = (await session.readNamespaceArray()).indexOf("urn:millrace:plant");
  return session.read({ nodeId: `ns=${index};s=${name}`, attributeId: AttributeIds.Value });
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

const portOf = (address: string) => Number(address.split(":").at(-1));

describe("OPC UA", () => {
  it("serves the process values with types, status, fresh source timestamps, units and ranges", async () => {
    const session = await openSession(sound.addresses.opcua);
    const kinds = {
      temperature: "Double",
      pressure: "Float",
      phase_number: "Int32",
      vent_valve: "Boolean",
      batch_id: "String",
    };
    for (const [name, type] of Object.entries(kinds)) {
      const read = await readNode(session, `reactor-2.${name}`);
      expect(read.statusCode, name).toBe(StatusCodes.Good);
      expect(DataType[read.value.dataType], name).toBe(type);
      expect(Date.now() - read.sourceTimestamp!.getTime(), name).toBeLessThan(2000);
    }
    expect((await readNode(session, "reactor-2.batch_id")).value.value).toBe(`B${new Date().getFullYear()}-0147`);

    const index = (await session.readNamespaceArray()).indexOf("urn:millrace:plant");
    const { references } = await session.browse(`ns=${index};s=reactor-2.temperature`);
    const property = references?.find((reference) => reference.browseName.name === "EngineeringUnits");
    const value = await session.read({ nodeId: property!.nodeId });
    expect(value.value.value).toMatchObject({ displayName: { text: "degC" }, unitId: 4408652 });
  });

  it("lets values change as the plant lives", async () => {
    const plant = await start({ speed: 600 });
    const session = await openSession(plant.addresses.opcua);
    const first = (await readNode(session, "reactor-1.mass")).value.value;
    await expect.poll(async () => (await readNode(session, "reactor-1.mass")).value.value).toBeGreaterThan(first + 100);
  });

  it("takes a signed and encrypted session too", async () => {
    const session = await openSession(sound.addresses.opcua, true);
    expect((await readNode(session, "reactor-1.phase")).value.value).toBeTypeOf("string");
  });
});

describe("Modbus TCP", () => {
  it("serves every unit with its types and byte orders", async () => {
    const line = await openModbus(sound.addresses.modbus, 1);
    const { buffer } = await line.readHoldingRegisters(40, 28);
    expect(buffer.toString("latin1", 0, 16)).toMatch(/^L26-0311\0+$/);
    expect(buffer.toString("latin1", 40, 56)).toMatch(/^PKL-7700-0042\0+$/);
    expect((await line.readHoldingRegisters(4, 2)).buffer.readFloatBE(0)).toBe(120);
    expect((await line.readHoldingRegisters(12, 4)).buffer.readBigInt64BE(0)).toBeGreaterThan(48_000_000n);
    expect((await line.readHoldingRegisters(16, 4)).buffer.readDoubleBE(0)).toBeGreaterThan(91_344);
    expect((await line.readInputRegisters(0, 4)).data.every((tenths) => tenths > 1300 && tenths < 1800)).toBe(true);
    expect((await line.readDiscreteInputs(0, 1)).data[0]).toBe(true);

    line.setID(11);
    const hours = (await line.readHoldingRegisters(8, 2)).data;
    expect(hours[0]! + 65536 * hours[1]!).toBeGreaterThan(4000);
    expect(hours[0]! + 65536 * hours[1]!).toBeLessThan(23_000);

    line.setID(21);
    const bearing = (await line.readInputRegisters(6, 1)).buffer.readInt16BE(0) / 10; // no order: a single register
    expect(bearing).toBeGreaterThan(20);
    expect(bearing).toBeLessThan(60);
    const flow = (await line.readInputRegisters(20, 2)).buffer.readFloatLE(0);
    expect(flow).toBeGreaterThan(5);
    expect(flow).toBeLessThan(60);
  });

  it("refuses what is not there: exception 2, 1, 3, and 11 for a unit", async () => {
    const client = await openModbus(sound.addresses.modbus, 1);
    await expect(client.readHoldingRegisters(24, 1)).rejects.toMatchObject({ modbusCode: 2 });
    await expect(client.readHoldingRegisters(22, 3)).rejects.toMatchObject({ modbusCode: 2 });
    await expect(client.readCoils(2, 1)).rejects.toMatchObject({ modbusCode: 2 });
    await expect(client.writeRegister(4, 100)).rejects.toMatchObject({ modbusCode: 1 });
    await expect(client.readHoldingRegisters(0, 126)).rejects.toMatchObject({ modbusCode: 3 });
    client.setID(99);
    await expect(client.readHoldingRegisters(0, 1)).rejects.toMatchObject({ modbusCode: 11 });
  });

  it("answers requests in pieces and several at once, and hangs up on what is not Modbus", async () => {
    const port = portOf(sound.addresses.modbus);
    const socket = await open(port);
    const request = (transaction: number) => Buffer.from([0, transaction, 0, 0, 0, 6, 1, 3, 0, 1, 0, 1]);
    const both = Buffer.concat([request(1), request(2)]);
    let received = "";
    socket.setEncoding("hex").on("data", (chunk) => {
      received += chunk;
    });
    for (const byte of both) socket.write(Buffer.from([byte]));
    await expect.poll(() => received).toBe("0001000000050103020001" + "0002000000050103020001");
    socket.destroy();

    const wrong = await open(port);
    wrong.write("GET / HTTP/1.1\r\n\r\n");
    await once(wrong, "close");
  });
});

describe("the plant's time", () => {
  it("passes at the given speed", async () => {
    const plant = await start({ speed: 60 });
    const before = performance.now();
    const first = (await call(plant, "GET", "/state")).body.plantSeconds;
    await expect
      .poll(async () => (await call(plant, "GET", "/state")).body.plantSeconds - first, { timeout: 5000 })
      .toBeGreaterThan(60);
    const seconds = (await call(plant, "GET", "/state")).body.plantSeconds - first;
    const elapsed = (performance.now() - before) / 1000;
    expect(seconds / elapsed).toBeGreaterThan(45);
    expect(seconds / elapsed).toBeLessThan(75);
  });

  it("refuses a speed that makes no sense", async () => {
    await expect(startPlant({ log, speed: 0 })).rejects.toThrow(RangeError);
    await expect(startPlant({ log, speed: Number.NaN })).rejects.toThrow(RangeError);
  });
});

describe("faults", () => {
  it("from the start, and over HTTP", async () => {
    const plant = await start({ faults: ["fail:reactor-1.temperature"] });
    const session = await openSession(plant.addresses.opcua);
    const failed = await readNode(session, "reactor-1.temperature");
    expect(failed.statusCode).toBe(StatusCodes.BadSensorFailure);
    expect(failed.value.value ?? null).toBeNull();

    expect(await call(plant, "DELETE", "/faults/fail:reactor-1.temperature")).toMatchObject({ status: 200 });
    await expect.poll(async () => (await readNode(session, "reactor-1.temperature")).statusCode).toBe(StatusCodes.Good);

    expect(await call(plant, "POST", "/faults", { fault: "trip:drive-2" })).toEqual({
      status: 201,
      body: { active: ["trip:drive-2"] },
    });
    const drive = await openModbus(plant.addresses.modbus, 12);
    expect((await drive.readHoldingRegisters(0, 2)).data).toEqual([expect.any(Number), 7]);
    const { body } = await call(plant, "GET", "/faults");
    expect(body.active).toEqual(["trip:drive-2"]);
    expect(body.known.map(({ kind }: { kind: string }) => kind)).toContain("bearing-wear");
    expect((await call(plant, "GET", "/state")).body).toMatchObject({ mode: "plant", faults: ["trip:drive-2"] });
  });

  it("say what is wrong with a request", async () => {
    const unknown = await call(sound, "POST", "/faults", { fault: "melt:reactor-1" });
    expect(unknown.status).toBe(400);
    expect(unknown.body.error).toMatch(/unknown fault "melt:reactor-1"; one of stuck:.*device-down:/);
    const device = await call(sound, "POST", "/faults", { fault: "device-down:plc" });
    expect(device.body.error).toMatch(/no such device; one of opcua, modbus, line-1/);
    expect((await call(sound, "POST", "/faults", "no JSON")).status).toBe(400);
    expect((await call(sound, "POST", "/faults", { fault: 1 })).status).toBe(400);
    expect((await call(sound, "POST", "/faults", "x".repeat(10_000))).status).toBe(400);
    expect((await call(sound, "DELETE", "/faults/trip:drive-1")).status).toBe(404);
    expect((await call(sound, "DELETE", "/faults/%E0%A4%A")).status).toBe(400);
    expect((await call(sound, "GET", "/nothing")).status).toBe(404);
    await expect(startPlant({ log, faults: ["melt:reactor-1"] })).rejects.toThrow(FaultError);
  });

  it("device-down: a unit is silent behind its gateway, the others answer", async () => {
    const plant = await start({ faults: ["device-down:drive-4"] });
    const client = await openModbus(plant.addresses.modbus, 14);
    await expect(client.readHoldingRegisters(0, 1)).rejects.toMatchObject({ modbusCode: 11 });
    client.setID(15);
    await client.readHoldingRegisters(0, 1);
    await call(plant, "DELETE", "/faults/device-down:drive-4");
    client.setID(14);
    await client.readHoldingRegisters(0, 1);
  });

  it("device-down: a server cuts and refuses connections, and comes back at the same address", async () => {
    const plant = await start();
    for (const [name, address] of [
      ["modbus", plant.addresses.modbus],
      ["opcua", plant.addresses.opcua],
    ] as const) {
      const held = await open(portOf(address));
      const closed = once(held, "close");
      await call(plant, "POST", "/faults", { fault: `device-down:${name}` });
      await closed;
      await expect(open(portOf(address))).rejects.toThrow("ECONNREFUSED");
      await call(plant, "DELETE", `/faults/device-down:${name}`);
      (await open(portOf(address))).destroy();
    }
    const session = await openSession(plant.addresses.opcua);
    expect((await readNode(session, "reactor-1.mass")).statusCode).toBe(StatusCodes.Good);
  });
});

describe("counter mode", () => {
  const counter = { periodMs: 10, tags: 20 };

  it("gives a subscription every count, in order, at the time at which it was due", async () => {
    const plant = await start({ counter });
    const { startedAt } = (await call(plant, "GET", "/state")).body;
    const session = await openSession(plant.addresses.opcua);
    const index = (await session.readNamespaceArray()).indexOf("urn:millrace:plant");
    const subscription = await session.createSubscription2({
      requestedPublishingInterval: 100,
      requestedLifetimeCount: 100,
      requestedMaxKeepAliveCount: 10,
      maxNotificationsPerPublish: 0,
      publishingEnabled: true,
      priority: 0,
    });
    const tags = Array.from({ length: counter.tags }, (_, tag) => `Counter.${String(tag + 1).padStart(4, "0")}`);
    const seen = tags.map((): DataValue[] => []);
    const group = ClientMonitoredItemGroup.create(
      subscription,
      tags.map((tag) => ({ nodeId: `ns=${index};s=${tag}`, attributeId: AttributeIds.Value })),
      { samplingInterval: 0, queueSize: 1000, discardOldest: true },
      TimestampsToReturn.Source,
    );
    group.on("changed", (_item, value, tag) => seen[tag]!.push(value));
    await expect.poll(() => Math.min(...seen.map((values) => values.length)), { timeout: 8000 }).toBeGreaterThan(150);
    await subscription.terminate();
    for (const values of seen) {
      const first = values[0]!.value.value as number;
      for (const [position, { value, sourceTimestamp }] of values.entries()) {
        if (value.value !== first + position) expect.fail(`${value.value} in place of ${first + position}`);
        const due = startedAt + value.value * counter.periodMs;
        if (sourceTimestamp!.getTime() !== due) expect.fail(`count ${value.value} is late or early`);
      }
    }
  });

  it("shows a reader of registers whole values, all tags alike, never going back", async () => {
    const plant = await start({ counter });
    const client = await openModbus(plant.addresses.modbus, 1);
    let last = 0;
    for (let poll = 0; poll < 200; poll++) {
      const holding = (await client.readHoldingRegisters(0, 2 * counter.tags)).buffer;
      const counts = Array.from({ length: counter.tags }, (_, tag) => holding.readUInt32BE(4 * tag));
      expect(new Set(counts).size).toBe(1);
      expect(counts[0]).toBeGreaterThanOrEqual(last);
      const input = (await client.readInputRegisters(4 * (counter.tags - 1), 4)).buffer.readDoubleBE(0);
      expect(input).toBeGreaterThanOrEqual(counts[0]!);
      last = input;
    }
    expect(last).toBeGreaterThan(1);
    await expect(client.readHoldingRegisters(2 * counter.tags, 1)).rejects.toMatchObject({ modbusCode: 2 });
  });

  it("knows only faults of devices, and refuses counters that make no sense", async () => {
    const plant = await start({ counter: { periodMs: 1000 } });
    expect((await call(plant, "GET", "/faults")).body.known).toEqual([
      expect.objectContaining({ kind: "device-down", targets: ["opcua", "modbus"] }),
    ]);
    expect((await call(plant, "POST", "/faults", { fault: "stuck:Counter.0001" })).status).toBe(400);
    await expect(startPlant({ log, counter: { periodMs: 0.5 } })).rejects.toThrow(RangeError);
    await expect(startPlant({ log, counter: { periodMs: 10, tags: 10_001 } })).rejects.toThrow(RangeError);
  });
});

describe("stopping", () => {
  it("leaves no handle, no folder and nothing on the console", async () => {
    const temporary = await mkdtemp(join(folder, "tmp-"));
    const main = join(import.meta.dirname, "../../simulators/main.ts");
    const script = `
      import { pino } from "pino";
      import { startPlant } from ${JSON.stringify(main)};
      const plant = await startPlant({ log: pino({ level: "silent" }), faults: ["device-down:opcua"] });
      await plant.stop();`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, TMPDIR: temporary },
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
      });
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    const [code] = await once(child, "close");
    clearTimeout(timer);
    expect(output).toBe("");
    expect(code).toBe(0);
    expect(await readdir(temporary)).toEqual([]);
  });

  it("is done also for what had started when a port turns out to be taken", async () => {
    const temporary = await mkdtemp(join(folder, "tmp-"));
    vi.stubEnv("TMPDIR", temporary);
    closing.push(async () => vi.unstubAllEnvs());
    // Whoever happens to call there is sent away, or the server would not close.
    const taken = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
    await once(taken, "listening");
    const address = taken.address();
    const port = address && typeof address === "object" ? address.port : 0;
    await expect(startPlant({ log, modbusPort: port })).rejects.toThrow("EADDRINUSE");
    await expect(startPlant({ log, opcuaPort: port })).rejects.toThrow("EADDRINUSE");
    await expect(startPlant({ log, controlPort: port })).rejects.toThrow("EADDRINUSE");
    taken.close();
    await once(taken, "close");
    expect(await readdir(temporary)).toEqual([]);
  });
});
