import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import { PgliteDatabase } from "../../cloud/store/pglite.ts";
import { cloudJsonSchema, edgeJsonSchema } from "../../config/json-schema.ts";
import { Cli, type Finished, isAlive, program, run } from "./rig/cli.ts";

let folder: string;
const cleanups: (() => unknown)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-cli-"));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

function start(args: readonly string[]): Cli {
  const cli = new Cli(args);
  cleanups.push(() => cli.end("SIGKILL"));
  return cli;
}

/** A port that somebody else has. */
async function takenPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close());
  return (server.address() as { port: number }).port;
}

/** It says what a person has to mend, and nothing else. */
function expectMendable({ code, stderr }: Finished, ...said: (string | RegExp)[]): void {
  for (const part of said) expect(stderr).toMatch(part);
  expect(stderr).not.toMatch(/\n\s+at /);
  expect(code).toBe(2);
}

/** A cloud on the database `db`, which is made once, as that takes seconds. */
const cloudFile = (name: string, broker: string, rest = "", database = "db") =>
  file(
    `${name}.yaml`,
    `broker: ${broker}\nedges: [{ name: line-1, password: x }]\nstore: { embedded: { path: ./${database} } }\n${rest}`,
  );

describe("millrace", () => {
  it("--help lists every command", async () => {
    const { code, stdout, stderr } = await run(["--help"]);
    for (const command of ["edge", "cloud", "broker", "simulate", "demo", "check", "schema"]) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command}\\b`, "m"));
    }
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it.each([
    [["frobnicate"], /unknown command 'frobnicate'/],
    [["edge"], /missing required argument 'file'/],
    [["schema", "plant"], /write edge or cloud/],
    [["demo", "--port", "80 80"], /a port is 0 to 65535/],
    [["simulate", "--speed", "0"], /a number above 0/],
    [["simulate", "--speed", "4000"], /at most 3600/],
    [["cloud", "x.yaml", "--brokerelsewhere"], /Did you mean --broker-elsewhere/],
    [[], /Usage: millrace/],
  ])("%j is a mistake of the command line: exit code 2, said on standard error", async (args, said) => {
    const finished = await run(args);
    expect(finished.stdout).toBe("");
    expectMendable(finished, said);
  });

  it.each([
    ["edge", edgeJsonSchema],
    ["cloud", cloudJsonSchema],
  ] as const)("schema %s prints the JSON Schema", async (kind, expected) => {
    const { code, stdout, stderr } = await run(["schema", kind]);
    expect(JSON.parse(stdout)).toEqual(JSON.parse(JSON.stringify(expected())));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("simulate with an unknown fault lists those there are", async () => {
    const finished = await run(["simulate", "--fault", "nonsense"]);
    expectMendable(finished, /unknown fault "nonsense"/, /bearing-wear/, /device-down/);
  });

  it.each(["--opcua-port", "--modbus-port", "--control-port"])(
    "simulate %s with a taken port names it",
    async (option) => {
      const port = await takenPort();
      expectMendable(await run(["simulate", option, String(port)]), `127.0.0.1:${port}`);
    },
  );
});

describe("millrace check", () => {
  it("plans without the secrets, that the edge does not start without", async () => {
    const path = await file(
      "elsewhere.yaml",
      `edge: line-1
uplink: { url: "mqtt://broker", password: "\${env:MILLRACE_TEST_NOT_SET}" }
buffer: { path: ./elsewhere }
devices: [{ name: d, protocol: modbus-tcp, host: h, tags: [{ name: a, register: coil 1 }] }]
`,
    );
    const { code, stdout, stderr } = await run(["check", path]);
    expect(stdout).toContain("edge line-1: 1 device, 1 tag, 1 request per second");
    expect(stdout).toContain(`${path}:2:43 uplink.password: warning: the environment variable MILLRACE_TEST_NOT_SET`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expectMendable(await run(["edge", path]), `${path}:2:43 uplink.password: the environment variable`);
  });

  it("ends with exit code 2 when there is a mistake", async () => {
    const { code, stdout } = await run(["check", await file("mistake.yaml", "edge: 5!\n")]);
    expect(stdout).toContain("edge: found");
    expect(code).toBe(2);
  });
});

describe("millrace edge", () => {
  it("with a broken file tells every mistake with its place, and starts nothing", async () => {
    const path = await file(
      "edge.yaml",
      `edge: line-1
uplink: { url: "http://broker", pasword: x }
buffer: { path: ./edge-buffer, max_size: 2 parsecs }
devices:
  - name: drives
    protocol: modbus-tpc
    tags: []
`,
    );
    const finished = await run(["edge", path]);
    expect(finished.stdout).toBe("");
    expectMendable(
      finished,
      `${path}:2:16 uplink.url:`,
      `${path}:2:33 uplink: unknown key "pasword"`,
      /edge\.yaml:3:\d+ buffer\.max_size:/,
      /edge\.yaml:6:\d+ .*protocol/,
    );
    expect(existsSync(join(folder, "edge-buffer"))).toBe(false);
  });

  it("without its file says so", async () => {
    expectMendable(await run(["edge", join(folder, "none.yaml")]), /none\.yaml:1:1 no such file/);
  });
});

describe("millrace cloud", () => {
  it("with a broken file tells every mistake, and makes no database", async () => {
    const path = await cloudFile("broken", "{ embedded: { port: 99999 } }", "http: { prot: 1 }\n");
    expectMendable(await run(["cloud", path]), /broker\.embedded\.port/, /http: unknown key "prot"/);
    expect(existsSync(join(folder, "db"))).toBe(false);
  });

  it.each([
    ["broker", "choose another broker.embedded.host or port"],
    ["API", "choose another http.host or http.port"],
  ])("with a port for the %s that is taken says which", async (part, remedy) => {
    const taken = await takenPort();
    const [broker, http] = part === "broker" ? [taken, 0] : [0, taken];
    const path = await cloudFile(`taken-${part}`, `{ embedded: { port: ${broker} } }`, `http: { port: ${http} }\n`);
    const finished = await run(["cloud", path]);
    expectMendable(finished, `the ${part} cannot listen on 127.0.0.1:${taken}: ${remedy}`);
    expect(finished.stderr.trimEnd().split("\n").length).toBe(1);
  });

  it.each([
    ["broker", [], "{ embedded: { port: 0 } }", /needs broker\.password/],
    ["broker", [], "{ url: mqtt://127.0.0.1 }", /there is none to be started/],
    ["cloud", ["--broker-elsewhere"], "{ embedded: { port: 0 }, password: x }", /needs a fixed broker\.embedded\.port/],
    ["cloud", ["--broker-elsewhere"], "{ embedded: { port: 1 } }", /needs broker\.password/],
    ["cloud", [], "{ url: mqtts://127.0.0.1:1, ca: ./none.pem }", /certificate authority .*none\.pem cannot be/],
  ])("%s %j with broker %s says what is missing", async (command, options, broker, said) => {
    const path = await cloudFile("settings", broker, "http: { port: 0 }\n");
    expectMendable(await run([command, ...options, path]), said);
  });

  it("with a certificate authority that is not there names the file", async () => {
    const path = await file(
      "ca.yaml",
      `broker: { embedded: { port: 0 } }\nstore: { url: "postgres://127.0.0.1:1/x", ca: ./db-ca.pem }\nhttp: { port: 0 }\n`,
    );
    expectMendable(await run(["cloud", path]), `${join(folder, "db-ca.pem")} (store.ca) cannot be read`);
  });

  it("waits for a database that is away, says so once, and stops when asked", async () => {
    const path = await file(
      "away.yaml",
      'broker: { embedded: { port: 0 } }\nstore: { url: "postgres://millrace@127.0.0.1:1/x" }\nhttp: { port: 0 }\n',
    );
    const cloud = start(["cloud", path]);
    const { http } = await cloud.ready();
    const response = await fetch(`${http}/health/ready`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ checks: { database: { ok: false } } });
    const { code, stdout, stderr } = await cloud.end("SIGTERM");
    expect(stdout.match(/the database is away; waiting for it/g)?.length).toBe(1);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("ends with exit code 0 on SIGTERM and SIGINT; a second process has no use of its folder meanwhile", async () => {
    const path = await cloudFile("signals", "{ embedded: { port: 0 } }", "http: { port: 0 }\n");
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const cloud = start(["cloud", path]);
      const { http, broker } = await cloud.ready();
      expect(new URL(broker!).port).not.toBe("0");
      await expect.poll(async () => (await fetch(`${http}/health/ready`)).status, { timeout: 10_000 }).toBe(200);
      if (signal === "SIGTERM") expectMendable(await run(["cloud", path]), `in use by process ${cloud.child.pid}`);
      const { code, stderr } = await cloud.end(signal);
      expect({ signal, code, stderr }).toEqual({ signal, code: 0, stderr: "" });
    }
  });

  it("ends with exit code 0 when it is asked while it starts", async () => {
    const path = await cloudFile("early", "{ embedded: { port: 0 } }", "http: { port: 0 }\n", "early-db");
    const cloud = start(["cloud", path]);
    await expect.poll(() => existsSync(join(folder, "early-db")), { timeout: 10_000, interval: 5 }).toBe(true);
    const { code, stderr } = await cloud.end("SIGTERM");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("with a database that is newer than the program says what to do, and ends", async () => {
    const database = join(folder, "db");
    const log = pino({ level: "silent" });
    const store = await openStore({ embedded: { path: database } }, { log });
    await store.migrate();
    await store.close();
    const direct = await PgliteDatabase.open(database, log);
    await direct.query(
      `INSERT INTO schema_migration (number, name, checksum)
       SELECT max(number) + 1, 'tomorrow', 'x' FROM schema_migration`,
    );
    await direct.close();
    const path = await cloudFile("newer", "{ embedded: { port: 0 } }", "http: { port: 0 }\n");
    expectMendable(await run(["cloud", path]), /The database is newer than this program/, /tomorrow/);
  });
});

describe("a service whose parent dies", () => {
  it.each(["once it is ready", "while it starts"])("ends too, %s", async (when) => {
    const name = when.replaceAll(" ", "-");
    const path = await cloudFile(name, "{ embedded: { port: 0 }, password: x }");
    // A parent that starts the broker, tells its process number, and is killed.
    const parent = spawn(
      process.execPath,
      [
        "-e",
        `const child = require("node:child_process").spawn(process.execPath, ${JSON.stringify([program, "broker", path])},
          { stdio: ["ignore", "ignore", "inherit", "ipc"] });
        console.log(child.pid);
        child.once("message", () => console.log("ready"));`,
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let said = "";
    let errors = "";
    parent.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    parent.stderr.setEncoding("utf8").on("data", (text: string) => {
      errors += text;
    });
    await expect.poll(() => said, { timeout: 10_000 }).toMatch(when === "once it is ready" ? /ready/ : /\d+\n/);
    const pid = Number.parseInt(said, 10);
    cleanups.push(() => isAlive(pid) && process.kill(pid, "SIGKILL"));
    parent.kill("SIGKILL");
    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false);
    expect(errors).toBe("");
  });
});
