import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Cli, run } from "./rig/cli.ts";

/** Each is given by the environment, and none may stand in anything that is written. */
const secrets = {
  EDGE_PASSWORD: "geheim-edge-7f3a",
  CLOUD_PASSWORD: "geheim-cloud-81c2",
  PLC_PASSWORD: "geheim-plc-55d0",
  DATABASE_PASSWORD: "geheim-db-e9b4",
  WRONG_PASSWORD: "geheim-wrong-02aa",
};

let folder: string;
const started: Cli[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-secrets-"));
});
afterEach(async () => {
  for (const cli of started.splice(0)) await cli.end("SIGKILL");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

function start(...args: string[]): Cli {
  const cli = new Cli(args, secrets);
  started.push(cli);
  return cli;
}

const edgeFile = (name: string, broker: string, password: string) =>
  file(
    `${name}.yaml`,
    `edge: line-1
uplink: { url: "${broker}", password: "\${env:${password}}" }
buffer: { path: ./${name} }
log: { level: trace }
devices:
  - name: reactor
    protocol: opcua
    endpoint: opc.tcp://127.0.0.1:1
    login: { user: millrace, password: "\${env:PLC_PASSWORD}" }
    tags: [{ name: t, node: "ns=2;s=T" }]
`,
  );

const logged = (cli: Cli, text: RegExp) => expect.poll(() => cli.stdout, { timeout: 10_000 }).toMatch(text);

function expectNoSecret(...texts: string[]): void {
  for (const text of texts) {
    expect(text).not.toBe("");
    // Each begins with "geheim": also as base64 and in hexadecimal digits.
    expect(text).not.toMatch(/geheim|Z2VoZWlt|67656865696d/i);
  }
}

describe("passwords of the environment", () => {
  it("are in no log of an edge and a cloud at work, whether they are right or wrong", async () => {
    const cloudFile = await file(
      "cloud.yaml",
      `broker: { embedded: { port: 0 }, password: "\${env:CLOUD_PASSWORD}" }
edges: [{ name: line-1, password: "\${env:EDGE_PASSWORD}" }]
store: { embedded: { path: ./db } }
http: { port: 0 }
log: { level: trace }
`,
    );
    const cloud = start("cloud", cloudFile);
    const { broker } = await cloud.ready();
    const edge = start("edge", await edgeFile("right", broker!, "EDGE_PASSWORD"));
    await logged(edge, /connected to the broker/);
    await logged(edge, /the device is lost/);
    const stranger = start("edge", await edgeFile("wrong", broker!, "WRONG_PASSWORD"));
    await logged(stranger, /no connection to the broker/);
    await logged(cloud, /the broker refuses a login/);
    for (const cli of [stranger, edge, cloud]) {
      const { code, stdout, stderr } = await cli.end("SIGTERM");
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expectNoSecret(stdout);
    }
  });

  it("are in no log of a cloud whose database is away", async () => {
    const path = await file(
      "away.yaml",
      `broker: { embedded: { port: 0 } }
store: { url: "postgres://millrace@127.0.0.1:1/x", password: "\${env:DATABASE_PASSWORD}" }
http: { port: 0 }
log: { level: trace }
`,
    );
    const cloud = start("cloud", path);
    await logged(cloud, /the database is away/);
    expectNoSecret((await cloud.end("SIGTERM")).stdout);
  });

  it("that stand in an address are refused, and not shown", async () => {
    const path = await edgeFile("address", "mqtt://line-1:${env:EDGE_PASSWORD}@127.0.0.1:1", "EDGE_PASSWORD");
    const { code, stdout, stderr } = await run(["edge", path], secrets);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(`${path}:2:16 uplink.url: found the value of \${env:EDGE_PASSWORD}; write the address`);
    expectNoSecret(stderr);
  });
});
