import type { z } from "zod";
import type { ValueKind } from "./device.ts";
import type { PlannedRequest, Protocol } from "./driver.ts";
import { modbusTcpDevice, modbusValueKind } from "./modbus/config.ts";
import { opcuaDevice, opcuaValueKind } from "./opcua/config.ts";

/** What the rest of the program knows of a protocol before it is used. */
export interface ProtocolEntry {
  /** The strict schema of one device; its `protocol` is a literal, the entry's name. */
  readonly schema: z.ZodObject;
  /** Loads the driver and its libraries; called only when a device uses the protocol. */
  load(): Promise<Protocol<never>>;
  /** What would be asked of the device, offline. */
  plan(device: never): Promise<PlannedRequest[]>;
  /** The kind of value that a tag of this protocol yields, as far as its configuration tells. */
  valueKind(tag: never): ValueKind;
}

/** Every protocol by its name in the device map. To add one: a folder, and a line here. */
export const protocols = {
  opcua: {
    schema: opcuaDevice,
    load: async () => (await import("./opcua/driver.ts")).opcua(),
    plan: async (device) => (await import("./opcua/plan.ts")).plan(device),
    valueKind: opcuaValueKind,
  },
  "modbus-tcp": {
    schema: modbusTcpDevice,
    load: async () => (await import("./modbus/driver.ts")).modbusTcp(),
    plan: async (device) => (await import("./modbus/plan.ts")).plan(device),
    valueKind: modbusValueKind,
  },
} satisfies Record<string, ProtocolEntry>;
