import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, it } from "vitest";
import { freePort } from "./rig/port.ts";
import { RigProcess } from "./rig/process.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

it("an agent that is stopped by a signal for some seconds records them as a gap of its polled device", async () => {
  const folder = await mkdtemp(join(tmpdir(), "millrace-standstill-"));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  const run = (name: string, args: string[]) => {
    const process = new RigProcess("millrace.ts", args, {}, join(folder, `${name}.log`));
    cleanups.push(() => process.end("SIGKILL"));
    return process;
  };
  const { modbus } = await run("plant", ["simulate", "--counter", "100", "--counter-tags", "1"]).start();
  const [brokerPort, httpPort] = [await freePort(), await freePort()];
  await writeFile(
    join(folder, "cloud.yaml"),
    `broker: { embedded: { port: ${brokerPort} } }
edges: [{ name: e1, password: secret }]
store: { embedded: { path: ./database } }
http: { port: ${httpPort} }
`,
  );
  const [host, port] = modbus!.split(":");
  await writeFile(
    join(folder, "edge.yaml"),
    `edge: e1
uplink: { url: "mqtt://127.0.0.1:${brokerPort}", password: secret }
buffer: { path: ./buffer }
devices:
  - { name: bus, protocol: modbus-tcp, host: ${host}, port: ${port}, scan: 200 ms, tags: [{ name: c, unit_id: 1, register: holding 0, type: uint32 }] }
`,
  );
  await run("cloud", ["cloud", join(folder, "cloud.yaml")]).start();
  const edge = run("edge", ["edge", join(folder, "edge.yaml")]);
  await edge.start();
  const gaps = async () =>
    ((await (await fetch(`http://127.0.0.1:${httpPort}/api/v1/gaps?edge=e1`)).json()) as { items: Gap[] }).items;
  const tag = `http://127.0.0.1:${httpPort}/api/v1/tags/e1.bus.c`;
  await expect.poll(async () => (await fetch(tag)).status, { timeout: 20_000, interval: 200 }).toBe(200);

  process.kill(edge.pid!, "SIGSTOP");
  const stopped = Date.now();
  await delay(4000); // what is tested is the passing of time
  process.kill(edge.pid!, "SIGCONT");
  const continued = Date.now();

  await expect.poll(gaps, { timeout: 20_000, interval: 200 }).toHaveLength(1);
  const [gap] = await gaps();
  expect(gap).toMatchObject({ device: "bus", tag: null, reason: "agent_stopped" });
  expect(Date.parse(gap!.from)).toBeLessThanOrEqual(stopped);
  expect(Date.parse(gap!.from)).toBeGreaterThan(stopped - 1500);
  expect(Date.parse(gap!.to!)).toBeGreaterThanOrEqual(continued - 100);
});

interface Gap {
  readonly device: string;
  readonly tag: string | null;
  readonly reason: string;
  readonly from: string;
  readonly to: string | null;
}
