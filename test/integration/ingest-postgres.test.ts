import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type RunningCloud, startCloud } from "../../cloud/main.ts";
import { openStore } from "../../cloud/store/open.ts";
import type { Store } from "../../cloud/store/store.ts";
import { type CloudConfig, cloudSchema } from "../../config/cloud.ts";
import { createServerDatabase, type ServerDatabase, serverUrl } from "../contract/store-databases.ts";
import { allReadings } from "../contract/store-frames.ts";
import { CloudRig, recordedLog, startTestBroker, TestIngest } from "./rig/cloud.ts";
import { upTo, WireEdge } from "./rig/wire-edge.ts";

const log = pino({ level: "silent" });
const missed = "NOT TESTED: ingest into a server that fails. Set MILLRACE_TEST_POSTGRES_URL to a superuser's URL";

/** The way to the database server, which can be cut. */
class CuttableWay {
  readonly #target: URL;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  port = 0;

  constructor(target: string) {
    this.#target = new URL(target);
  }

  /** Opens the way; on the same port when it was open before. */
  async open(): Promise<void> {
    const server = createServer((socket) => {
      const upstream = connect(Number(this.#target.port || 5432), this.#target.hostname);
      for (const each of [socket, upstream]) {
        this.#sockets.add(each);
        each.on("error", () => undefined);
        each.on("close", () => {
          this.#sockets.delete(each);
          socket.destroy();
          upstream.destroy();
        });
      }
      socket.pipe(upstream).pipe(socket);
    });
    this.#server = server.listen(this.port, "127.0.0.1");
    await once(server, "listening");
    this.port = (server.address() as { port: number }).port;
  }

  /** Cuts every connection and refuses new ones. */
  async cut(): Promise<void> {
    const closed = new Promise((resolve) => this.#server?.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    this.#server = undefined;
  }

  get url(): string {
    const url = new URL(this.#target);
    url.hostname = "127.0.0.1";
    url.port = String(this.port);
    return url.href;
  }
}

describe("the user of store.user", () => {
  it("is who logs in to the database", async () => {
    // A server that hears the startup message (PostgreSQL manual, "Message Formats") and hangs up.
    const heard = Promise.withResolvers<string>();
    const server = createServer((socket) =>
      socket.once("data", (bytes) => heard.resolve(String(bytes)) ?? socket.destroy()),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const store = await openStore(
      { url: `postgres://somebody@127.0.0.1:${port}/plant`, user: "millrace writer/ü" },
      { log },
    );
    await expect(store.ping()).rejects.toThrow();
    expect(await heard.promise).toContain("user\0millrace writer/ü\0database\0plant\0");
    await store.close();
    server.close();
  });
});

describe.skipIf(serverUrl === undefined)(
  serverUrl === undefined ? missed : "ingest into a server that fails",
  { timeout: 60_000 },
  () => {
    let database: ServerDatabase;
    const cleanups: (() => unknown)[] = [];
    const edges = ["line-1", "line-2", "line-3", "line-4"];

    beforeAll(async () => {
      database = await createServerDatabase();
      const store = await database.open();
      await store.migrate();
      await store.close();
    });
    afterEach(async () => {
      for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
    });
    afterAll(() => database?.drop());

    const counted = async (edge: string) => {
      const store = await database.open();
      const values = (await allReadings(store, `${edge}.d.count`)).map(({ value }) => value);
      await store.close();
      return values;
    };
    /** Sends all that is not acknowledged, and the device map where it is asked for, again and again, until all is. */
    const sendUntilCommitted = async (edge: WireEdge, last: number) => {
      const deadline = performance.now() + 40_000;
      for (;;) {
        const missing = upTo(last).filter((seq) => !edge.committed.includes(seq));
        if (missing.length === 0) return;
        if (performance.now() > deadline) throw new Error(`${missing.length} frames are not acknowledged`);
        if (edge.mapsNeeded.splice(0).length > 0) await edge.sendMap();
        for (const seq of missing) void edge.send(edge.countFrame(seq));
        await delay(300);
      }
    };
    const connectEdge = async (name: string, url: string) => {
      const edge = await new WireEdge(name).connect(url);
      cleanups.push(() => edge.drop());
      await edge.sendMap();
      return edge;
    };

    it("stores every frame once while its connections are terminated again and again", async () => {
      const store = await database.open();
      cleanups.push(() => store.close());
      const cloud = await CloudRig.start({ store, edges, maxRowsPerTransaction: 10 });
      cleanups.push(() => cloud.close());
      const edge = await connectEdge("line-1", cloud.url);
      const enough = 20;
      let terminated = 0;
      const sending = sendUntilCommitted(edge, 3000);
      const terminator = (async () => {
        while (terminated < enough) {
          const rows = await database.ask(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'millrace'`);
          terminated += rows.length;
          await delay(30);
        }
      })();
      await terminator;
      await sending;
      expect(await counted("line-1")).toEqual(upTo(3000));
      expect(cloud.lines.map(({ msg }) => msg).join("\n")).toContain("the database is away");
    });

    it("stores every frame once when two clouds with stores of their own hear all of them", async () => {
      const recorded = recordedLog();
      const { broker, url } = await startTestBroker(edges, recorded.log);
      cleanups.push(() => broker.stop());
      const stores: Store[] = [];
      const clouds: TestIngest[] = [];
      for (let i = 0; i < 2; i++) {
        const store = await database.open();
        stores.push(store);
        clouds.push(new TestIngest(url, store, { edges, maxRowsPerTransaction: 50 }, recorded.log));
      }
      cleanups.push(async () => {
        for (const cloud of clouds) await cloud.stop();
        for (const store of stores) await store.close();
      });
      await expect.poll(() => clouds.every(({ ingest }) => ingest.connected)).toBe(true);
      const edge = await connectEdge("line-2", url);
      await sendUntilCommitted(edge, 2000);
      expect(await counted("line-2")).toEqual(upTo(2000));
      const stored = await Promise.all(clouds.map((cloud) => cloud.frames("stored")));
      expect(stored[0]! + stored[1]!).toBe(2000);
      // Nobody waited for anybody in a circle.
      expect(recorded.lines.filter(({ level }) => level >= 40)).toEqual([]);
    });

    describe("as the whole cloud service, behind a way that can be cut", () => {
      let proxy: CuttableWay;
      let cloud: RunningCloud;

      const startBehind = async (config: Record<string, unknown> = {}) => {
        const parsed: CloudConfig = cloudSchema("/").parse({
          broker: { embedded: { port: 0 } },
          edges: edges.map((name) => ({ name, password: `${name}-secret` })),
          store: { url: proxy.url },
          http: { port: 0 },
          ...config,
        });
        cloud = await startCloud(parsed, { log, version: "test" });
        cleanups.push(() => cloud.stop());
      };
      const readiness = async () => (await fetch(`${cloud.addresses.http}/health/ready`)).status;

      it("waits for a database that is away at the start, and again when it goes away later", async () => {
        proxy = new CuttableWay(database.url);
        await proxy.open();
        cleanups.push(() => proxy.cut());
        await proxy.cut();
        await startBehind();
        expect(await readiness()).toBe(503);
        await proxy.open();
        await expect.poll(readiness, { timeout: 15_000 }).toBe(200);
        const edge = await connectEdge("line-3", cloud.addresses.broker!);
        await edge.send(edge.countFrame(1));
        await expect.poll(() => edge.committed, { timeout: 10_000 }).toEqual([1]);

        await proxy.cut();
        for (let seq = 2; seq <= 100; seq++) void edge.send(edge.countFrame(seq));
        await expect.poll(readiness, { timeout: 15_000 }).toBe(503);
        expect(edge.committed).toEqual([1]);
        await proxy.open();
        // By itself: the frames waited here.
        await expect.poll(() => new Set(edge.committed).size, { timeout: 20_000 }).toBe(100);
        await expect.poll(readiness, { timeout: 15_000 }).toBe(200);
        expect(await counted("line-3")).toEqual(upTo(100));
      });
    });
  },
);
