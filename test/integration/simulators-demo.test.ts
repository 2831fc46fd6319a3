import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import modbus from "modbus-serial";
import { OPCUACertificateManager } from "node-opcua-certificate-manager";
import { OPCUAClient, StatusCodes } from "node-opcua-client";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadEdge } from "../../config/load.ts";
import { type ModbusTcpDevice, sizeOf, typeOf } from "../../protocols/modbus/config.ts";
import type { OpcuaDevice } from "../../protocols/opcua/config.ts";
import type { Value } from "../../protocols/reading.ts";
import { protocols } from "../../protocols/registry.ts";
import { type RunningPlant, startPlant } from "../../simulators/main.ts";
import { Plant } from "../../simulators/plant/plant.ts";
import { type MappedRegister, plantUnits } from "../../simulators/register-map.ts";

/** The demonstration's device map against the plant that it reads. */
const log = pino({ level: "silent" });
const file = join(import.meta.dirname, "../../config/examples/demo/edge.yaml");
let plant: RunningPlant;
let opcuaDevices: OpcuaDevice[];
let modbusDevices: ModbusTcpDevice[];

beforeAll(async () => {
  // So slow that the plant's first step is days away: every value stands still and can be compared.
  plant = await startPlant({ log, speed: 1e-6 });
  const [host, port] = plant.addresses.modbus.split(":");
  const { devices } = loadEdge(file, {
    MILLRACE_SIM_OPCUA: plant.addresses.opcua,
    MILLRACE_SIM_MODBUS_HOST: host,
    MILLRACE_SIM_MODBUS_PORT: port,
    MILLRACE_BROKER_URL: "mqtt://127.0.0.1:1883",
    MILLRACE_EDGE_PASSWORD: "a password",
    MILLRACE_EDGE_DATA: "data",
    MILLRACE_EDGE_HTTP_PORT: "0",
  });
  opcuaDevices = devices.filter((device) => device.protocol === "opcua") as OpcuaDevice[];
  modbusDevices = devices.filter((device) => device.protocol === "modbus-tcp") as ModbusTcpDevice[];
});

afterAll(() => plant.stop());

describe("the demonstration's device map", () => {
  it("names every signal of the plant, with its unit", () => {
    const mapped = [...opcuaDevices, ...modbusDevices].flatMap((device) =>
      device.tags.map((tag) => `${device.name}.${tag.name} ${tag.unit ?? ""}`),
    );
    const { signals } = new Plant({ seed: 1, firstBatch: 1, year: 2026 });
    expect(mapped.sort()).toEqual([...signals.values()].map(({ name, unit }) => `${name} ${unit ?? ""}`).sort());
  });

  it("has the registers, types, orders and scales that the plant has", () => {
    const place = (unit: number, { signal, table, address, ...register }: MappedRegister, order: string) => {
      const { type, bit = "", length = 0, scale = 1 } = register;
      const wide = /(32|64)$/.test(type);
      return [unit, signal, table, address, type === "bit" ? `bit ${bit}` : type, length, wide ? order : "", scale];
    };
    const expected = plantUnits.flatMap((unit) =>
      unit.registers.map((register) => place(unit.id, register, unit.order).join(" ")),
    );
    const mapped = modbusDevices.flatMap((device) =>
      device.tags.map((tag) => {
        const type = typeOf(tag);
        const register = {
          signal: tag.name,
          ...tag.register,
          type: type === "boolean" ? ("bit" as const) : (type as MappedRegister["type"]),
          bit: tag.bit,
          length: tag.length && tag.length / 2,
          scale: tag.scale,
        };
        return place(tag.unit_id ?? device.unit_id, register, tag.order ?? "ABCD").join(" ");
      }),
    );
    expect(mapped.sort()).toEqual(expected.sort());
  });

  it("is answered by every node, with the kind of value that it says", async () => {
    const folder = await mkdtemp(join(tmpdir(), "millrace-test-"));
    const clientCertificateManager = new OPCUACertificateManager({ rootFolder: folder });
    const client = OPCUAClient.create({ clientCertificateManager, endpointMustExist: false });
    await client.connect(plant.addresses.opcua);
    const session = await client.createSession();
    const index = (await session.readNamespaceArray()).indexOf("urn:millrace:plant");
    const tags = opcuaDevices.flatMap((device) => device.tags);
    const values = await session.read(
      tags.map(({ node }) => ({ nodeId: node.replace("nsu=urn:millrace:plant;", `ns=${index};`) })),
    );
    const kinds = { number: "number", boolean: "boolean", string: "text" } as const;
    for (const [position, { statusCode, value }] of values.entries()) {
      const tag = tags[position]!;
      expect(statusCode, tag.node).toBe(StatusCodes.Good);
      const kind = kinds[typeof value.value as keyof typeof kinds];
      expect([kind, "any"], tag.node).toContain(tag.type);
    }
    await session.close();
    await client.disconnect();
    await rm(folder, { recursive: true, force: true });
  });

  it("is answered by every register", async () => {
    const [host, port] = plant.addresses.modbus.split(":");
    const client = new modbus.default();
    await client.connectTCP(host!, { port: Number(port) });
    const read = {
      holding: (address: number, count: number) => client.readHoldingRegisters(address, count),
      input: (address: number, count: number) => client.readInputRegisters(address, count),
      coil: (address: number, count: number) => client.readCoils(address, count),
      discrete: (address: number, count: number) => client.readDiscreteInputs(address, count),
    };
    for (const device of modbusDevices) {
      for (const tag of device.tags) {
        client.setID(tag.unit_id ?? device.unit_id);
        const { table, address } = tag.register;
        await read[table](address, sizeOf(tag));
      }
    }
    await new Promise<void>((resolve) => client.close(() => resolve()));
  });

  it("is read by the edge's drivers as the plant shows it", async () => {
    const response = await fetch(`${plant.addresses.control}/state`);
    const { signals } = (await response.json()) as { signals: Record<string, Value> };
    const [opcua, modbusTcp] = await Promise.all([protocols.opcua.load(), protocols["modbus-tcp"].load()]);
    const context = { log, overflow: () => {} };
    const drivers = [
      ...opcuaDevices.map((device) => [device, opcua.driver(device as never, context)] as const),
      ...modbusDevices.map((device) => [device, modbusTcp.driver(device as never, context)] as const),
    ];
    const read: Record<string, Value> = {};
    await Promise.all(
      drivers.map(async ([device, driver]) => {
        const enough = new AbortController();
        const missing = new Set(device.tags.map((tag) => tag.name));
        try {
          await driver.connect(enough.signal);
          for await (const readings of driver.readings(enough.signal)) {
            for (const { tag, value } of readings) {
              read[`${device.name}.${tag}`] = value;
              missing.delete(tag);
            }
            if (missing.size === 0) enough.abort();
          }
        } finally {
          await driver.close();
        }
      }),
    );
    expect(Object.keys(read).sort()).toEqual(Object.keys(signals).sort());
    for (const [name, value] of Object.entries(signals)) {
      if (typeof value !== "number") expect(read[name], name).toBe(value);
      // Single precision.
      else expect(Math.abs(Number(read[name]) - value), name).toBeLessThan(1e-6 + Math.abs(value) * 1e-6);
    }
  });
});
