import { z } from "zod";
import { deviceFields, tagFields, type ValueKind } from "../device.ts";
import { duration } from "../quantity.ts";

/** The four tables of a Modbus device, by the names of its register lists. */
export const tables = ["holding", "input", "coil", "discrete"] as const;
export type Table = (typeof tables)[number];

/** One place in a device: a table and the protocol address in it, counted from 0 as it goes over the wire. */
export interface Register {
  readonly table: Table;
  readonly address: number;
}

/** How the bytes of one value are understood. `boolean` is a coil, a discrete input, or one `bit` of a register. */
export const types = [
  "boolean",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "float32",
  "float64",
  "string",
] as const;
export type Type = (typeof types)[number];

/**
 * In which order the bytes of a value arrive, A being the most significant one (of a string: the first character).
 * The four-letter names say what is swapped and go with every width: CDAB the registers, BADC the two bytes in each
 * register, DCBA both. The names of two and eight letters say the same for 16 and 64 bits.
 */
export const orders = [
  "ABCD",
  "CDAB",
  "BADC",
  "DCBA",
  "AB",
  "BA",
  "ABCDEFGH",
  "GHEFCDAB",
  "BADCFEHG",
  "HGFEDCBA",
] as const;
export type Order = (typeof orders)[number];

/** The most that one request can read (Modbus Application Protocol V1.1b3, 6.1 to 6.4). */
export const maxRegisters = 125;
export const maxBits = 2000;

const registerText = new RegExp(`^\\s*(${tables.join("|")})\\s+(\\d{1,5})\\s*$`);

const register = z
  .string({ error: (issue) => registerHint(issue.input) })
  .regex(registerText, { error: (issue) => registerHint(issue.input) })
  .transform((text, context): Register => {
    const [, table, digits] = registerText.exec(text)!;
    const address = Number(digits);
    if (address > 0xffff) context.addIssue({ code: "custom", message: registerHint(text), input: text });
    return { table: table as Table, address };
  })
  .meta({ examples: ["holding 100", "input 30", "coil 5", "discrete 7"] });

/** What to write, for someone who wrote something else; the numbers of a manual (40101) are translated. */
function registerHint(input: unknown): string {
  const manual = /^\s*([0134])(\d{4,5})\s*$/.exec(String(input));
  const place = manual ? Number(manual[2]) - 1 : -1;
  if (manual && place >= 0 && place <= 0xffff) {
    const table = { "0": "coil", "1": "discrete", "3": "input", "4": "holding" }[manual[1]!];
    return `a table and an address counted from 0: what a manual numbers ${manual[0].trim()} is "${table} ${place}"`;
  }
  return 'a table and an address counted from 0 (to 65535), such as "holding 100", "input 30", "coil 5" or "discrete 7"';
}

const unitId = z
  .int({ error: () => "a unit id, 0 to 255" })
  .min(0, { error: () => "a unit id, 0 to 255" })
  .max(255, { error: () => "a unit id, 0 to 255" });

const scan = duration.refine((ms) => ms >= 10 && ms <= 86_400_000, { error: () => "a time from 10 ms to 1 d" });

const nonZero = z.number().refine((factor) => factor !== 0, { error: () => "a factor other than 0" });

/** One tag of a Modbus device: where it stands, how its bytes are understood, and how often it is read. */
export const modbusTag = z
  .strictObject({
    ...tagFields,
    register: register.describe(
      "Table and address, counted from 0 as on the wire: `holding 100` (function code 3), `input 30` (4), `coil 5` (1), `discrete 7` (2). What a manual calls 40101 is `holding 100`.",
    ),
    unit_id: unitId.optional().describe("The unit behind the address; the device's `unit_id` by default."),
    type: z
      .enum(types, { error: () => `one of ${types.join(", ")}` })
      .optional()
      .describe("How the value is coded; `uint16` by default for registers, `boolean` for coils, discretes and bits."),
    order: z
      .enum(orders, { error: () => `one of ${orders.join(", ")}` })
      .optional()
      .describe(
        "Byte order, A the most significant: `ABCD` (default), `CDAB` (registers swapped), `BADC` (bytes swapped in each register), `DCBA` (both), at any width.",
      ),
    length: z
      .int()
      .min(1)
      .max(maxRegisters * 2)
      .optional()
      .describe("Of a string: its length in bytes, two to a register."),
    bit: z
      .int({ error: () => "a bit, 0 (the least significant) to 15" })
      .min(0, { error: () => "a bit, 0 (the least significant) to 15" })
      .max(15, { error: () => "a bit, 0 (the least significant) to 15" })
      .optional()
      .describe("One bit of a register as a boolean, 0 being the least significant."),
    scale: nonZero.optional().describe("The reading is raw value × scale + offset; 1 by default."),
    offset: z.number().optional().describe("Added after `scale`; 0 by default."),
    scan: scan.optional().describe("How often this tag is read; the device's `scan` by default."),
  })
  .superRefine((tag, context) => {
    const say = (key: keyof typeof tag, message: string) =>
      context.addIssue({ code: "custom", path: [key], message, input: tag[key] });
    const { table, address } = tag.register;
    const type = typeOf(tag);
    const onBits = table === "coil" || table === "discrete";
    const numeric = type !== "boolean" && type !== "string";

    if (onBits && tag.bit !== undefined) say("bit", `no bit, because a ${table} is a single bit already`);
    if (onBits && type !== "boolean") say("type", `no type (or boolean), because a ${table} is a single bit`);
    if (onBits && tag.order !== undefined) say("order", `no order, because a ${table} is a single bit`);
    if (!onBits && tag.bit !== undefined && type !== "boolean") {
      say("type", "no type (or boolean), because bit picks one bit of the register");
    }
    if (!onBits && tag.bit === undefined && type === "boolean") {
      say("bit", "the bit, 0 (the least significant) to 15, because the type is boolean");
    }
    if (type === "string" && tag.length === undefined) say("length", "the string's length in bytes, 1 to 250");
    if (type !== "string" && tag.length !== undefined) say("length", "no length, because the type is not string");
    if (!numeric && tag.scale !== undefined) say("scale", `no scale, because the value is a ${type}`);
    if (!numeric && tag.offset !== undefined) say("offset", `no offset, because the value is a ${type}`);
    if (tag.order !== undefined && !onBits) {
      const fitting = ordersOf(type);
      if (!fitting.includes(tag.order)) say("order", `one of ${fitting.join(", ")} for ${type}`);
    }
    if (address + sizeOf(tag) > 0x10000) {
      say("register", `an address that leaves room for the whole value: at most ${table} ${0x10000 - sizeOf(tag)}`);
    }
  });

/** A tag as it stands after parsing. */
export type ModbusTag = z.output<typeof modbusTag>;

/** Everything that a device on Modbus TCP can say. */
export const modbusTcpDevice = z
  .strictObject({
    protocol: z.literal("modbus-tcp"),
    ...deviceFields,
    host: z
      .string({ error: () => "a host name or address, such as 10.0.5.20" })
      .min(1, { error: () => "a host name or address, such as 10.0.5.20" })
      .describe("Host name or address of the device, or of the gateway before it."),
    port: z
      .int({ error: () => "a TCP port, 1 to 65535" })
      .min(1, { error: () => "a TCP port, 1 to 65535" })
      .max(65535, { error: () => "a TCP port, 1 to 65535" })
      .default(502)
      .describe("TCP port. Devices with the same host and port share one connection, one request at a time."),
    unit_id: unitId.default(1).describe("The unit that the tags belong to, unless they say otherwise."),
    scan: scan.prefault("1 s").describe("How often the tags are read, unless they say otherwise."),
    timeout: duration
      .refine((ms) => ms >= 10 && ms <= 60_000, { error: () => "a time from 10 ms to 60 s" })
      .prefault("1 s")
      .describe("How long to wait for an answer, and for the connection."),
    max_registers: z
      .int()
      .min(1)
      .max(maxRegisters, { error: () => "1 to 125 registers (125 is the protocol's own limit)" })
      .default(maxRegisters)
      .describe("The most registers that the device gives in one answer."),
    max_gap: z
      .int()
      .min(0)
      .max(maxRegisters)
      .default(32)
      .describe(
        "Unused registers that are read along rather than asking twice (of coils and discretes: 16 times as many).",
      ),
    tags: z
      .array(modbusTag)
      .min(1, { error: () => "at least one tag" })
      .describe("What is read."),
  })
  .superRefine((device, context) => {
    for (const [index, tag] of device.tags.entries()) {
      const onBits = tag.register.table === "coil" || tag.register.table === "discrete";
      if (onBits || sizeOf(tag) <= device.max_registers) continue;
      const message = `a value of at most ${device.max_registers} registers (max_registers), as it is read in one piece`;
      context.addIssue({
        code: "custom",
        path: ["tags", index, tag.length ? "length" : "type"],
        message,
        input: device,
      });
    }
  });

/** A device as it stands after parsing. */
export type ModbusTcpDevice = z.output<typeof modbusTcpDevice>;

/** A tag's type, with the default applied. */
export function typeOf(tag: Pick<ModbusTag, "register" | "type" | "bit">): Type {
  if (tag.type !== undefined) return tag.type;
  const { table } = tag.register;
  return table === "coil" || table === "discrete" || tag.bit !== undefined ? "boolean" : "uint16";
}

const registersOf = {
  boolean: 1,
  int16: 1,
  uint16: 1,
  int32: 2,
  uint32: 2,
  float32: 2,
  int64: 4,
  uint64: 4,
  float64: 4,
};

/** How many registers (of a coil or discrete: bits) a tag's value takes. */
export function sizeOf(tag: Pick<ModbusTag, "register" | "type" | "bit" | "length">): number {
  const type = typeOf(tag);
  return type === "string" ? Math.ceil((tag.length ?? 1) / 2) : registersOf[type];
}

/** The names of the byte orders that make sense for a type. */
function ordersOf(type: Type): readonly Order[] {
  if (type === "string") return ["ABCD", "BADC", "AB", "BA"];
  const size = registersOf[type];
  const any = ["ABCD", "CDAB", "BADC", "DCBA"] as const;
  if (size === 1) return ["AB", "BA", ...any];
  return size === 2 ? any : ["ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", ...any];
}

/** The kind of value that a tag yields. */
export function modbusValueKind(tag: ModbusTag): ValueKind {
  const type = typeOf(tag);
  if (type === "boolean") return "boolean";
  return type === "string" ? "text" : "number";
}
