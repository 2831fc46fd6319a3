import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { modbusTag, modbusTcpDevice, modbusValueKind } from "../../../../protocols/modbus/config.ts";

const tag = (rest: object) => modbusTag.safeParse({ name: "speed", register: "holding 100", ...rest });

/** What is said of a tag, as `path: message`. */
function complaints(rest: object): string[] {
  return (tag(rest).error?.issues ?? []).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
}

describe("a tag", () => {
  it.each([
    ["holding 100", { table: "holding", address: 100 }],
    ["input 30", { table: "input", address: 30 }],
    ["coil 0", { table: "coil", address: 0 }],
    [" discrete  65535 ", { table: "discrete", address: 65535 }],
  ])("stands at %j", (register, place) => {
    expect(tag({ register }).data?.register).toEqual(place);
  });

  it.each([
    ["40101", '"holding 100"'],
    [40101, '"holding 100"'],
    ["30031", '"input 30"'],
    ["10008", '"discrete 7"'],
    ["00006", '"coil 5"'],
    ["400101", '"holding 100"'],
    ["holding 65536", "counted from 0 (to 65535)"],
    ["holding", "counted from 0"],
    ["register 5", "counted from 0"],
    ["holding -1", "counted from 0"],
    [undefined, "counted from 0"],
    [null, "counted from 0"],
  ])("that stands at %j is told what to write", (register, hint) => {
    const said = complaints({ register });
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(hint);
  });

  it.each([
    [{ register: "coil 1", type: "int16" }, "type: no type (or boolean), because a coil is a single bit"],
    [{ register: "coil 1", bit: 3 }, "bit: no bit, because a coil is a single bit already"],
    [{ register: "discrete 1", order: "AB" }, "order: no order, because a discrete is a single bit"],
    [{ type: "boolean" }, "bit: the bit, 0 (the least significant) to 15, because the type is boolean"],
    [{ type: "int16", bit: 3 }, "type: no type (or boolean), because bit picks one bit of the register"],
    [{ bit: 16 }, "bit: a bit, 0 (the least significant) to 15"],
    [{ type: "string" }, "length: the string's length in bytes, 1 to 250"],
    [{ length: 4 }, "length: no length, because the type is not string"],
    [{ type: "string", length: 4, scale: 2 }, "scale: no scale, because the value is a string"],
    [{ bit: 1, offset: 2 }, "offset: no offset, because the value is a boolean"],
    [{ scale: 0 }, "scale: a factor other than 0"],
    [{ type: "int32", order: "AB" }, "order: one of ABCD, CDAB, BADC, DCBA for int32"],
    [{ type: "string", length: 4, order: "CDAB" }, "order: one of ABCD, BADC, AB, BA for string"],
    [
      { register: "holding 65535", type: "int32" },
      "register: an address that leaves room for the whole value: at most holding 65534",
    ],
    [{ unit_id: 256 }, "unit_id: a unit id, 0 to 255"],
    [{ type: "int8" }, "type: one of boolean, int16, uint16, int32, uint32, int64, uint64, float32, float64, string"],
    [{ scan: "1 ms" }, "scan: a time from 10 ms to 1 d"],
  ])("with %j is told what to write", (rest, said) => {
    expect(complaints(rest)).toEqual([said]);
  });

  it.each([
    [{}, "number"],
    [{ type: "float64" }, "number"],
    [{ bit: 3 }, "boolean"],
    [{ register: "coil 1" }, "boolean"],
    [{ register: "discrete 1", type: "boolean" }, "boolean"],
    [{ type: "string", length: 8 }, "text"],
  ])("with %j yields a %s", (rest, kind) => {
    expect(modbusValueKind(tag(rest).data!)).toBe(kind);
  });
});

describe("a device", () => {
  const base = {
    protocol: "modbus-tcp",
    name: "drive",
    host: "10.0.5.20",
    tags: [{ name: "a", register: "holding 1" }],
  };

  it("needs a host and a tag, and has defaults for the rest", () => {
    expect(modbusTcpDevice.parse(base)).toMatchObject({
      port: 502,
      unit_id: 1,
      scan: 1000,
      timeout: 1000,
      max_registers: 125,
      max_gap: 32,
    });
    expect(modbusTcpDevice.safeParse({ ...base, tags: [] }).error?.issues[0]?.message).toBe("at least one tag");
  });

  it("cannot have values that its answers have no room for", () => {
    const tags = [
      { name: "a", register: "holding 1", type: "float64" },
      { name: "b", register: "coil 1" },
    ];
    const { error } = modbusTcpDevice.safeParse({ ...base, max_registers: 3, tags });
    expect(error?.issues.map(({ path, message }) => [path.join("."), message])).toEqual([
      ["tags.0.type", "a value of at most 3 registers (max_registers), as it is read in one piece"],
    ]);
  });

  it("does not take an unknown option", () => {
    expect(modbusTcpDevice.safeParse({ ...base, unitid: 3 }).success).toBe(false);
  });
});

describe("README.md", () => {
  const readme = readFileSync(new URL("../../../../protocols/modbus/README.md", import.meta.url), "utf8");
  /** Without the spaces and dashes that only align a table. */
  const unaligned = readme.replace(/ *\| */g, "|").replace(/-{3,}/g, "---");

  it("has an example that is right", () => {
    const [, yaml] = /```yaml\n([\s\S]*?)```/.exec(readme)!;
    const { devices } = parse(yaml!) as { devices: unknown[] };
    expect(devices.length).toBeGreaterThan(0);
    for (const device of devices) expect(modbusTcpDevice.safeParse(device).error).toBeUndefined();
  });

  it("lists the options as the schema has them", () => {
    const schema = z.toJSONSchema(modbusTcpDevice, { io: "input" });
    const { tags, protocol: _, ...device } = schema.properties as Record<string, z.core.JSONSchema.JSONSchema>;
    expect(unaligned).toContain(optionsTable(device, schema.required!));
    const item = tags!.items as z.core.JSONSchema.JSONSchema;
    expect(unaligned).toContain(optionsTable(item.properties as typeof device, item.required!));
  });
});

/** The options of one object as a Markdown table. */
function optionsTable(options: Record<string, z.core.JSONSchema.JSONSchema>, required: readonly string[]): string {
  const rows = Object.entries(options).map(([name, { default: value, description }]) => {
    const standard = required.includes(name) ? "required" : value === undefined ? "" : `\`${value}\``;
    return `|\`${name}\`|${standard}|${description}|\n`;
  });
  return `|option|default|meaning|\n|---|---|---|\n${rows.join("")}`;
}
