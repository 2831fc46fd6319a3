import { join } from "node:path";
import { expect, test } from "vitest";
import { check } from "../../../config/check.ts";
import { folderOf, rest } from "./files.ts";

const device = `devices:
  - name: drives
    protocol: modbus-tcp
    host: 10.0.5.20
    scan: 500 ms
    tags:
      - { name: speed, unit_id: 3, register: holding 100, type: float32 }
      - { name: fault, unit_id: 3, register: holding 110, bit: 4 }
      - { name: hours, unit_id: 3, register: input 0, scan: 1 min }
`;

async function report(files: Record<string, string>, env: Record<string, string> = {}) {
  const folder = folderOf(files);
  const { text, ok } = await check(
    Object.keys(files).map((file) => join(folder, file)),
    env,
  );
  return { text: text.replaceAll(`${folder}/`, ""), ok };
}

test("says what each device is asked, and how often", async () => {
  const { text, ok } = await report({ "edge.yaml": rest + device });
  expect(ok).toBe(true);
  const lines = text.split("\n");
  expect(lines[0]).toBe("edge.yaml: edge line-1: 1 device, 3 tags, 2 requests per second");
  expect(lines[2]).toBe("  drives (modbus-tcp): 3 tags, 2 requests per second");
  expect(lines[3]).toMatch(/^ {4}every 500 ms {2}2 tags {2}unit 3, .*holding 100/);
  expect(lines[4]).toMatch(/^ {4}every 1 min {3}1 tag {3}unit 3, .*input 0/);
});

test("an OPC UA server is asked to report by itself or every so often", async () => {
  const server = `devices:
  - { name: r, protocol: opcua, endpoint: "opc.tcp://10.0.5.11:4840", tags: [{ name: t, node: "ns=2;s=T" }] }
`;
  const { text } = await report({ "edge.yaml": rest + server });
  expect(text).toContain("  r (opcua): 1 tag");
  expect(text).toMatch(/^ {4}(on change|every \d+ m?s) +1 tag +\S/m);
});

test("tells the cloud's file from an edge's, and says what it holds", async () => {
  const cloud =
    'broker: { url: "mqtt://broker", password: hunter2 }\nstore: { embedded: { path: db } }\nretention: { readings: 365 d }\n';
  const { text, ok } = await report({ "any-name.yaml": cloud, "edge.yaml": rest + device });
  expect(ok).toBe(true);
  expect(text).toContain("any-name.yaml: cloud: 0 edges");
  expect(text).toContain("readings 365 d, raw frames 30 d");
  expect(text).toContain("edge.yaml: edge line-1");
  expect(text).not.toContain("hunter2");
});

test("says so when it cannot tell what a file is", async () => {
  const { text, ok } = await report({ "compose.yaml": "services: {}\n", "list.yaml": "- a\n" });
  expect(ok).toBe(false);
  expect(text).toContain("compose.yaml:1:1 neither an edge's file nor the cloud's; write keys of an edge (edge,");
  expect(text).toContain("list.yaml:1:1 neither");
});

test("goes on after a file with mistakes, and counts them", async () => {
  const { text, ok } = await report({ "bad.yaml": `${rest}devices: 5\nsiet: pune\n`, "edge.yaml": rest + device });
  expect(ok).toBe(false);
  expect(text).toContain("bad.yaml:4:10 devices: found 5");
  expect(text).toContain("bad.yaml: 2 mistakes");
  expect(text).toContain("edge.yaml: edge line-1");
});

test("warns of passwords that stand in the file, and does not show them", async () => {
  const text = `edge: line-1
uplink: { url: "mqtt://broker", password: hunter3 }
buffer: { path: buffer }
${device}`;
  const literal = await report({ "edge.yaml": text });
  expect(literal.ok).toBe(true);
  expect(literal.text).toContain("edge.yaml:2:43 uplink.password: warning: a password stands in the file");
  expect(literal.text).not.toContain("hunter");
  const elsewhere = text.replace("hunter3", '"$' + '{env:PW}"');
  expect((await report({ "edge.yaml": elsewhere }, { PW: "hunter4" })).text).not.toMatch(/warning|hunter/);
});

const drive = `name: d
    protocol: modbus-tcp
    host: \${env:HOST}
    port: \${env:PORT}
    unit_id: \${env:UNIT}
    scan: \${env:SCAN}
    tags: [{ name: a, register: "\${env:REGISTER}" }]`;

test("on a machine without the variables and files: warns of each and plans all the same", async () => {
  const edge = `edge: \${env:NAME}
uplink: { url: "mqtt://\${env:BROKER}:\${env:MQTT_PORT}", password: "\${file:/run/secrets/none}", mqtt_version: "\${env:V}" }
buffer: { path: "\${env:DATA}", max_size: "\${env:SIZE}" }
http: { port: "\${env:HTTP_PORT}" }
log: { level: "\${env:LEVEL}" }
devices:
  - ${drive}
`;
  const { text, ok } = await report({ "edge.yaml": edge });
  expect(ok).toBe(true);
  expect(text).toMatch(/^edge\.yaml: edge \$\{env:NAME\}: 1 device, 1 tag, /);
  expect(text).toMatch(/^ {4}every .* 1 tag .*holding/m);
  const warned = text.split("\n").filter((line) => line.includes("warning: "));
  expect(warned).toHaveLength(14);
  expect(warned[0]).toBe(
    "edge.yaml:1:7 edge: warning: the environment variable NAME is not set; set it, or correct the name",
  );
  expect(text).toContain("edge.yaml:2:67 uplink.password: warning: ${file:/run/secrets/none}: no such file;");
  expect(text).toContain("edge.yaml:10:11 devices[d].port: warning: the environment variable PORT is not set");
});

test("a mistake beside what is missing is a mistake all the same", async () => {
  const wrong = drive.replace("name: a", "name: a, tpye: int16");
  const { text, ok } = await report({ "edge.yaml": `${rest}devices:\n  - ${wrong}\n` });
  expect(ok).toBe(false);
  expect(text).toContain('unknown key "tpye"; did you mean "type"?');
  expect(text).not.toContain("is not set");
});

test("plans what a template makes with missing parameters, and says so where too much is missing", async () => {
  const template = `templates:
  drive: { parameters: [unit], tags: [{ name: "speed-\${unit}", unit_id: "\${unit + 1}", register: holding 1 }] }
devices:
  - name: drives
    protocol: modbus-tcp
    host: h
    tags: [{ template: drive, with: { unit: "\${env:UNIT}" } }]
`;
  const made = await report({ "edge.yaml": rest + template });
  expect(made).toMatchObject({ ok: true, text: expect.stringMatching(/1 device, 1 tag, .*\n.*UNIT is not set/s) });
  const which = 'devices: [{ name: r, protocol: "${env:PROTOCOL}", endpoint: "opc.tcp://h", tags: [] }]\n';
  const unknown = await report({ "edge.yaml": rest + which });
  expect(unknown.ok).toBe(true);
  expect(unknown.text).toMatch(/^edge\.yaml: no mistakes, as far as it can be told; .*\n.*PROTOCOL is not set/s);
});

test("says of the cloud what the file says, where that is missing", async () => {
  const cloud = `broker: { embedded: { port: "\${env:PORT}" }, password: "\${env:PW}" }
store: { url: "\${env:STORE_URL}", password: "\${env:PW}" }
edges: [{ name: line-1, password: "\${env:PW}" }]
http: { host: "\${env:HOST}", port: "\${env:HTTP}" }
`;
  const { text, ok } = await report({ "cloud.yaml": cloud });
  expect(ok).toBe(true);
  expect(text).toContain("  broker     embedded, on 127.0.0.1:${env:PORT}, as user cloud\n");
  expect(text).toContain("  store      ${env:STORE_URL}\n");
  expect(text).toContain("  http       ${env:HOST}:${env:HTTP}\n");
  expect(text.match(/warning: .* is not set/g)).toHaveLength(7);
});
