import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, expect, it } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import { allReadings } from "../contract/store-frames.ts";
import { Cli } from "./rig/cli.ts";
import { freePort } from "./rig/port.ts";
import { upTo, WireEdge } from "./rig/wire-edge.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

it("SIGTERM amid heavy ingest: what was acknowledged is stored, and nothing twice when the rest is sent again", async () => {
  const folder = await mkdtemp(join(tmpdir(), "millrace-restart-"));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  const brokerPort = await freePort();
  const file = join(folder, "cloud.yaml");
  await writeFile(
    file,
    `broker: { embedded: { port: ${brokerPort} }, user: cloud, password: cloud-secret }
edges: [{ name: line-1, password: line-1-secret }]
store: { embedded: { path: ./db } }
http: { port: 0 }
ingest: { max_rows_per_transaction: 20 }
`,
  );
  const start = async (args: readonly string[]) => {
    const cli = new Cli([...args, file]);
    cleanups.push(() => cli.end("SIGKILL"));
    const { http } = await cli.ready();
    return { cli, http };
  };
  const ready = async (http: string | undefined) =>
    expect.poll(async () => (await fetch(`${http}/health/ready`)).status, { timeout: 15_000 }).toBe(200);
  await start(["broker"]);
  const edge = await new WireEdge("line-1").connect(`mqtt://127.0.0.1:${brokerPort}`);
  cleanups.push(() => edge.drop());

  let last = 0;
  let heaviest = 0;
  for (let restart = 0; restart < 3; restart++) {
    const { cli, http } = await start(["cloud", "--broker-elsewhere"]);
    await ready(http);
    await edge.sendMap();
    // What was not acknowledged, and much that is new; no wait for answers: the service is stopped amid it.
    last += 2000;
    const acknowledged = new Set(edge.committed);
    const sending = upTo(last).filter((seq) => !acknowledged.has(seq));
    const sent = Promise.all(sending.map((seq) => edge.send(edge.countFrame(seq))));
    const before = edge.committed.length;
    await expect.poll(() => edge.committed.length, { interval: 5 }).toBeGreaterThan(before + 100);
    const { code, stderr } = await cli.end("SIGTERM");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    await sent;
    heaviest = Math.max(heaviest, last - new Set(edge.committed).size);
  }
  expect(heaviest, "frames that a stop left unacknowledged").toBeGreaterThan(0);

  const stored = async () => {
    const store = await openStore({ embedded: { path: join(folder, "db") } }, { log: pino({ level: "silent" }) });
    const values = (await allReadings(store, "line-1.d.count")).map(({ value }) => Number(value));
    await store.close();
    return values;
  };
  const held = await stored();
  expect(new Set(held).size).toBe(held.length);
  expect([...new Set(edge.committed)].filter((seq) => !held.includes(seq))).toEqual([]);

  const { cli, http } = await start(["cloud", "--broker-elsewhere"]);
  await ready(http);
  await Promise.all(upTo(last).map((seq) => edge.send(edge.countFrame(seq))));
  await expect.poll(() => new Set(edge.committed).size, { timeout: 20_000 }).toBe(last);
  await cli.end("SIGTERM");
  expect(await stored()).toEqual(upTo(last));
});
