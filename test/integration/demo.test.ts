import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadEdge } from "../../config/load.ts";
import { Cli, isAlive } from "./rig/cli.ts";

/** What was promised: live data within this time. */
const liveWithinMs = 30_000;
const devices = loadEdge(join(import.meta.dirname, "../../config/examples/demo/edge.yaml"), {
  MILLRACE_SIM_OPCUA: "opc.tcp://127.0.0.1:1",
  MILLRACE_SIM_MODBUS_HOST: "127.0.0.1",
  MILLRACE_SIM_MODBUS_PORT: "1",
  MILLRACE_BROKER_URL: "mqtt://127.0.0.1:1",
  MILLRACE_EDGE_PASSWORD: "x",
  MILLRACE_EDGE_DATA: "x",
  MILLRACE_EDGE_HTTP_PORT: "0",
})
  .devices.map(({ name }) => name)
  .sort();

interface Page<T> {
  readonly items: readonly T[];
}
interface Tag {
  readonly tag: string;
  readonly device: string;
  readonly latest: { readonly time: string; readonly quality: { readonly severity: string } } | null;
}

let folder: string;
const demos: Cli[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-demo-"));
});
afterEach(async () => {
  for (const demo of demos.splice(0)) await demo.end("SIGKILL");
  for (const pid of processesOf(folder)) process.kill(pid, "SIGKILL");
  await rm(folder, { recursive: true, force: true });
});

function startDemo(...args: string[]): Cli {
  const demo = new Cli(["demo", "--data", folder, ...args]);
  demos.push(demo);
  return demo;
}

/** The processes that keep their data in this folder, by what stands in their environment. */
function processesOf(path: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && isAlive(pid))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, "latin1").includes(path);
      } catch {
        return false; // it has ended meanwhile
      }
    });
}

/** The console's address, once the demo has told it. */
async function live(demo: Cli): Promise<string> {
  const ended = demo.finished.then(({ code, stderr }) => {
    throw new Error(`the demo ended with exit code ${code}: ${stderr}`);
  });
  const told = expect.poll(() => demo.stdout, { timeout: liveWithinMs, interval: 50 }).toMatch(/Ctrl-C ends it/);
  await Promise.race([told, ended]);
  return /Console {3}(http:\/\/127\.0\.0\.1:\d+)\//.exec(demo.stdout)![1]!;
}

async function ask<T>(url: string): Promise<T> {
  const response = await fetch(url);
  expect(response.status, url).toBe(200);
  return (await response.json()) as T;
}

// Who is left behind is looked up in /proc.
describe.skipIf(!existsSync("/proc/self/environ"))("npm run demo", { timeout: 60_000 }, () => {
  it("shows live data of every device within 30 s, stops on Ctrl-C, and goes on where it stopped", async () => {
    const first = startDemo("--port", "0");
    const http = await live(first);
    expect(new URL(http).port).not.toBe("0");
    const page = await fetch(`${http}/`);
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toContain("text/html");

    const tags = () => ask<Page<Tag>>(`${http}/api/v1/tags?limit=1000`);
    await expect
      .poll(async () => (await tags()).items.filter(({ latest }) => latest?.quality.severity !== "good"), {
        timeout: 15_000,
      })
      .toEqual([]);
    expect([...new Set((await tags()).items.map(({ device }) => device))].sort()).toEqual(devices);
    const tag = "pune-1.drive-1.speed"; // polled twice a second, and reported each time
    const latest = async () => (await ask<Tag>(`${http}/api/v1/tags/${tag}`)).latest!.time;
    const before = await latest();
    await expect.poll(latest, { timeout: 10_000 }).not.toBe(before);
    const framesOf = async (address: string) =>
      (await ask<Page<{ frames: number; whole: boolean }>>(`${address}/api/v1/edges`)).items[0]!;
    const { frames } = await framesOf(http);

    const parts = processesOf(folder);
    expect(parts.length).toBe(4);
    const stopping = Date.now();
    const { code, stderr } = await first.end("SIGINT");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(first.stdout).toMatch(/stopped\n$/);
    expect(parts.filter(isAlive)).toEqual([]);
    expect(processesOf(folder)).toEqual([]);

    const second = startDemo("--port", "0");
    const again = await live(second);
    await expect.poll(async () => (await framesOf(again)).frames, { timeout: 10_000 }).toBeGreaterThan(frames);
    expect((await framesOf(again)).whole).toBe(true);
    const gapsOf = async () =>
      (
        await ask<Page<{ device: string; from: string; to: string | null }>>(
          `${again}/api/v1/gaps?reason=agent_stopped&limit=100`,
        )
      ).items;
    await expect
      .poll(async () => (await gapsOf()).map(({ device }) => device).sort(), { timeout: 10_000 })
      .toEqual(devices);
    for (const { from, to } of await gapsOf()) {
      // From the last data before the stop to the first after it.
      expect(Date.parse(from)).toBeGreaterThan(stopping - 10_000);
      expect(Date.parse(from)).toBeLessThan(stopping + 5000);
      expect(Date.parse(to!)).toBeGreaterThan(stopping);
    }
    expect((await second.end("SIGTERM")).code).toBe(0);
    expect(processesOf(folder)).toEqual([]);
  });

  it.each([
    ["at once", /everything is kept/],
    ["while the parts start", /plant {3}/],
    ["while the database is made", /edge {4}/],
  ])("leaves no process when it is ended %s", async (_, moment) => {
    const demo = startDemo("--port", "0");
    await expect.poll(() => demo.stdout, { timeout: liveWithinMs, interval: 5 }).toMatch(moment);
    const { code, stderr } = await demo.end("SIGINT");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(processesOf(folder)).toEqual([]);
  });

  it("leaves no process when it is killed", async () => {
    const demo = startDemo("--port", "0");
    await expect.poll(() => demo.stdout, { timeout: liveWithinMs, interval: 20 }).toMatch(/edge {4}/);
    await demo.end("SIGKILL");
    await expect.poll(() => processesOf(folder), { timeout: 15_000 }).toEqual([]);
  });

  it("says so when its port is taken, and leaves no process", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as { port: number };
    try {
      const { code, stderr } = await startDemo("--port", String(port)).finished;
      expect(stderr).toContain(`the console cannot listen on 127.0.0.1:${port}: choose another --port`);
      expect(stderr).not.toMatch(/\n\s+at /);
      expect(code).toBe(2);
      expect(processesOf(folder)).toEqual([]);
    } finally {
      other.close();
    }
  });

  it("says so when its data cannot be kept there", async () => {
    const file = join(folder, "file");
    await writeFile(file, "");
    for (const data of [file, join(file, "below")]) {
      const { code, stderr } = await startDemo("--port", "0", "--data", data).finished;
      expect(stderr).toContain(`${data} cannot be used: choose another --data`);
      expect(stderr).not.toMatch(/\n\s+at /);
      expect(code).toBe(2);
    }
  });

  it("says so when another demo keeps its data there", async () => {
    await live(startDemo("--port", "0"));
    const { code, stderr } = await startDemo("--port", "0").finished;
    expect(stderr).toMatch(/in use by process \d+/);
    expect(code).toBe(2);
  });

  it("ends when a part is killed, and shows what that has logged since the start", async () => {
    await mkdir(join(folder, "logs"));
    await writeFile(join(folder, "logs", "broker.log"), "what was logged last week\n");
    const demo = startDemo("--port", "0");
    await expect.poll(() => demo.stdout, { timeout: liveWithinMs, interval: 5 }).toMatch(/broker {2}/);
    const broker = processesOf(folder).find((pid) => /\0broker\0/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8")))!;
    process.kill(broker, "SIGKILL");
    const { code, stderr } = await demo.finished;
    expect(stderr).toMatch(/the broker process has ended \(SIGKILL\):\n(\{.*\}\n)+$/);
    expect(code).toBe(1);
    expect(processesOf(folder)).toEqual([]);
  });
});
