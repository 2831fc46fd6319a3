import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../cloud/store/open.ts";
import type { Store } from "../../cloud/store/store.ts";
import { packContent } from "../../protocols/uplink/envelope.ts";
import { columnsOf, t0 } from "../contract/store-frames.ts";
import { CloudRig } from "./rig/cloud.ts";
import { connectMqtt, upTo, WireEdge } from "./rig/wire-edge.ts";

const edges = Array.from({ length: 12 }, (_, index) => `line-${index + 1}`);

describe("ingest over the wire", () => {
  let cloud: CloudRig;
  const unused = [...edges];
  const connected: WireEdge[] = [];

  const connect = async (edge: WireEdge) => {
    await edge.connect(cloud.url);
    connected.push(edge);
    return edge;
  };
  /** An edge of the test's own, its map stored. */
  const newEdge = async () => {
    const edge = await connect(new WireEdge(unused.pop()!));
    await edge.sendMap();
    await expect.poll(() => edge.mapsStored).toEqual([edge.map.hash]);
    return edge;
  };

  beforeAll(async () => {
    cloud = await CloudRig.start({ edges });
  });
  afterAll(async () => {
    for (const edge of connected) edge.drop();
    await cloud?.close();
  });

  it("acknowledges a frame when its readings are in the database", async () => {
    const edge = await newEdge();
    await edge.send(
      edge.frame(1, [
        { tag: 0, time: t0, value: 1.5 },
        { tag: 1, time: t0, value: "batch 147" },
      ]),
    );
    await expect.poll(() => edge.committed).toEqual([1]);
    expect(await cloud.counted(edge.name)).toEqual([1.5]);
    const tags = await cloud.store.tags({ edge: edge.name, limit: 10 });
    expect(tags.map(({ name, latest }) => [name, latest?.value])).toEqual([
      ["count", 1.5],
      ["label", "batch 147"],
    ]);
  });

  it("stores a frame once, however often it comes: at once, later, and between others", async () => {
    const edge = await newEdge();
    const frames = upTo(20).map((seq) => edge.countFrame(seq));
    await Promise.all([...frames, ...frames, ...frames].map((frame) => edge.send(frame)));
    await expect.poll(() => new Set(edge.committed).size).toBe(20);
    const duplicates = await cloud.ingest.frames("duplicate");
    edge.committed.length = 0;
    for (const frame of frames) await edge.send(frame);
    // What was stored before is acknowledged again: the edge may not have heard it.
    await expect.poll(() => [...edge.committed].sort((a, b) => a - b)).toEqual(upTo(20));
    expect(await cloud.ingest.frames("duplicate")).toBe(duplicates + 20);
    expect(await cloud.counted(edge.name)).toEqual(upTo(20));
  });

  it("takes frames in any order, and names what is missing until it is there", async () => {
    const edge = await newEdge();
    const missing = async () =>
      (await cloud.store.edges()).find((row) => row.edge === edge.name)!.streams.map((stream) => stream.missing);
    for (const seq of [5, 2, 9, 1]) await edge.send(edge.countFrame(seq));
    await expect.poll(() => edge.committed.length).toBe(4);
    expect(await missing()).toEqual([
      [
        [3, 4],
        [6, 8],
      ],
    ]);
    for (const seq of [8, 3, 7, 4, 6]) await edge.send(edge.countFrame(seq));
    await expect.poll(() => edge.committed.length).toBe(9);
    expect(await missing()).toEqual([[]]);
    expect(await cloud.counted(edge.name)).toEqual(upTo(9));
  });

  it("asks for the device map of a frame that came before it, and stores nothing until then", async () => {
    const edge = await connect(new WireEdge(unused.pop()!));
    await edge.send(edge.countFrame(1));
    await expect.poll(() => edge.mapsNeeded).toEqual([edge.map.hash]);
    expect(edge.committed).toEqual([]);
    await edge.sendMap();
    await edge.send(edge.countFrame(1));
    await expect.poll(() => edge.committed).toEqual([1]);
    expect(await cloud.counted(edge.name)).toEqual([1]);
  });

  it("stores a frame that comes with its device map at the first attempt", async () => {
    const edge = await connect(new WireEdge(unused.pop()!));
    const unknown = await cloud.ingest.frames("unknown_map");
    await Promise.all([edge.sendMap(), edge.sendMap(), edge.send(edge.countFrame(1)), edge.send(edge.countFrame(2))]);
    await expect.poll(() => edge.committed.length).toBe(2);
    expect(await cloud.ingest.frames("unknown_map")).toBe(unknown);
    expect(edge.mapsNeeded).toEqual([]);
    expect(await cloud.counted(edge.name)).toEqual([1, 2]);
  });

  it("stores a frame once when its acknowledgement was lost and it is sent again", async () => {
    const edge = await newEdge();
    await edge.send(edge.countFrame(1)); // the broker has it
    edge.drop();
    await expect.poll(() => cloud.counted(edge.name)).toEqual([1]);
    expect(edge.committed).toEqual([]);
    await edge.connect(cloud.url);
    await edge.send(edge.countFrame(1));
    await expect.poll(() => edge.committed).toEqual([1]);
    expect(await cloud.counted(edge.name)).toEqual([1]);
  });

  it("tells two edges with one stream's name (a copied disk) each of its own frames alone", async () => {
    const [one, other] = [await newEdge(), await newEdge()];
    const frames = upTo(30);
    await Promise.all([
      ...frames.map((seq) => one.send(one.countFrame(seq))),
      ...frames.map((seq) => other.send(other.countFrame(1000 + seq))),
    ]);
    await expect.poll(() => one.committed.length + other.committed.length).toBe(60);
    expect([...one.committed].sort((a, b) => a - b)).toEqual(frames);
    expect([...other.committed].sort((a, b) => a - b)).toEqual(frames.map((seq) => 1000 + seq));
    expect(await cloud.counted(one.name)).toEqual(frames);
  });

  it("answers the client that took over another of the same client id", async () => {
    const edge = await newEdge();
    const second = await connect(new WireEdge(edge.name));
    await expect.poll(() => edge.connected).toBe(false);
    await second.send(second.countFrame(1));
    await expect.poll(() => second.committed).toEqual([1]);
    expect(edge.committed).toEqual([]);
    expect(await cloud.counted(edge.name)).toEqual([1]);
  });

  it("stores a frame once when two clouds listen to one broker", async () => {
    const edge = await newEdge();
    const second = cloud.startIngest();
    try {
      await cloud.listening(second);
      await Promise.all(upTo(50).map((seq) => edge.send(edge.countFrame(seq))));
      // Each of them answers each frame: one that it has stored it, the other that it is there.
      await expect.poll(() => edge.committed.length).toBe(100);
      expect(new Set(edge.committed).size).toBe(50);
      expect(await second.frames("stored")).toBeLessThanOrEqual(50);
      expect((await second.frames("stored")) + (await second.frames("duplicate"))).toBe(50);
      expect(await cloud.counted(edge.name)).toEqual(upTo(50));
    } finally {
      await second.stop();
    }
  });

  it("says when it begins to listen, so that edges send at once what was not acknowledged", async () => {
    const edge = await newEdge();
    const listener = await connectMqtt(cloud.url, { username: edge.name, password: `${edge.name}-secret` });
    const heard: string[] = [];
    listener.on("message", (topic) => heard.push(topic));
    await listener.subscribeAsync("millrace/v1/cloud/ready", { qos: 1 });
    const second = cloud.startIngest();
    await expect.poll(() => heard).toEqual(["millrace/v1/cloud/ready"]);
    await second.stop();
    listener.end(true);
  });

  it("takes a frame of gaps alone, and one of nothing", async () => {
    const edge = await newEdge();
    const gap = { device: "d", tag: null, reason: "device_down" as const, from: t0, to: null, detail: "no answer" };
    await edge.send(edge.frame(1, [], [gap]));
    await edge.send(edge.frame(2, []));
    await expect.poll(() => [...edge.committed].sort()).toEqual([1, 2]);
    expect(await cloud.store.gaps({ edge: edge.name, limit: 10 })).toMatchObject([gap]);
  });
});

describe("ingest over a restart of the cloud", () => {
  it("knows every frame of before", async () => {
    const edge = new WireEdge("line-1");
    const first = await CloudRig.start({ edges: ["line-1"] });
    await edge.connect(first.url);
    await edge.sendMap();
    await Promise.all(upTo(10).map((seq) => edge.send(edge.countFrame(seq))));
    await expect.poll(() => edge.committed.length).toBe(10);
    edge.drop();
    await first.halt();

    const second = await CloudRig.start({ edges: ["line-1"], folder: first.folder });
    try {
      await edge.connect(second.url);
      // The device map is in the database: frames are taken without it.
      await Promise.all(upTo(15).map((seq) => edge.send(edge.countFrame(seq))));
      await expect.poll(() => edge.committed.length).toBe(25);
      expect(await second.ingest.frames("duplicate")).toBe(10);
      expect(await second.ingest.frames("stored")).toBe(5);
      expect(await second.counted("line-1")).toEqual(upTo(15));
    } finally {
      edge.drop();
      await second.close();
    }
  });
});

describe("ingest with little room", () => {
  let store: Store;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "millrace-room-"));
    store = await openStore({ embedded: { path: folder } }, { log: pino({ level: "silent" }) });
    await store.migrate();
  });
  afterAll(async () => {
    await store?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("leaves to the edges what it has no room for, and takes it when they send it again", async () => {
    // Room for about fifteen of these frames, in transactions of two.
    const options = { store, edges: ["line-1"], maxPendingBytes: 32 * 1024, maxRowsPerTransaction: 2 };
    const cloud = await CloudRig.start(options);
    const edge = await new WireEdge("line-1").connect(cloud.url);
    try {
      await edge.sendMap();
      const frames = upTo(200);
      let sendings = 0;
      let mostPending = 0;
      while (new Set(edge.committed).size < frames.length) {
        const missing = frames.filter((seq) => !edge.committed.includes(seq));
        await Promise.all(missing.map((seq) => edge.send(edge.countFrame(seq))));
        mostPending = Math.max(mostPending, await cloud.ingest.metric("millrace_ingest_pending_bytes"));
        expect(++sendings).toBeLessThan(500);
      }
      expect(await cloud.ingest.frames("deferred")).toBeGreaterThan(0);
      expect(mostPending).toBeLessThanOrEqual(32 * 1024);
      expect(await cloud.counted("line-1")).toEqual(frames);
    } finally {
      edge.drop();
      await cloud.close();
    }
  });

  it("takes a frame that is larger than all the room, alone", async () => {
    const cloud = await CloudRig.start({ store, edges: ["line-2"], maxPendingBytes: 2048 });
    const edge = await new WireEdge("line-2").connect(cloud.url);
    try {
      await edge.sendMap();
      const rows = upTo(5000).map((step) => ({ tag: 0, time: t0 + step * 7, value: Math.sin(step) }));
      const frame = edge.seal(1, packContent(edge.map.hash, columnsOf(rows), []));
      expect(frame.length).toBeGreaterThan(4096);
      await edge.send(frame);
      await expect.poll(() => edge.committed).toEqual([1]);
      expect(await cloud.ingest.metric("millrace_ingest_readings_total")).toBe(5000);
    } finally {
      edge.drop();
      await cloud.close();
    }
  });
});
