import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { pino } from "pino";
import { afterEach, describe, expect, it } from "vitest";
import { openStore, type StoreOptions } from "../../cloud/store/open.ts";
import { freePort } from "./rig/port.ts";
import { RigProcess } from "./rig/process.ts";

const kills = Number(process.env.MILLRACE_TEST_KILLS ?? 100);
const seed = Number(process.env.MILLRACE_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const postgresUrl = process.env.MILLRACE_TEST_POSTGRES_URL;
const tags = Array.from({ length: 20 }, (_, index) => `count_${index + 1}`);
/** Between kills: mostly short, so that processes die while they start and connect, and now and then time to work. */
const pauseMs = (next: () => number) => (next() < 0.7 ? next() * 500 : 1000 + next() * 2000);

/** mulberry32 (Tommy Ettinger, public domain): the same seed gives the same kills. */
function random(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Rig {
  readonly edge: RigProcess;
  readonly broker: RigProcess;
  readonly cloud: RigProcess;
  readonly api: string;
}

async function createRig(folder: string, store: string): Promise<Rig> {
  const brokerPort = String(await freePort());
  const httpPort = String(await freePort());
  const cloudFile = join(folder, "cloud.yaml");
  const edgeFile = join(folder, "edge.yaml");
  await writeFile(
    cloudFile,
    `broker: { embedded: { port: ${brokerPort} }, user: cloud, password: cloud-secret }
edges: [{ name: counting, password: edge-secret }]
store: ${store}
http: { port: ${httpPort} }
`,
  );
  await writeFile(
    edgeFile,
    `edge: counting
uplink: { url: "mqtt://127.0.0.1:${brokerPort}", password: edge-secret, acknowledge_timeout: 2 s }
buffer: { path: ./buffer }
frame: { max_readings: 65536, linger: 20 ms }
devices:
  - name: counter
    protocol: counter
    tags: [${tags.map((tag) => `{ name: ${tag} }`).join(", ")}]
`,
  );
  const env = { COUNTER_EPOCH: String((Date.now() - 3_600_000) * 1000) };
  const process = (name: string, script: string, args: string[]) =>
    new RigProcess(script, args, env, join(folder, `${name}.log`));
  return {
    edge: process("edge", "test/integration/rig/counter-edge.ts", [edgeFile]),
    broker: process("broker", "millrace.ts", ["broker", cloudFile]),
    cloud: process("cloud", "millrace.ts", ["cloud", "--broker-elsewhere", cloudFile]),
    api: `http://127.0.0.1:${httpPort}/api/v1`,
  };
}

/** Kills a process chosen at random, again and again, and starts it at once; does not wait until it is ready. */
async function killAtRandom(rig: Rig, next: () => number, others: readonly (() => Promise<void>)[]): Promise<string> {
  const counts = { edge: 0, broker: 0, cloud: 0, other: 0 };
  const names = ["edge", "broker", "cloud"] as const;
  for (let kill = 0; kill < kills; kill++) {
    await delay(pauseMs(next));
    if (others.length > 0 && kill % 10 === 9) {
      await others[Math.floor(next() * others.length)]!();
      counts.other++;
    }
    const name = names[Math.floor(next() * names.length)]!;
    await rig[name].end("SIGKILL");
    rig[name].spawn();
    counts[name]++;
  }
  return JSON.stringify(counts);
}

/** Lets everything run undisturbed until the last frame is acknowledged; returns the last number that was counted. */
async function settle(rig: Rig): Promise<number> {
  await rig.edge.end("SIGKILL");
  for (const name of ["broker", "cloud"] as const) {
    await rig[name].end("SIGKILL");
    await rig[name].start();
  }
  rig.edge.env = { ...rig.edge.env, COUNTER_HOLD: "1" };
  const { resumedAfter } = await rig.edge.start();
  const last = Number(resumedAfter);
  await expect
    .poll(
      async () => {
        const response = await fetch(`${rig.api}/tags/counting.counter.${tags[0]}`).catch(() => undefined);
        const body = response?.ok ? ((await response.json()) as { latest: { value: number } | null }) : undefined;
        return body?.latest?.value;
      },
      { timeout: 60_000, interval: 200 },
    )
    .toBe(last);
  await expect
    .poll(async () => ((await (await fetch(`${rig.api}/edges`)).json()) as EdgesBody).items[0]?.whole, {
      timeout: 60_000,
      interval: 200,
    })
    .toBe(true);
  return last;
}

interface EdgesBody {
  readonly items: readonly { readonly whole: boolean; readonly streams: readonly { readonly last_seq: number }[] }[];
}

/** Reads every value of every tag from the store and expects 1, 2, 3 … last, each once. */
async function expectEachOnce(options: StoreOptions, last: number): Promise<void> {
  const store = await openStore(options, { log: pino({ level: "silent" }) });
  try {
    await store.migrate();
    for (const tag of tags) {
      let expected = 0;
      const wrong: string[] = [];
      let after: Parameters<typeof store.readings>[1]["after"];
      do {
        const page = await store.readings(`counting.counter.${tag}`, { from: 0, to: 2 ** 51, limit: 10_000, after });
        for (const { value } of page.readings) {
          expected++;
          if (value !== expected && wrong.length < 5) wrong.push(`${value} where ${expected} was expected`);
          expected = Number(value);
        }
        after = page.next ?? undefined;
      } while (after !== undefined);
      expect(wrong, tag).toEqual([]);
      expect(expected, tag).toBe(last);
    }
  } finally {
    await store.close();
  }
}

describe(`with edge, broker and cloud killed ${kills} times at random (seed ${seed})`, () => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function prove(store: string, options: StoreOptions, folder: string, others: (() => Promise<void>)[]) {
    const rig = await createRig(folder, store);
    for (const name of ["edge", "broker", "cloud"] as const) cleanups.push(() => rig[name].end("SIGKILL"));
    await Promise.all([rig.broker.start(), rig.cloud.start()]);
    await rig.edge.start();
    const counts = await killAtRandom(rig, random(seed), others);
    const last = await settle(rig);
    await Promise.all([rig.edge.end("SIGTERM"), rig.cloud.end("SIGTERM")]);
    await expectEachOnce(options, last);
    console.log(`seed ${seed}: killed ${counts}; ${last} steps of ${tags.length} tags, each in the database once`);
    expect(last).toBeGreaterThan(kills);
  }

  async function newFolder(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "millrace-once-"));
    cleanups.push(() => rm(folder, { recursive: true, force: true }));
    return folder;
  }

  it("the embedded database holds every value once", { timeout: 60_000 + kills * 2000 }, async () => {
    const folder = await newFolder();
    await prove("{ embedded: { path: ./database } }", { embedded: { path: join(folder, "database") } }, folder, []);
  });

  it.skipIf(postgresUrl === undefined)(
    "TimescaleDB, which crashes and recovers meanwhile, holds every value once (needs MILLRACE_TEST_POSTGRES_URL)",
    { timeout: 60_000 + kills * 2000 },
    async () => {
      const name = `mr_once_${process.pid}_${Date.now()}`;
      await withAdmin((admin) => admin.query(`CREATE DATABASE ${name}`));
      cleanups.push(() => withAdmin((admin) => admin.query(`DROP DATABASE ${name} WITH (FORCE)`)));
      const url = new URL(postgresUrl!);
      url.pathname = `/${name}`;
      await prove(`{ url: "${url.href}" }`, { url: url.href }, await newFolder(), [() => crashDatabase(name)]);
    },
  );
});

async function withAdmin(work: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const admin = new pg.Client({ connectionString: postgresUrl, connectionTimeoutMillis: 5000 });
    admin.on("error", () => undefined);
    try {
      await admin.connect();
      await work(admin);
      return;
    } catch (error) {
      if (attempt === 50) throw error;
      await delay(200); // the server is recovering
    } finally {
      await admin.end().catch(() => undefined);
    }
  }
}

/**
 * Kills a backend of the database with SIGKILL. PostgreSQL then ends every other backend, restarts and replays its log,
 * as after a crash of the machine.
 */
async function crashDatabase(name: string): Promise<void> {
  const admin = new pg.Client({ connectionString: postgresUrl, connectionTimeoutMillis: 5000 });
  admin.on("error", () => undefined); // our own connection goes with the others
  try {
    await admin.connect();
    const { rows } = await admin.query("SELECT pid FROM pg_stat_activity WHERE datname = $1 LIMIT 1", [name]);
    if (rows.length > 0) await admin.query(`COPY (SELECT 1) TO PROGRAM 'kill -9 ${Number(rows[0].pid)}'`);
  } catch {
    // the connection broke, as meant
  } finally {
    await admin.end().catch(() => undefined);
  }
}
