import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { FeatureChoice } from "../../cloud/store/features.ts";
import type { Store } from "../../cloud/store/store.ts";
import { DataError, LinkError } from "../../protocols/errors.ts";
import { type Gap, now, Quality, type Value } from "../../protocols/reading.ts";
import { allReadings, TestEdge, t0 } from "./store-frames.ts";

/** A database of the suite's own, which holds nothing yet. */
export interface TestDatabase {
  /** Opens the store. */
  open(features?: FeatureChoice): Promise<Store>;
  /** Can two stores have it open at once? */
  readonly shared: boolean;
  /** Removes it. Every store is closed by then. */
  drop(): Promise<void>;
}

/** What every store owes to ingest and to the API (cloud/store/store.ts). */
export function storeContract(engine: string, create: () => Promise<TestDatabase>, features?: FeatureChoice): void {
  describe(`${engine}: the store contract`, () => {
    let database: TestDatabase;
    let store: Store;
    /** A second store on the same database where there can be one: another process, to the database. */
    let other: Store;
    let edges = 0;
    const newEdge = async (...tags: (string | { name: string; [field: string]: unknown })[]) => {
      edges += 1;
      const edge = new TestEdge(
        `edge-${edges}`,
        tags.map((tag) => (typeof tag === "string" ? { name: tag } : tag)),
      );
      await edge.save(store);
      return edge;
    };
    const values = async (tag: string) => (await allReadings(store, tag)).map(({ value }) => value);

    beforeAll(async () => {
      database = await create();
      store = await database.open(features);
      other = database.shared ? await database.open(features) : store;
      // At once, and twice: as two processes that start together.
      await Promise.all([store.migrate(), other.migrate()]);
      await store.migrate();
    });
    afterAll(async () => {
      await other?.close();
      await store?.close();
      await database?.drop();
    });

    it("knows its features after migrate", () => {
      expect(store.features.engine).toBe(engine);
      expect(store.features.hypertable).toBe(engine === "timescaledb");
      expect(store.features).toEqual(other.features);
    });

    it("gives back every kind of value, with its quality", async () => {
      const edge = await newEdge("x");
      const written: [Value, Quality][] = [
        [0, Quality.Good],
        [-0, Quality.Good],
        [0.1, Quality.Uncertain],
        [Number.MAX_VALUE, Quality.UncertainLastUsableValue],
        [Number.MIN_VALUE, Quality.Good],
        [-Number.MAX_SAFE_INTEGER, Quality.Good],
        [2 ** 64, Quality.Good],
        [Number.NaN, Quality.Good],
        [Number.POSITIVE_INFINITY, Quality.Good],
        [Number.NEGATIVE_INFINITY, Quality.Good],
        [true, Quality.Good],
        [false, Quality.Good],
        ["", Quality.Good],
        ["\\N, \"quoted\", 'single'\r\n\t", Quality.Good],
        ["温度 °C 🌡️ \u0001", Quality.Good],
        ["x".repeat(100_000), Quality.Good],
        [null, Quality.Bad],
        [null, Quality.BadTimeout],
        [null, 0xffff_ffff],
        [null, Quality.Good],
      ];
      const rows = written.map(([value, quality], i) => ({ tag: 0, time: t0 + i, value, quality }));
      expect(await store.write([edge.frame(1, rows)])).toEqual(["stored"]);
      const expected = rows.map(({ time, value, quality }) => ({ time, value, quality }));
      expect(await allReadings(store, `${edge.name}.d.x`)).toEqual(expected);
    });

    it("keeps each microsecond, from the first time to the last that there is", async () => {
      const edge = await newEdge("x");
      const times = [Number.MIN_SAFE_INTEGER, -1, 0, 1, t0 + 999_999, t0 + 1_000_001, Number.MAX_SAFE_INTEGER - 1];
      await store.write([
        edge.frame(
          1,
          times.map((time) => ({ tag: 0, time, value: time })),
        ),
      ]);
      expect(await allReadings(store, `${edge.name}.d.x`)).toEqual(
        times.map((time) => ({ time, value: time, quality: Quality.Good })),
      );
    });

    it("replaces what PostgreSQL cannot hold in a text: NUL and half characters", async () => {
      const edge = await newEdge({ name: "x", description: "a\0b" });
      const gap: Gap = { device: "d", tag: null, reason: "overflow", from: t0, to: t0 + 1, detail: "lost \0 \ud800" };
      const rows = ["\0", "a\0b", "\ud800x", "x\udc00"].map((value, i) => ({ tag: 0, time: t0 + i, value }));
      await store.write([edge.frame(1, rows, [gap])]);
      expect(await values(`${edge.name}.d.x`)).toEqual(["␀", "a␀b", "�x", "x�"]);
      expect((await store.gaps({ edge: edge.name, limit: 1 }))[0]!.detail).toBe("lost ␀ �");
      expect((await store.tag(`${edge.name}.d.x`))!.description).toBe("a␀b");
    });

    it("stores a frame once, however often and wherever it comes", async () => {
      const edge = await newEdge("x");
      const frame = (seq: number) => edge.frame(seq, [{ tag: 0, time: t0 + seq, value: seq }]);
      expect(await store.write([frame(1), frame(1), frame(2)])).toEqual(["stored", "duplicate", "stored"]);
      expect(await other.write([frame(2), frame(3)])).toEqual(["duplicate", "stored"]);
      expect(await store.write([frame(1), frame(2), frame(3)])).toEqual(["duplicate", "duplicate", "duplicate"]);
      expect(await values(`${edge.name}.d.x`)).toEqual([1, 2, 3]);
    });

    it("lets exactly one of two writers store a frame that both have at once", async () => {
      const edge = await newEdge("x");
      const frames = Array.from({ length: 40 }, (_, i) => {
        const rows = Array.from({ length: 50 }, (_, j) => ({ tag: 0, time: t0 + i * 50 + j, value: i * 50 + j }));
        return edge.frame(i + 1, rows, [], `${i % 2}`.repeat(32));
      });
      const outcomes = await Promise.all([
        store.write(frames),
        other.write([...frames].reverse()),
        store.write(frames.slice(10)),
        other.write(frames.slice(0, 20)),
      ]);
      expect(outcomes.flat().filter((outcome) => outcome === "stored")).toHaveLength(40);
      expect(await values(`${edge.name}.d.x`)).toEqual(Array.from({ length: 2000 }, (_, i) => i));
    });

    it("takes the same number in another stream, and from another edge, as another frame", async () => {
      const [a, b] = [await newEdge("x"), await newEdge("x")];
      const row = { tag: 0, time: t0, value: 1 };
      const frames = [a.frame(1, [row]), a.frame(1, [row], [], "f".repeat(32)), b.frame(1, [row])];
      expect(await store.write(frames)).toEqual(["stored", "stored", "stored"]);
    });

    it("asks for the device map that a frame needs, and stores the others", async () => {
      const edge = await newEdge("x");
      const unknown = new TestEdge(edge.name, [{ name: "x" }, { name: "y" }]);
      const frames = [unknown.frame(1, [{ tag: 1, time: t0, value: 1 }]), edge.frame(2, [])];
      expect(await store.write(frames)).toEqual(["unknown_map", "stored"]);
      await unknown.save(other);
      expect(await store.write(frames)).toEqual(["stored", "duplicate"]);
      expect(await values(`${edge.name}.d.y`)).toEqual([1]);
    });

    it("writes nothing of a group that holds something impossible", async () => {
      const [edge, stranger] = [await newEdge("x"), await newEdge("x")];
      const good = edge.frame(1, [{ tag: 0, time: t0, value: 1 }]);
      const impossible = [
        edge.frame(2, [{ tag: 1, time: t0, value: 1 }]),
        edge.frame(2, [{ tag: 0, time: Number.NaN, value: 1 }]),
        edge.frame(2, [{ tag: 0, time: 0.5, value: 1 }]),
        edge.frame(2, [{ tag: 0, time: 2 ** 60, value: 1 }]),
        edge.frame(0, []),
        edge.frame(1.5, []),
        edge.frame(2, [], [{ device: "d", tag: null, reason: "overflow", from: 2 ** 60, to: null, detail: "" }]),
        { ...edge.frame(2, [{ tag: 0, time: t0, value: 1 }]), mapHash: stranger.hash },
        { ...edge.frame(2, []), content: { readings: { ...edge.frame(2, []).content.readings, count: 1 }, gaps: [] } },
      ];
      for (const frame of impossible) {
        await expect(store.write([good, frame]), JSON.stringify(frame.content)).rejects.toThrow(DataError);
      }
      expect(await values(`${edge.name}.d.x`)).toEqual([]);
      expect(await store.write([good])).toEqual(["stored"]);
      expect(await values(`${edge.name}.d.x`)).toEqual([1]);
    });

    it("opens a gap, closes it, never opens it again, and takes the later of two ends", async () => {
      const edge = await newEdge("x");
      const gap = (tag: string | null, from: number, to: number | null): Gap => ({
        device: "d",
        tag,
        reason: tag === null ? "device_down" : "tag_bad",
        from: t0 + from,
        to: to === null ? null : t0 + to,
        detail: to === null ? "no answer" : "answers again",
      });
      const rows = async () =>
        (await store.gaps({ edge: edge.name, limit: 10 })).map((row) => [
          row.tag,
          row.from - t0,
          row.to && row.to - t0,
        ]);

      await store.write([edge.frame(1, [], [gap(null, 0, null), gap("x", 5, null)])]);
      expect(await rows()).toEqual([
        ["x", 5, null],
        [null, 0, null],
      ]);
      await store.write([edge.frame(2, [], [gap(null, 0, 8)])]);
      await store.write([edge.frame(3, [], [gap(null, 0, null), gap(null, 0, 10)])]);
      expect((await rows())[1]).toEqual([null, 0, 10]);
      await store.write([edge.frame(8, [], [gap(null, 0, 5)])]);
      expect((await rows())[1]).toEqual([null, 0, 10]);
      // The end may overtake the beginning, on the live stream beside the backlog; or both come in one frame.
      await store.write([edge.frame(5, [], [gap("x", 20, 30)])]);
      await store.write([edge.frame(4, [], [gap("x", 20, null)]), edge.frame(6, [], [gap("x", 40, null)])]);
      await store.write([edge.frame(7, [], [gap("x", 50, null), gap("x", 50, 60), gap("x", 50, null)])]);
      expect(await rows()).toEqual([
        ["x", 50, 60],
        ["x", 40, null],
        ["x", 20, 30],
        ["x", 5, null],
        [null, 0, 10],
      ]);

      const count = async (filter: object) => (await store.gaps({ edge: edge.name, limit: 10, ...filter })).length;
      expect(await count({ tag: "y" })).toBe(1); // that of the whole device
      expect(await count({ tag: "x" })).toBe(5);
      expect(await count({ reason: "tag_bad" })).toBe(4);
      expect(await count({ device: "other" })).toBe(0);
      expect(await count({ from: t0 + 10, to: t0 + 20 })).toBe(1); // [0, 10) and [20, 30) do not touch it
      expect(await count({ from: t0 + 9, to: t0 + 21 })).toBe(3);
      expect(await count({ limit: 2 })).toBe(2);
    });

    it("describes tags by the map of the newest readings, whatever comes late", async () => {
      const edge = await newEdge({ name: "x", unit: "degC" });
      const name = `${edge.name}.d.x`;
      const changed = new TestEdge(edge.name, [
        { name: "y" },
        { name: "x", unit: "K", kind: "number", range: [0, 400], equipment: "pune/api/r1", description: "inlet" },
      ]);
      await store.write([edge.frame(1, [{ tag: 0, time: t0, value: 1 }])]);
      await changed.save(store);
      expect(await store.tag(name)).toMatchObject({
        unit: "K",
        kind: "number",
        range: [0, 400],
        equipment: "pune/api/r1",
        description: "inlet",
      });
      await store.write([changed.frame(2, [{ tag: 1, time: t0 + 1e6, value: 2 }])]);
      // A backlog of the older map, and the older map itself once more.
      await edge.save(store);
      await store.write([edge.frame(1, [{ tag: 0, time: t0 + 5e5, value: 3 }], [], "b".repeat(32))]);
      await other.write([edge.frame(2, [{ tag: 0, time: t0 + 6e5, value: 4 }], [], "b".repeat(32))]);
      expect((await store.tag(name))!.unit).toBe("K");
      // The engineer goes back to the older configuration: its readings are the newest now.
      await store.write([edge.frame(3, [{ tag: 0, time: t0 + 2e6, value: 5 }])]);
      expect(await store.tag(name)).toMatchObject({ unit: "degC", range: null, equipment: null, description: null });
      expect(await values(name)).toEqual([1, 3, 4, 2, 5]);
    });

    it("refuses a map that has a tag twice", async () => {
      const twice = new TestEdge("twice", [{ name: "x" }, { name: "x" }]);
      await expect(twice.save(store)).rejects.toThrow(DataError);
    });

    it("saves a map once when two processes have it at once", async () => {
      const edge = new TestEdge(
        "same-map",
        Array.from({ length: 200 }, (_, i) => ({ name: `t${i}` })),
      );
      await Promise.all([edge.save(store), edge.save(other), edge.save(store), edge.save(other)]);
      expect(await store.tags({ edge: edge.name, limit: 1000 })).toHaveLength(200);
      expect(await store.write([edge.frame(1, [{ tag: 199, time: t0, value: 1 }])])).toEqual(["stored"]);
      expect(await values(`${edge.name}.d.t199`)).toEqual([1]);
    });

    it("pages through readings, those of equal time kept apart", async () => {
      const edge = await newEdge("x", "y");
      const name = `${edge.name}.d.x`;
      // 3 of the same time in each of 4 frames, 2 before and 2 after, and some of another tag between.
      const at = (offset: number, value: number) => ({ tag: 0, time: t0 + offset, value });
      const noise = { tag: 1, time: t0 + 5, value: -1 };
      await store.write([edge.frame(1, [at(1, 0), at(2, 1), noise])]);
      for (let i = 0; i < 4; i++) {
        await store.write([edge.frame(2 + i, [at(5, 2 + i * 3), at(5, 3 + i * 3), at(5, 4 + i * 3), noise])]);
      }
      await store.write([edge.frame(6, [at(6, 14), at(7, 15)])]);
      const all = Array.from({ length: 16 }, (_, i) => i);
      for (const limit of [1, 2, 3, 4, 5, 7, 15, 16, 17]) {
        expect(
          (await allReadings(store, name, limit)).map(({ value }) => value),
          `pages of ${limit}`,
        ).toEqual(all);
      }
      const range = await store.readings(name, { from: t0 + 2, to: t0 + 6, limit: 100 });
      expect(range.readings.map(({ value }) => value)).toEqual(all.slice(1, 14));
      expect(range.next).toBeNull();
      expect(await store.readings("no.such.tag", { from: 0, to: t0, limit: 1 })).toEqual({ readings: [], next: null });
    });

    it("accounts for each stream: what is missing, and how far it is", async () => {
      const edge = await newEdge("x");
      const began = now() - 5_000_000;
      const [live, backlog] = ["1".repeat(32), "2".repeat(32)];
      const write = (stream: string, ...seqs: number[]) =>
        store.write(seqs.map((seq) => edge.frame(seq, [{ tag: 0, time: t0 + seq, value: seq }], [], stream)));
      const account = async () => (await store.edges()).find((row) => row.edge === edge.name)!;

      expect(await account()).toMatchObject({ site: "pune", frames: 0, lastFrameAt: null, streams: [] });
      await write(live, 1, 2, 5);
      await write(backlog, 3);
      await write(live, 9, 8);
      expect((await account()).streams).toEqual([
        { stream: live, frames: 5, lastSeq: 9, missing: [[3, 4], [6, 7]] }, // biome-ignore format: as ranges
        { stream: backlog, frames: 1, lastSeq: 3, missing: [[1, 2]] },
      ]);
      await Promise.all([write(live, 6), other.write([edge.frame(7, [], [], live)]), write(live, 3, 4)]);
      const row = await account();
      expect(row.streams[0]).toEqual({ stream: live, frames: 9, lastSeq: 9, missing: [] });
      expect(row.frames).toBe(10);
      expect(row.firstSeen).toBeGreaterThan(began);
      expect(row.lastFrameAt).toBeGreaterThan(row.firstSeen);
    });

    it("finds tags by edge, device and equipment, page by page, with their latest reading", async () => {
      const equipment = (path: string) => ({ equipment: path });
      const edge = await newEdge(
        { name: "b", ...equipment("pune_x/api/r-1") },
        { name: "a", ...equipment("pune_x/api/r-1/jacket") },
        { name: "c", ...equipment("pune_x/api/r-10") },
        { name: "d", ...equipment("puneyx/api/r-1"), device: "e" },
        { name: "Z", device: "e" },
      );
      const rows = [3, 1, 2].map((offset) => ({ tag: 0, time: t0 + offset, value: offset, quality: offset }));
      await store.write([edge.frame(1, rows)]);
      const names = async (filter: object) =>
        (await store.tags({ limit: 100, edge: edge.name, ...filter })).map(({ tag }) =>
          tag.slice(edge.name.length + 1),
        );

      expect(await names({})).toEqual(["d.a", "d.b", "d.c", "e.Z", "e.d"]);
      expect(await names({ device: "e" })).toEqual(["e.Z", "e.d"]);
      expect(await names({ equipment: "pune_x/api/r-1" })).toEqual(["d.a", "d.b"]);
      expect(await names({ equipment: "pune_x" })).toEqual(["d.a", "d.b", "d.c"]);
      expect(await names({ limit: 2 })).toEqual(["d.a", "d.b"]);
      expect(await names({ after: `${edge.name}.d.b`, limit: 2 })).toEqual(["d.c", "e.Z"]);
      expect(await names({ after: `${edge.name}.e.d` })).toEqual([]);
      expect((await store.tag(`${edge.name}.d.b`))!.latest).toEqual({ time: t0 + 3, value: 3, quality: 3 });
      expect((await store.tag(`${edge.name}.d.a`))!.latest).toBeNull();
      for (const none of ["", "x", `${edge.name}.d`, `${edge.name}.d.b.c`]) {
        expect(await store.tag(none)).toBeUndefined();
      }
    });

    it("keeps a bounded number and size of refused messages, the latest", async () => {
      const message = (i: number, bytes = 10) => ({
        topic: `millrace/\0/${i}`,
        edge: i % 2 === 0 ? "line-3" : null,
        stream: null,
        seq: i % 2 === 0 ? i : null,
        reason: "not a frame",
        payload: new Uint8Array(bytes).fill(i),
      });
      const kept = async () => (await store.refusedMessages(2000)).map(({ topic }) => Number(topic.split("/")[2]));
      await store.keepRefused([]);
      await store.keepRefused(Array.from({ length: 300 }, (_, i) => message(i)));
      expect(await kept()).toEqual(Array.from({ length: 300 }, (_, i) => 299 - i));
      await store.keepRefused(Array.from({ length: 1300 }, (_, i) => message(i)));
      expect(await kept()).toEqual(Array.from({ length: 1000 }, (_, i) => 1299 - i));

      const mebibyte = 1024 * 1024;
      await store.keepRefused([message(2000, 200_000), message(2001, 9 * mebibyte)]);
      const [cut, whole] = await store.refusedMessages(2);
      expect(whole).toMatchObject({ topic: "millrace/␀/2000", edge: "line-3", seq: 2000, payloadBytes: 200_000 });
      expect(Buffer.from(whole!.payload).equals(message(2000, 200_000).payload)).toBe(true);
      expect(cut).toMatchObject({ edge: null, seq: null, payloadBytes: 9 * mebibyte });
      expect(cut!.payload).toHaveLength(8 * mebibyte);
      await store.keepRefused([message(2002, 8 * mebibyte), message(2003, 8 * mebibyte), message(2004, 8 * mebibyte)]);
      expect(await kept()).toEqual([2004, 2003, 2002, 2001]);
    });

    it("deletes what is older than asked, and still knows a deleted frame as a duplicate", async () => {
      const edge = await newEdge("x");
      const day = 86_400_000_000;
      const frame = (seq: number, time: number) => edge.frame(seq, [{ tag: 0, time, value: seq }]);
      const frames = [frame(1, 10 * day), frame(2, 20 * day), frame(3, t0)];
      await store.write(frames);
      // Nothing is as old as this; then all of the log, and the readings before day 15.
      expect(await store.applyRetention({})).toEqual({ chunks: 0, readings: 0, frames: 0 });
      expect((await store.applyRetention({ frames: 0 })).frames).toBe(0);
      expect((await store.applyRetention({ frames: now() + 60e6, readings: 15 * day })).frames).toBeGreaterThan(2);
      expect(await values(`${edge.name}.d.x`)).toEqual([2, 3]);
      expect(await store.write(frames)).toEqual(["duplicate", "duplicate", "duplicate"]);
      expect(await store.write([frame(4, t0 + 1)])).toEqual(["stored"]);
      expect(await values(`${edge.name}.d.x`)).toEqual([2, 3, 4]);
    });

    it("says so when it is closed", async () => {
      const another = await create();
      const closed = await another.open(features);
      await closed.migrate();
      await closed.ping();
      await closed.close();
      await closed.close();
      await expect(closed.ping()).rejects.toThrow(LinkError);
      await expect(closed.write([new TestEdge("x", []).frame(1, [])])).rejects.toThrow(LinkError);
      await another.drop();
    });
  });
}
