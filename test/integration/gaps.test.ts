import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "./rig/port.ts";
import { RigProcess } from "./rig/process.ts";

/**
 * The whole path over real wires: counters on OPC UA and Modbus, an edge, a broker and a cloud. Processes are killed;
 * then no count may be in the database twice, and each count that is missing has to lie in a gap that says why.
 */
const periodMs = 40;
const tags = ["0001", "0002", "0003"];

/** A poll sees what is there when it comes: counts that follow each other fast can escape it. A subscription misses none. */
const skippable: Record<string, number> = { ua: 0, bus: 5 };

interface Item {
  readonly time: string;
  readonly value: number | null;
}
interface Gap {
  readonly device: string;
  readonly reason: string;
  readonly from: string;
  readonly to: string | null;
}

let folder: string;
let api: string;
let plant: RigProcess;
let edge: RigProcess;
let cloud: RigProcess;
/** When count 0 was, in milliseconds: count n is at this time plus n periods. */
let startedAt: number;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "millrace-gaps-"));
  const log = (name: string) => join(folder, `${name}.log`);
  const httpPort = await freePort();
  api = `http://127.0.0.1:${httpPort}/api/v1`;
  plant = new RigProcess(
    "millrace.ts",
    ["simulate", "--counter", String(periodMs), "--counter-tags", "3"],
    {},
    log("plant"),
  );
  const { opcua, modbus, control } = await plant.start();
  startedAt = ((await (await fetch(`${control}/state`)).json()) as { startedAt: number }).startedAt;
  const brokerPort = await freePort();
  const cloudFile = join(folder, "cloud.yaml");
  await writeFile(
    cloudFile,
    `broker: { embedded: { port: ${brokerPort} } }
edges: [{ name: e1, password: secret }]
store: { embedded: { path: ./database } }
http: { port: ${httpPort} }
`,
  );
  const edgeFile = join(folder, "edge.yaml");
  const [host, port] = modbus!.split(":");
  await writeFile(
    edgeFile,
    `edge: e1
uplink: { url: "mqtt://127.0.0.1:${brokerPort}", password: secret, acknowledge_timeout: 2 s }
buffer: { path: ./buffer }
frame: { linger: 200 ms }
reconnect: { first: 200 ms, longest: 1 s }
devices:
  - name: ua
    protocol: opcua
    endpoint: ${opcua}
    sampling: 0 ms
    publishing: 100 ms
    queue: 100
    tags: [${tags.map((n) => `{ name: c${n}, node: "nsu=urn:millrace:plant;s=Counter.${n}" }`).join(", ")}]
  - name: bus
    protocol: modbus-tcp
    host: ${host}
    port: ${port}
    scan: 10 ms
    tags: [${tags.map((n, i) => `{ name: c${n}, unit_id: 1, register: holding ${2 * i}, type: uint32, deadband: 0 }`).join(", ")}]
`,
  );
  cloud = new RigProcess("millrace.ts", ["cloud", cloudFile], {}, log("cloud"));
  edge = new RigProcess("millrace.ts", ["edge", edgeFile], {}, log("edge"));
  await cloud.start();
  await edge.start();
});

afterAll(async () => {
  await Promise.all([edge, cloud, plant].map((process) => process?.end("SIGKILL")));
  await rm(folder, { recursive: true, force: true });
});

async function items<T>(path: string): Promise<T[]> {
  const all: T[] = [];
  for (let url: string | null = `${api}/${path}`; url !== null; ) {
    const response: Response = await fetch(url);
    const body = (await response.json()) as { items: T[]; next: string | null };
    all.push(...body.items);
    url = body.next === null ? null : `${api}/${path}&cursor=${encodeURIComponent(body.next)}`;
  }
  return all;
}

const readings = (device: string, tag: string) =>
  items<Item>(`tags/e1.${device}.${tag}/readings?from=-1%20h&to=now&limit=1000`);

/** Waits until a count is in the database that was taken after now. */
async function freshData(): Promise<void> {
  const since = Date.now();
  for (const device of ["ua", "bus"]) {
    await expect
      .poll(
        async () => Date.parse((await readings(device, "c0001")).findLast(({ value }) => value !== null)?.time ?? ""),
        {
          timeout: 30_000,
          interval: 300,
        },
      )
      .toBeGreaterThan(since);
  }
}

describe("after an edge was killed three times and the cloud once", () => {
  it("fresh data arrives each time", { timeout: 120_000 }, async () => {
    await freshData();
    for (let round = 0; round < 3; round++) {
      await edge.end("SIGKILL");
      await delay(300 * round);
      await edge.start();
      if (round === 1) {
        await cloud.end("SIGKILL");
        await cloud.start();
      }
      await freshData();
    }
  });

  it.each(["ua", "bus"])(
    "no count of %s is in the database twice, and what is missing lies in a gap",
    async (device) => {
      const gaps = (await items<Gap>(`gaps?edge=e1&from=-1%20h&to=now&limit=1000`)).filter(
        (gap) => gap.device === device,
      );
      expect(gaps.filter(({ reason }) => reason === "agent_stopped")).toHaveLength(3);
      expect(gaps.every(({ to }) => to !== null)).toBe(true);
      for (const tag of tags) {
        const counts = (await readings(device, `c${tag}`)).flatMap(({ value }) => (value === null ? [] : [value]));
        expect(counts.length).toBeGreaterThan(50);
        expect(counts, "in order, none twice").toEqual([...new Set(counts)].sort((a, b) => a - b));
        const unexplained: number[] = [];
        for (const [index, count] of counts.entries()) {
          const hole = { first: count + 1, last: (counts[index + 1] ?? count + 1) - 1 };
          if (hole.last - hole.first + 1 <= skippable[device]!) continue;
          for (let n = hole.first; n <= hole.last; n++) {
            if (!gaps.some((gap) => covers(gap, n, device === "bus" ? 2 * periodMs : 0))) unexplained.push(n);
          }
        }
        expect(unexplained, `${device}.c${tag}: missing and in no gap`).toEqual([]);
      }
    },
  );
});

/** @param slackMs a polled count is seen up to a scan after it was taken */
function covers({ from, to }: Gap, count: number, slackMs: number): boolean {
  const time = startedAt + count * periodMs;
  return time >= Date.parse(from) - slackMs && time <= Date.parse(to!) + slackMs;
}
