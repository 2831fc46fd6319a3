import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface, type Interface } from "node:readline";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import type { Store } from "../../cloud/store/store.ts";
import { ConfigError, LinkError } from "../../protocols/errors.ts";
import { EmbeddedDatabases } from "./store-databases.ts";
import { allReadings, counterEdge, counterFrame, counterRows, t0 } from "./store-frames.ts";

const log = pino({ level: "silent" });

describe("the embedded store and its process", () => {
  const embedded = new EmbeddedDatabases();
  let path: string;
  const children: ChildProcess[] = [];
  const stores: Store[] = [];

  const open = async () => {
    const store = await openStore({ embedded: { path } }, { log });
    stores.push(store);
    await store.migrate();
    return store;
  };

  /** Starts a process that writes from `first` on; its lines say what it has committed. */
  const startWriter = (first: number): { child: ChildProcess; lines: Interface } => {
    const script = join(import.meta.dirname, "store-embedded-writer.ts");
    const child = spawn(process.execPath, [script, path, String(first)], { stdio: ["ignore", "pipe", "inherit"] });
    children.push(child);
    return { child, lines: createInterface(child.stdout!) };
  };

  const kill = async (child: ChildProcess) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };

  beforeAll(async () => {
    path = await embedded.copy();
  });
  afterEach(async () => {
    for (const store of stores.splice(0)) await store.close();
    for (const child of children.splice(0)) await kill(child);
  });
  afterAll(async () => {
    await rm(path, { recursive: true });
    await embedded.dispose();
  });

  it("holds what was committed, once, after its process was killed in mid-write, again and again", async () => {
    const committed = new Set<number>();
    for (let round = 0; round < 4; round++) {
      // From a number that the killed process may or may not have written: it comes again, as from an edge.
      const { child, lines } = startWriter(Math.max(1, ...committed) - 1 || 1);
      const wanted = 8 + round * 7;
      let seen = 0;
      const exited = once(child, "exit");
      for await (const line of lines) {
        if (line === "open") continue;
        committed.add(Number(line));
        seen += 1;
        // At any moment of the write that runs now.
        if (seen === wanted) setTimeout(() => child.kill("SIGKILL"), Math.random() * 30);
      }
      await exited;
      expect(seen).toBeGreaterThanOrEqual(wanted);
    }

    const store = await open();
    const [edge] = await store.edges();
    expect(edge!.streams[0]!.missing).toEqual([]);
    expect(edge!.frames).toBeGreaterThanOrEqual(committed.size);
    const readings = await allReadings(store, `${counterEdge.name}.d.count`, 50_000);
    expect(readings).toHaveLength(edge!.frames * counterRows);
    expect(readings.findIndex(({ value }, i) => value !== i)).toBe(-1);
    const again = await store.write([...committed].slice(-3).map(counterFrame));
    expect(new Set(again)).toEqual(new Set(["duplicate"]));
  });

  it("belongs to one process at a time, and says to which", async () => {
    const { child, lines } = startWriter(10_000);
    await once(lines, "line");
    const attempt = openStore({ embedded: { path } }, { log });
    await expect(attempt).rejects.toThrow(ConfigError);
    await expect(attempt).rejects.toThrow(`process ${child.pid} on `);
    await kill(child);
    await open();
    await expect(open()).rejects.toThrow(`process ${process.pid} on `);
  });

  it("lets the process do its other work while it writes", async () => {
    const store = await open();
    await counterEdge.save(store);
    const frames = Array.from({ length: 50 }, (_, i) => counterFrame(20_000 + i));
    const delay = monitorEventLoopDelay({ resolution: 5 });
    const began = performance.now();
    delay.enable();
    await store.write(frames);
    delay.disable();
    const tookMs = performance.now() - began;
    // In the thread itself the event loop would stand still for all of it.
    expect(delay.max / 1e6).toBeLessThan(Math.max(50, tookMs / 2));
  });

  it("goes on by itself after the engine broke down, as when the disk was full", async () => {
    const store = await open();
    await counterEdge.save(store);
    const [log, elsewhere] = [join(path, "pgdata", "pg_wal"), join(path, "pg_wal")];
    const first = 30_000;
    const write = (group: number) =>
      store.write(Array.from({ length: 20 }, (_, i) => counterFrame(first + group * 20 + i)));
    // Without the folder of its log PostgreSQL can go on only as far as the open file of it reaches.
    await rename(log, elsewhere);
    let group = 0;
    const untilItFails = async () => {
      for (; group < 100; group++) await write(group);
    };
    await expect(untilItFails()).rejects.toThrow(LinkError);
    await expect(write(group)).rejects.toThrow(LinkError);
    await rename(elsewhere, log);
    const outcomes = new Set(await write(group));
    expect(outcomes.size).toBe(1); // the whole group: stored now, or by the commit whose answer was lost
    const range = { from: t0 + (first - 1) * counterRows, to: Number.MAX_SAFE_INTEGER, limit: 1_000_000 };
    const { readings } = await store.readings(`${counterEdge.name}.d.count`, range);
    expect(readings).toHaveLength((group + 1) * 20 * counterRows);
    expect(readings.findIndex(({ value }, i) => value !== (first - 1) * counterRows + i)).toBe(-1);
  });

  it("makes the database anew when it was killed while making it", async () => {
    await rm(join(path, "complete"));
    await rm(join(path, "pgdata", "global"), { recursive: true });
    const store = await open();
    expect(await store.edges()).toEqual([]);
    await store.close();
    expect(await readdir(path)).toContain("complete");
  });
});
