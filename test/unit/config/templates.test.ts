import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadEdge } from "../../../config/load.ts";
import { folderOf, rest } from "./files.ts";

function devices(text: string, env: Record<string, string> = {}, files: Record<string, string | Uint8Array> = {}) {
  return loadEdge(join(folderOf({ ...files, "edge.yaml": rest + text }), "edge.yaml"), env).devices;
}

describe("templates", () => {
  const template = `templates:
  drive:
    parameters: { unit: , base: 100, range: [0, 3000], host: 10.0.0.1 }
    device:
      name: drive-\${unit}
      protocol: modbus-tcp
      host: \${host}
      unit_id: \${unit}
      tags:
        - { name: speed, register: "holding \${base}", range: "\${range}" }
        - { name: torque, register: "holding \${base + 2}", unit_id: "\${unit}" }
`;

  test("one device for each item, with defaults and sums", () => {
    const made = devices(`${template}devices:
  - template: drive
    each: [{ unit: 3 }, { unit: 4, base: 200, range: [0, 10] }]
`);
    const holding = (address: number) => ({ table: "holding", address });
    expect(made).toMatchObject([
      {
        name: "drive-3",
        unit_id: 3,
        host: "10.0.0.1",
        tags: [
          { register: holding(100), range: [0, 3000] },
          { register: holding(102), unit_id: 3 },
        ],
      },
      {
        name: "drive-4",
        unit_id: 4,
        host: "10.0.0.1",
        tags: [
          { register: holding(200), range: [0, 10] },
          { register: holding(202), unit_id: 4 },
        ],
      },
    ]);
  });

  test("own keys replace the template's, own tags are added, and both may use the parameters", () => {
    const made = devices(`${template}devices:
  - template: drive
    with: { unit: 5 }
    name: pump-\${unit}
    port: 503
    tags: [{ name: extra, register: "coil \${unit}" }]
`);
    expect(made).toMatchObject([{ name: "pump-5", port: 503 }]);
    expect(made[0]!.tags.map(({ name }) => name)).toEqual(["speed", "torque", "extra"]);
    expect(made[0]!.tags[2]).toMatchObject({ register: { table: "coil", address: 5 } });
  });

  test("a parameter may come from the environment", () => {
    const made = devices(
      `${template}devices: [{ template: drive, with: { unit: "\${env:UNIT}", host: "\${env:HOST}" } }]\n`,
      {
        UNIT: "9",
        HOST: "plc",
      },
    );
    expect(made).toMatchObject([{ name: "drive-9", unit_id: 9, host: "plc" }]);
  });

  test("a quoted parameter keeps its text", () => {
    const made = devices(`${template}devices: [{ template: drive, with: { unit: 1, host: "007" } }]\n`);
    expect(made).toMatchObject([{ host: "007" }]);
  });

  test("lists of tags, in devices and in other templates", () => {
    const made = devices(`templates:
  motor:
    parameters: [name, at]
    tags:
      - { name: "\${name}_current", register: "holding \${at}" }
      - { name: "\${name}_hours", register: "holding \${at + 1}" }
  pair:
    parameters: [at]
    tags:
      - template: motor
        each: [{ name: left, at: "\${at}" }, { name: right, at: "\${at + 10}" }]
  press:
    parameters: [n]
    device: { name: "press\${n}", protocol: modbus-tcp, host: h, tags: [{ template: pair, with: { at: 300 } }] }
devices:
  - template: press
    with: { n: 1 }
  - name: lone
    protocol: modbus-tcp
    host: h
    tags:
      - { name: first, register: coil 1 }
      - { template: motor, with: { name: fan, at: 40 } }
`);
    expect(made[0]!.tags).toMatchObject([
      { name: "left_current", register: { address: 300 } },
      { name: "left_hours", register: { address: 301 } },
      { name: "right_current", register: { address: 310 } },
      { name: "right_hours", register: { address: 311 } },
    ]);
    expect(made[1]!.tags.map(({ name }) => name)).toEqual(["first", "fan_current", "fan_hours"]);
  });
});

describe("tags_from", () => {
  const device = "devices: [{ name: d, protocol: modbus-tcp, host: h, tags_from: tags.csv }]\n";
  const header = ["name", "register", "type", "range", "scale", "description"];
  const speed = {
    name: "speed",
    register: { table: "holding", address: 100 },
    type: "float32",
    range: [0, 100],
    scale: 0.1,
  };

  test.each([
    [",", "\n"],
    [";", "\r\n"],
    ["\t", "\n"],
  ])("cells separated by %j, lines by %j", (delimiter, newline) => {
    const rows = [
      header,
      ["speed", '"holding 100"', "float32", "0..100", "0.1", '"5"'],
      [],
      ["  fault ", "coil 5"],
      ["", "", "", "", "", ""],
    ];
    const csv = `\uFEFF${rows.map((row) => row.join(delimiter)).join(newline)}${newline}`;
    expect(devices(device, {}, { "tags.csv": csv })[0]!.tags).toEqual([
      { ...speed, description: "5" },
      { name: "fault", register: { table: "coil", address: 5 } },
    ]);
  });

  test("quoted cells with separators, quotes and line breaks; places after them are right", () => {
    const csv = 'name,description,register\na,"x, ""y""\nz",coil 1\nb,"µ, µ",coil x\n';
    expect(() => devices(device, {}, { "tags.csv": csv })).toThrow(
      /tags\.csv:4:10 devices\[d\]\.tags\[b\]\.register: found "coil x"/,
    );
    const tags = devices(device, {}, { "tags.csv": csv.replace("coil x", "coil 2") })[0]!.tags;
    expect(tags[0]!.description).toBe('x, "y"\nz');
  });

  test("negative and fractional ranges, and cells that only look like numbers", () => {
    const csv = "name,register,range,unit,description\na,input 1,-10..60.5,1,true\nb,input 2,-2 .. -1,,0..1\n";
    expect(devices(device, {}, { "tags.csv": csv })[0]!.tags).toMatchObject([
      { range: [-10, 60.5], unit: "1", description: "true" },
      { range: [-2, -1], description: "0..1" },
    ]);
  });

  test("after the tags of the map, and under a template with a parameter as its name", () => {
    const text = `templates:
  plc: { parameters: [list], device: { name: "\${list}", protocol: modbus-tcp, host: h, tags_from: "lists/\${list}.csv" } }
devices:
  - template: plc
    with: { list: north }
    tags: [{ name: own, register: coil 9 }]
`;
    const made = devices(text, {}, { "lists/north.csv": "name,register\nlisted,coil 1\n" });
    expect(made[0]!.tags.map(({ name }) => name)).toEqual(["own", "listed"]);
  });

  test("ten thousand tags are read in seconds", { timeout: 10_000 }, () => {
    const rows = Array.from({ length: 10_000 }, (_, n) => `t${n},holding ${n},int16,degC,0..100,0.5\n`).join("");
    const tags = devices(device, {}, { "tags.csv": `name,register,type,unit,range,deadband\n${rows}` })[0]!.tags;
    expect(tags).toHaveLength(10_000);
  });
});
