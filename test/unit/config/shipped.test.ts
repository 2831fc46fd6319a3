import { globSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { check } from "../../../config/check.ts";
import { cloudJsonSchema, edgeJsonSchema, schemaFiles } from "../../../config/json-schema.ts";

const root = join(import.meta.dirname, "../../..");
const shipped = globSync("**/*.{yaml,yml}", {
  cwd: root,
  exclude: (path) => /(^|\/)(node_modules|\.git|\.ci|cases|\.millrace|dist)$/.test(path) || isForOthers(path),
});

/** YAML that other programs read. */
function isForOthers(path: string): boolean {
  return /^(docker-)?compose[.\w-]*\.ya?ml$|^buf\.|^openapi\./.test(basename(path));
}

/** A fitting value for each variable that a file names, so that it loads on every machine. */
function variablesOf(file: string): Record<string, string> {
  const names = readFileSync(file, "utf8").matchAll(/\$\{env:([A-Za-z_]\w*)\}/g);
  return Object.fromEntries([...names].map(([, name]) => [name!, valueFor(name!)]));
}

function valueFor(name: string): string {
  if (name.endsWith("_PORT")) return "1883";
  if (/(DATABASE|STORE|POSTGRES)_URL$/.test(name)) return "postgres://127.0.0.1:5432/millrace";
  if (/OPCUA/.test(name)) return "opc.tcp://127.0.0.1:4840";
  return name.endsWith("_URL") ? "mqtt://127.0.0.1:1883" : "any";
}

describe("every shipped YAML", () => {
  test("the examples are among them", () => {
    for (const name of ["edge", "drives", "cloud"]) expect(shipped).toContain(`config/examples/${name}.yaml`);
  });

  test.each(shipped)("%s loads", async (path) => {
    const file = join(root, path);
    const { text, ok } = await check([file], variablesOf(file));
    expect(ok, text).toBe(true);
  });

  test.each(shipped)("%s begins with the line that tells editors its schema", (path) => {
    const file = join(root, path);
    const [, schema] = /^# yaml-language-server: \$schema=(\S+)\n/.exec(readFileSync(file, "utf8")) ?? [];
    const wanted = Object.keys(schemaFiles()).map((name) => relative(dirname(file), join(root, "config", name)));
    expect(wanted, `the first line of ${path} is to be "# yaml-language-server: $schema=${wanted[0]}"`).toContain(
      schema,
    );
  });

  test.each(shipped)("%s has no mark of an editor that follows the schema", (path) => {
    const file = join(root, path);
    const text = readFileSync(file, "utf8");
    const schema = text.includes("edge.schema.json") ? edgeJsonSchema() : cloudJsonSchema();
    const validate = new Ajv2020({ strict: false }).compile(schema);
    expect(validate(parse(text)), JSON.stringify(validate.errors, null, 1)).toBe(true);
  });
});

describe("the schemas for editors", () => {
  test.each(Object.entries(schemaFiles()))("config/%s is fresh", (path, text) => {
    // Compared as values, because the formatter may lay the file out in its own way.
    const stored = JSON.parse(readFileSync(join(root, "config", path), "utf8"));
    expect(stored, `config/${path} is older than the schema it is made from; run: npm run generate`).toEqual(
      JSON.parse(text),
    );
  });

  const ajv = new Ajv2020({ strict: false });
  const edge = ajv.compile(edgeJsonSchema());
  const start = { edge: "line-1", uplink: { url: "mqtt://b" }, buffer: { path: "b" } };
  const device = { name: "d", protocol: "modbus-tcp", host: "h", tags: [{ name: "t", register: "coil 1" }] };

  test("take templates, CSV lists and interpolated values", () => {
    const { tags: _, ...bare } = device;
    const devices = [
      { ...device, port: "${env:PORT}" },
      { ...bare, tags_from: "tags.csv" },
      { ...device, tags: [{ template: "motor", with: { n: 1 } }] },
      { template: "drive", each: [{ n: 1 }], port: 503 },
    ];
    const templates = {
      drive: { parameters: ["n"], device: { ...device, name: "d${n}", unit_id: "${n}" } },
      motor: { parameters: { n: null }, tags: [{ name: "m${n}", register: "holding ${n + 1}" }] },
    };
    expect(edge({ ...start, http: { port: "${env:PORT}" }, templates, devices }), ajv.errorsText(edge.errors)).toBe(
      true,
    );
  });

  test.each([
    ["an unknown key", { ...start, devices: [], colour: 1 }],
    ["an unknown key of a device", { ...start, devices: [{ ...device, colour: 1 }] }],
    ["a device without tags", { ...start, devices: [{ ...device, tags: undefined }] }],
    ["a duration without its unit", { ...start, devices: [], frame: { linger: 500 } }],
    ["a number out of bounds", { ...start, devices: [], http: { port: 70_000 } }],
    ["a missing key", { edge: "line-1", devices: [] }],
    ["an unknown protocol", { ...start, devices: [{ ...device, protocol: "modbus" }] }],
  ])("mark %s", (_, file) => {
    expect(edge(JSON.parse(JSON.stringify(file)))).toBe(false);
  });

  test("describe every key", () => {
    const bare: string[] = [];
    const visit = (schema: unknown, path: string): void => {
      if (typeof schema !== "object" || schema === null) return;
      const { properties = {} } = schema as {
        properties?: Record<string, { description?: string; const?: unknown; $ref?: string }>;
      };
      for (const [key, property] of Object.entries(properties)) {
        const described = property.description ?? property.const ?? property.$ref;
        if (described === undefined) bare.push(`${path}.${key}`);
      }
      for (const [key, part] of Object.entries(schema)) visit(part, `${path}.${key}`);
    };
    visit(edgeJsonSchema(), "edge");
    visit(cloudJsonSchema(), "cloud");
    expect(bare, "give these a .describe(): it becomes the help of editors").toEqual([]);
  });
});
