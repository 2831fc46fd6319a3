import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import type { IncomingFrame, Store } from "../../cloud/store/store.ts";
import { DataError, LinkError } from "../../protocols/errors.ts";
import { CloudRig, type CloudRigOptions, type Fault, withFaults } from "./rig/cloud.ts";
import { upTo, WireEdge } from "./rig/wire-edge.ts";

const away = () => new LinkError("the database does not answer");
const holds = (argument: unknown, seq: number) =>
  (argument as readonly IncomingFrame[]).some((frame) => frame.seq === seq);

describe("ingest and a database that fails", () => {
  let folder: string;
  let store: Store;
  let edges = 0;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "millrace-away-"));
    store = await openStore({ embedded: { path: folder } }, { log: pino({ level: "silent" }) });
    await store.migrate();
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(async () => {
    await store?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** A cloud whose store fails as told, and an edge with its map stored. */
  async function start(fault: Fault, options: Partial<CloudRigOptions> = {}) {
    const name = `line-${++edges}`;
    const between = (inner: Store) => withFaults(inner, fault);
    const cloud = await CloudRig.start({ store, edges: [name], between, ...options });
    cleanups.push(() => cloud.close());
    const edge = await new WireEdge(name).connect(cloud.url);
    cleanups.push(() => edge.drop());
    const others = Array.from({ length: 2 }, () => new WireEdge(name));
    return { cloud, edge, others };
  }

  const sendAll = (edge: WireEdge, seqs: readonly number[]) =>
    Promise.all(seqs.map((seq) => edge.send(edge.countFrame(seq))));
  const distinct = (seqs: readonly number[]) => [...new Set(seqs)].sort((a, b) => a - b);
  const warnings = (cloud: CloudRig) => cloud.lines.filter(({ level }) => level >= 40).map(({ msg }) => msg);

  it("keeps what it has room for, leaves the rest to the edge, and goes on by itself", async () => {
    let down = false;
    const fault: Fault = () => (down ? away() : undefined);
    const { cloud, edge } = await start(fault, { maxPendingBytes: 40 * 1024 });
    await edge.sendMap();
    await expect.poll(() => edge.mapsStored.length).toBe(1);
    down = true;
    for (let sending = 0; sending < 5; sending++) await sendAll(edge, upTo(100));
    await expect.poll(() => cloud.ingest.frames("deferred")).toBeGreaterThan(100);
    expect(await cloud.ingest.metric("millrace_ingest_pending_bytes")).toBeLessThanOrEqual(40 * 1024);
    expect(edge.committed).toEqual([]);
    down = false;
    // Nothing was sent meanwhile, and something is committed: what waited.
    await expect.poll(() => edge.committed.length).toBeGreaterThan(0);
    while (distinct(edge.committed).length < 100) {
      await sendAll(
        edge,
        upTo(100).filter((seq) => !edge.committed.includes(seq)),
      );
    }
    expect(await cloud.counted(edge.name)).toEqual(upTo(100));
    // Said once, however often it was tried.
    expect(warnings(cloud)).toEqual([expect.stringContaining("the database is away")]);
    expect(cloud.lines.map(({ msg }) => msg)).toContain("the database takes frames again");
  });

  it("stores a frame once when the answer to its COMMIT was lost", async () => {
    let lost = 0;
    const { cloud, edge } = await start(async (method, _, done) => {
      if (method !== "write" || lost === 3) return undefined;
      lost++;
      await done();
      return away();
    });
    await edge.sendMap();
    await sendAll(edge, upTo(30));
    await expect.poll(() => distinct(edge.committed)).toEqual(upTo(30));
    expect(lost).toBe(3);
    expect(await cloud.counted(edge.name)).toEqual(upTo(30));
  });

  it("acknowledges nothing before COMMIT", async () => {
    const commit = Promise.withResolvers<void>();
    const { cloud, edge } = await start(async (method, _, done) => {
      if (method !== "write") return undefined;
      await done();
      await commit.promise;
      return undefined;
    });
    await edge.sendMap();
    await sendAll(edge, upTo(3));
    await expect.poll(() => cloud.counted(edge.name)).toEqual(expect.arrayContaining([1]));
    // Whatever the cloud would send is received before the answer to this publish and the one to the next map.
    await edge.sendMap();
    await expect.poll(() => edge.mapsStored.length).toBe(2);
    expect(edge.committed).toEqual([]);
    commit.resolve();
    await expect.poll(() => distinct(edge.committed)).toEqual([1, 2, 3]);
  });

  it("refuses the one frame that the database can never take, and stores those beside it", async () => {
    const { cloud, edge } = await start((method, argument) =>
      method === "write" && holds(argument, 13) ? new DataError("column number: out of range") : undefined,
    );
    await edge.sendMap();
    await sendAll(edge, upTo(40));
    await expect.poll(() => distinct(edge.committed).length).toBe(39);
    await expect.poll(() => edge.refused).toEqual([{ seq: 13, reason: "column number: out of range" }]);
    expect(await cloud.counted(edge.name)).toEqual(upTo(40).filter((seq) => seq !== 13));
    expect((await store.refusedMessages(1))[0]).toMatchObject({ edge: edge.name, seq: 13 });
  });

  it("gives back to its edge a frame that breaks the database each time, and stores the others", async () => {
    let broken = true;
    const { cloud, edge } = await start((method, argument) =>
      broken && method === "write" && holds(argument, 5) ? new LinkError("the engine broke down") : undefined,
    );
    await edge.sendMap();
    await sendAll(edge, upTo(16));
    await expect.poll(() => distinct(edge.committed).length, { timeout: 15_000 }).toBe(15);
    await expect
      .poll(() => warnings(cloud).join("\n"), { timeout: 10_000 })
      .toContain("left to its edge to send again");
    // Neither acknowledged nor refused: it may be the database's fault.
    expect(edge.committed).not.toContain(5);
    expect(edge.refused).toEqual([]);
    broken = false;
    await sendAll(edge, [5]);
    await expect.poll(() => edge.committed).toContain(5);
    expect(await cloud.counted(edge.name)).toEqual(upTo(16));
  });

  it("treats a fault of its own like one of the database: nothing is lost or refused", async () => {
    const { cloud, edge } = await start((method, argument) =>
      method === "write" && holds(argument, 2) ? new TypeError("undefined is not a function") : undefined,
    );
    await edge.sendMap();
    await sendAll(edge, upTo(3));
    await expect.poll(() => distinct(edge.committed), { timeout: 10_000 }).toEqual([1, 3]);
    expect(edge.refused).toEqual([]);
    expect(warnings(cloud)[0]).toContain("the database fails");
  });

  it("asks again for a device map that could not be saved", async () => {
    let failures = 0;
    const { cloud, edge } = await start((method) =>
      method === "saveDeviceMap" && failures++ < 1 ? away() : undefined,
    );
    await edge.sendMap();
    await edge.send(edge.countFrame(1));
    await expect.poll(() => edge.mapsNeeded).toEqual([edge.map.hash]);
    await edge.sendMap();
    await edge.send(edge.countFrame(1));
    await expect.poll(() => edge.committed).toEqual([1]);
    expect(await cloud.counted(edge.name)).toEqual([1]);
  });

  it("does not let one edge wait for another's device map", async () => {
    const saving = Promise.withResolvers<void>();
    const names = ["slow-map", "quick-map"];
    const between = (inner: Store) =>
      withFaults(inner, async (method, argument) => {
        if (method === "saveDeviceMap" && argument === slow.map.hash) await saving.promise;
        return undefined;
      });
    const slow = new WireEdge("slow-map");
    const quick = new WireEdge("quick-map");
    const cloud = await CloudRig.start({ store, edges: names, between });
    cleanups.push(() => cloud.close());
    for (const edge of [slow, quick]) {
      await edge.connect(cloud.url);
      cleanups.push(() => edge.drop());
      await edge.sendMap();
      await edge.send(edge.countFrame(1));
    }
    await expect.poll(() => quick.committed).toEqual([1]);
    expect(slow.committed).toEqual([]);
    saving.resolve();
    await expect.poll(() => slow.committed).toEqual([1]);
    expect(slow.mapsNeeded).toEqual([]);
  });

  it("keeps a refused frame once the database is back, and only then says so", async () => {
    let down = true;
    const { edge } = await start((method) => (method === "keepRefused" && down ? away() : undefined));
    await edge.sendMap();
    await edge.send(edge.frame(1, [{ tag: 9, time: 1_777_636_800_000_000, value: 1 }]));
    await edge.send(edge.countFrame(2));
    await expect.poll(() => edge.committed).toEqual([2]);
    expect(edge.refused).toEqual([]);
    down = false;
    await expect.poll(() => edge.refused.map(({ seq }) => seq)).toEqual([1]);
    expect((await store.refusedMessages(1))[0]).toMatchObject({ edge: edge.name, seq: 1 });
  });

  it("stops at once while the database is away, and the edge keeps its frames", async () => {
    let down = true;
    const { cloud, edge } = await start((method) => (method === "write" && down ? away() : undefined));
    await edge.sendMap();
    await sendAll(edge, upTo(5));
    await expect.poll(() => warnings(cloud).length).toBe(1);
    const started = performance.now();
    await cloud.ingest.stop();
    expect(performance.now() - started).toBeLessThan(1000);
    expect(edge.committed).toEqual([]);
    down = false;
    const next = cloud.startIngest();
    await cloud.listening(next);
    await sendAll(edge, upTo(5));
    await expect.poll(() => distinct(edge.committed)).toEqual(upTo(5));
    expect(await cloud.counted(edge.name)).toEqual(upTo(5));
    await next.stop();
  });

  it("still acknowledges, while it stops, what it is just committing", async () => {
    const writing = Promise.withResolvers<void>();
    const commit = Promise.withResolvers<void>();
    const { cloud, edge } = await start(async (method) => {
      if (method !== "write") return undefined;
      writing.resolve();
      await commit.promise;
      return undefined;
    });
    await edge.sendMap();
    await edge.send(edge.countFrame(1));
    await writing.promise;
    const stopped = cloud.ingest.stop();
    commit.resolve();
    await stopped;
    await expect.poll(() => edge.committed).toEqual([1]);
  });
});
