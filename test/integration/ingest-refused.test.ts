import { zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { deviceMapHash, encodeDeviceMap } from "../../protocols/uplink/device-map.ts";
import { packContent } from "../../protocols/uplink/envelope.ts";
import { topics } from "../../protocols/uplink/topics.ts";
import { columnsOf, type Row, t0 } from "../contract/store-frames.ts";
import { CloudRig, service } from "./rig/cloud.ts";
import { connectMqtt, stream, WireEdge } from "./rig/wire-edge.ts";

const mebibyte = 1024 * 1024;

/** Bytes that look like nothing, the same at every run (a linear congruential generator: Numerical Recipes, 7.1). */
function garbage(length: number): Buffer {
  let state = 2;
  const bytes = Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
  return Buffer.from(bytes);
}

interface BadMessage {
  readonly what: string;
  readonly kind?: "frame" | "map";
  make(edge: WireEdge): Uint8Array;
  /** What the reason that is kept says. */
  readonly reason: RegExp;
  /** Is the frame certainly this edge's own, so that it is told not to send it again? */
  readonly told?: boolean;
}

const one = (row: Partial<Row>) => [{ tag: 0, time: t0, value: 1, ...row }];
const packed = (edge: WireEdge, rows: readonly Row[]) => packContent(edge.map.hash, columnsOf(rows), []);
/** A frame whose content is these bytes, decompressed, and which claims `size` of them. */
function frameOf(edge: WireEdge, content: Uint8Array, size = content.length): Uint8Array {
  return edge.seal(1, { mapHash: edge.map.hash, count: 0, size, bytes: zstdCompressSync(content) });
}
function changed(bytes: Uint8Array, at: number, value: number): Uint8Array {
  return Uint8Array.from(bytes).with(at, value);
}
const mapOf = (edge: string, name: string) =>
  encodeDeviceMap({
    edge,
    devices: [{ name: "d", protocol: "modbus-tcp" }],
    tags: [{ device: "d", name, kind: "number" }],
  }).bytes;

const badMessages: readonly BadMessage[] = [
  { what: "an empty frame", make: () => new Uint8Array(), reason: /0 bytes is too short/ },
  { what: "a frame of one byte", make: () => new Uint8Array([1]), reason: /too short/ },
  {
    what: "a truncated frame",
    make: (edge) => edge.countFrame(1).slice(0, -7),
    reason: /checksum is wrong/,
  },
  {
    what: "a frame with one bit flipped",
    make: (edge) => {
      const frame = edge.countFrame(1);
      return changed(frame, 40, frame[40]! ^ 4);
    },
    reason: /checksum is wrong/,
  },
  {
    what: "a frame of an unknown version",
    make: (edge) => changed(edge.countFrame(1), 0, 2),
    reason: /frame format 2 is unknown here; this program reads format 1/,
  },
  { what: "1 MiB of garbage", make: () => garbage(mebibyte), reason: /format \d+ is unknown|checksum is wrong/ },
  {
    what: "1 MiB of garbage behind a right beginning",
    make: () => changed(garbage(mebibyte), 0, 1),
    reason: /checksum is wrong/,
  },
  {
    what: "a frame of another edge",
    make: (edge) => edge.seal(1, packed(edge, one({})), stream, "honest"),
    reason: /sent a frame of the edge honest/,
  },
  {
    what: "a frame numbered 0",
    make: (edge) => edge.seal(0, packed(edge, one({}))),
    reason: /sequence number 0 is out of range/,
  },
  {
    what: "a frame of a stream that is no UUID",
    make: (edge) => edge.seal(1, packed(edge, one({})), "beef"),
    reason: /stream is no UUID/,
  },
  {
    what: "a decompression bomb that claims to be small",
    make: (edge) => frameOf(edge, Buffer.alloc(256 * mebibyte), 100),
    reason: /cannot be decompressed to its claimed size/,
    told: true,
  },
  {
    what: "a decompression bomb that is honest about its size",
    make: (edge) => frameOf(edge, Buffer.alloc(256 * mebibyte)),
    reason: /claims 268435456 bytes of content; at most 8388608/,
    told: true,
  },
  {
    what: "four million gaps in a thousand bytes",
    make: (edge) => frameOf(edge, Buffer.alloc(8 * mebibyte, Uint8Array.of(0x4a, 0))),
    reason: /more than 65536 gaps or texts/,
    told: true,
  },
  {
    what: "content that is garbage",
    make: (edge) => frameOf(edge, garbage(5000)),
    reason: /content is no valid message|column/,
    told: true,
  },
  {
    what: "a tag index beyond the map",
    make: (edge) => edge.frame(1, one({ tag: 2 })),
    reason: /device map has no tag 2/,
    told: true,
  },
  {
    what: "a tag index far beyond the map, between good ones",
    make: (edge) => edge.frame(1, [...one({}), ...one({ tag: 4_000_000_000 })]),
    reason: /device map has no tag 4000000000/,
    told: true,
  },
  {
    what: "a time in the year 1601",
    make: (edge) => edge.frame(1, one({ time: -11_644_473_600_000_000 })),
    reason: /time/,
    told: true,
  },
  {
    what: "a time in the year 2255",
    make: (edge) => edge.frame(1, one({ time: 2 ** 53 - 2 })),
    reason: /time/,
    told: true,
  },
  {
    what: "a gap for an unknown reason",
    make: (edge) => {
      const gap = { device: "d", tag: null, reason: "holidays" as never, from: t0, to: null, detail: "" };
      return edge.frame(1, one({}), [gap]);
    },
    reason: /unknown gap reason "holidays"/,
    told: true,
  },
  { what: "a device map that is garbage", kind: "map", make: () => garbage(2000), reason: /device map/ },
  { what: "an empty device map", kind: "map", make: () => new Uint8Array(), reason: /device map of the edge $/ },
  {
    what: "another edge's device map",
    kind: "map",
    make: () => mapOf("honest", "count"),
    reason: /sent a device map of the edge honest/,
  },
  {
    what: "a device map with impossible names",
    kind: "map",
    make: (edge) => mapOf(edge.name, "a/b\u0000"),
    reason: /impossible name/,
  },
];

describe("what can never be stored", () => {
  const edges = ["honest", ...badMessages.map((_, index) => `bad-${index + 1}`)];
  const honest = new WireEdge("honest");
  let cloud: CloudRig;
  let sent = 0;

  const sendHonest = () => honest.send(honest.countFrame(++sent));
  const refusedSoFar = async () => cloud.ingest.frames("refused");
  const expectHonestStored = async () => {
    await expect.poll(() => honest.committed).toContain(sent);
    expect(await cloud.counted("honest")).toEqual(Array.from({ length: sent }, (_, index) => index + 1));
  };

  beforeAll(async () => {
    cloud = await CloudRig.start({ edges });
    await honest.connect(cloud.url);
    await honest.sendMap();
  });
  afterAll(async () => {
    honest.drop();
    await cloud?.close();
  });

  it.each(badMessages.map((bad, index) => ({ ...bad, edge: edges[index + 1]! })))(
    "$what is refused, counted and kept, and holds up nobody",
    async ({ kind = "frame", make, reason, told = false, edge: name }) => {
      const edge = await new WireEdge(name).connect(cloud.url);
      try {
        await edge.sendMap();
        await expect.poll(() => edge.mapsStored).toEqual([edge.map.hash]);
        const before = await refusedSoFar();
        const bytes = make(edge);
        await sendHonest();
        await edge.publish(topics.upward(name, kind), bytes);
        await sendHonest();
        await expect.poll(refusedSoFar).toBe(before + 1);
        const kept = async () => (await cloud.store.refusedMessages(100)).filter((message) => message.edge === name);
        await expect.poll(async () => (await kept()).length).toBe(1);
        const [message] = await kept();
        expect(message!.topic).toBe(topics.upward(name, kind));
        expect(message!.reason).toMatch(reason);
        expect(message!.payloadBytes).toBe(bytes.length);
        expect(Buffer.compare(message!.payload, bytes)).toBe(0);
        await expectHonestStored();
        // Its own next frame is answered after whatever the bad one was answered with.
        await edge.send(edge.countFrame(2));
        await expect.poll(() => edge.committed).toEqual([2]);
        expect(edge.refused).toEqual(told ? [{ seq: 1, reason: message!.reason }] : []);
        expect(await cloud.counted(name)).toEqual([2]);
      } finally {
        edge.drop();
      }
    },
  );

  it("an unknown edge, let in by a broker that knows it, is refused all the same", async () => {
    const client = await connectMqtt(cloud.url, { username: service.user, password: service.password.reveal() });
    try {
      const stranger = new WireEdge("stranger");
      const before = await refusedSoFar();
      await client.publishAsync(topics.upward("stranger", "map"), Buffer.from(stranger.map.bytes), { qos: 1 });
      await client.publishAsync(topics.upward("stranger", "frame"), Buffer.from(stranger.countFrame(1)), { qos: 1 });
      await client.publishAsync(topics.upward("", "frame"), Buffer.from(stranger.countFrame(1)), { qos: 1 });
      await sendHonest();
      await expect.poll(refusedSoFar).toBe(before + 3);
      await expectHonestStored();
      await expect
        .poll(async () => (await cloud.store.refusedMessages(3)).map(({ edge, reason }) => [edge, reason]))
        .toEqual([
          [null, "the topic names no edge"],
          ["stranger", "the edge stranger is not among the known edges"],
          ["stranger", "the edge stranger is not among the known edges"],
        ]);
      expect((await cloud.store.edges()).map(({ edge }) => edge)).not.toContain("stranger");
    } finally {
      client.end(true);
    }
  });

  it("an edge that sends garbage without end delays no other", { timeout: 20_000 }, async () => {
    const flooder = await new WireEdge("bad-1").connect(cloud.url);
    try {
      const before = await refusedSoFar();
      const noise = garbage(mebibyte);
      let flooding = true;
      const flood = (async () => {
        while (flooding) await Promise.all(Array.from({ length: 8 }, () => flooder.send(noise)));
      })();
      const waits: number[] = [];
      for (let frame = 0; frame < 11; frame++) {
        const started = performance.now();
        await sendHonest();
        await expect.poll(() => honest.committed, { timeout: 5000, interval: 5 }).toContain(sent);
        waits.push(performance.now() - started);
      }
      flooding = false;
      await flood;
      await expectHonestStored();
      expect(await refusedSoFar()).toBeGreaterThan(before + 20);
      expect(waits.sort((a, b) => a - b)[5]).toBeLessThan(1000);
      // What is kept is bounded, however much was sent.
      const kept = await cloud.store.refusedMessages(10_000);
      expect(kept.reduce((bytes, { payload }) => bytes + payload.length, 0)).toBeLessThanOrEqual(33 * mebibyte);
    } finally {
      flooder.drop();
    }
  });

  it("a device map that is refused is not asked for again, or it would be sent for ever", async () => {
    const edge = await new WireEdge("bad-2").connect(cloud.url);
    try {
      const bytes = garbage(500);
      const mapHash = deviceMapHash(bytes);
      await edge.sendMap(bytes);
      const before = await cloud.ingest.frames("unknown_map");
      await edge.send(edge.seal(7, { ...packed(edge, one({})), mapHash }));
      await expect.poll(() => cloud.ingest.frames("unknown_map")).toBe(before + 1);
      await edge.send(edge.countFrame(8));
      await expect.poll(() => edge.committed).toContain(8);
      expect(edge.mapsNeeded).toEqual([]);
      expect(edge.committed).not.toContain(7);
    } finally {
      edge.drop();
    }
  });
});
