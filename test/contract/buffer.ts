import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BufferOptions, FrameBuffer, Recovered } from "../../edge/buffer/buffer.ts";
import { ConfigError, LinkError } from "../../protocols/errors.ts";
import type { Gap } from "../../protocols/reading.ts";
import { openEnvelope } from "../../protocols/uplink/envelope.ts";
import { frame, gap, gapsIn, mapHash, seqsIn, t0 } from "./buffer-frames.ts";

const mib = 1024 * 1024;
const second = 1_000_000;

/** What every buffer owes to the edge's writer and forwarder (edge/buffer/buffer.ts). */
export function bufferContract(name: string, create: (options: BufferOptions) => FrameBuffer): void {
  describe(`${name}: the buffer contract`, () => {
    let folder: string;
    const opened: FrameBuffer[] = [];

    const open = async (
      options: Partial<BufferOptions> = {},
    ): Promise<{ buffer: FrameBuffer; recovered: Recovered }> => {
      const buffer = create({ edge: "line-3", path: folder, maxBytes: 64 * mib, whenFull: "drop_oldest", ...options });
      opened.push(buffer);
      return { buffer, recovered: await buffer.open() };
    };
    const reopen = async (buffer: FrameBuffer, options: Partial<BufferOptions> = {}) => {
      await buffer.close();
      return open(options);
    };

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), "millrace-buffer-"));
    });
    afterEach(async () => {
      for (const buffer of opened.splice(0)) await buffer.close();
      await rm(folder, { recursive: true });
    });

    describe("frames", () => {
      it("are numbered 1, 2, 3 … in the order of the calls, and sealed with edge, stream and number", async () => {
        const { buffer, recovered } = await open();
        const results = await Promise.all([1, 2, 3, 4].map(() => buffer.append(frame())));
        expect(results.map(({ seq }) => seq)).toEqual([1, 2, 3, 4]);
        for (const { seq, bytes, mapHash: hash } of await buffer.oldest(0, 10)) {
          expect(openEnvelope(bytes)).toMatchObject({
            edge: "line-3",
            stream: recovered.streams.at(-1)!.uuid,
            seq,
            mapHash: hash,
          });
        }
      });

      it("come back oldest first, after a number, up to a limit", async () => {
        const { buffer } = await open();
        for (let n = 0; n < 5; n++) await buffer.append(frame());
        expect((await buffer.oldest(0, 2)).map(({ seq }) => seq)).toEqual([1, 2]);
        expect((await buffer.oldest(2, 10)).map(({ seq }) => seq)).toEqual([3, 4, 5]);
        expect(await buffer.oldest(5, 10)).toEqual([]);
      });

      it("stay until they are released, over restarts, and releasing twice is releasing once", async () => {
        const { buffer } = await open();
        for (let n = 0; n < 4; n++) await buffer.append(frame());
        await buffer.release([2, 3]);
        await buffer.release([3, 2, 99]);
        const { buffer: again } = await reopen(buffer);
        expect(await seqsIn(again)).toEqual([1, 4]);
        expect(await again.stats()).toMatchObject({ frames: 2, nextSeq: 5 });
      });

      it("count on without a hole over restarts, also when none is left", async () => {
        let { buffer } = await open();
        for (let start = 0; start < 2; start++) {
          expect((await buffer.append(frame())).seq).toBe(2 * start + 1);
          expect((await buffer.append(frame())).seq).toBe(2 * start + 2);
          await buffer.release(await seqsIn(buffer));
          ({ buffer } = await reopen(buffer));
        }
        expect((await buffer.append(frame())).seq).toBe(5);
      });

      it("belong to a new stream after each opening, and count from 1 in it; streams without frames are forgotten", async () => {
        let { buffer, recovered } = await open();
        const [first] = recovered.streams;
        for (let n = 0; n < 2; n++) await buffer.append(frame());
        ({ buffer, recovered } = await reopen(buffer)); // nothing is appended to this one
        ({ buffer, recovered } = await reopen(buffer));
        const second = recovered.streams.at(-1)!;
        expect(recovered.streams).toEqual([first, { uuid: expect.not.stringMatching(first!.uuid), before: 2 }]);
        await buffer.append(frame());
        const sealed = (await buffer.oldest(0, 9)).map(({ bytes }) => openEnvelope(bytes));
        expect(sealed).toMatchObject([
          { stream: first!.uuid, seq: 1 },
          { stream: first!.uuid, seq: 2 },
          { stream: second.uuid, seq: 1 },
        ]);
        await buffer.release([1, 2]);
        ({ recovered } = await reopen(buffer));
        expect(recovered.streams.map(({ before }) => before)).toEqual([2, 3]);
      });

      it("of another folder are another stream", async () => {
        const { recovered } = await open();
        const { recovered: other } = await open({ path: join(folder, "deeper", "other") });
        expect(other.streams[0]!.uuid).not.toBe(recovered.streams[0]!.uuid);
        expect(other.streams[0]!.uuid).toMatch(/^[0-9a-f]{32}$/);
      });
    });

    describe("the account", () => {
      it("keeps watermarks, with frames and without", async () => {
        const { buffer } = await open();
        await buffer.append(frame({ watermarks: { press: t0, oven: t0 } }));
        await buffer.mark(new Map([["press", t0 + 5]]));
        // A clock that was put back takes its watermark along.
        await buffer.append(frame({ watermarks: { oven: t0 - 5 } }));
        const { recovered } = await reopen(buffer);
        expect(recovered.watermarks).toEqual(
          new Map([
            ["oven", t0 - 5],
            ["press", t0 + 5],
          ]),
        );
      });

      it("keeps the gaps that were reported open until they are reported closed", async () => {
        const { buffer } = await open();
        const stays = gap({ tag: "force", reason: "tag_bad", from: t0 + 1 });
        const ends = gap();
        await buffer.append(frame({ gaps: [ends, stays] }));
        await buffer.append(frame({ gaps: [{ ...ends, to: t0 + 9 }] }));
        const { recovered } = await reopen(buffer);
        expect(recovered.openGaps).toEqual([stays]);
      });

      it("keeps device maps for as long as frames name them", async () => {
        const { buffer } = await open();
        const bytes = (text: string) => new TextEncoder().encode(text);
        const [one, two, three] = ["01", "02", "03"].map((start) => start + mapHash.slice(2)) as [
          string,
          string,
          string,
        ];
        await buffer.saveMap(one, bytes("one"));
        await buffer.append(frame({ mapHash: one }));
        await buffer.saveMap(two, bytes("two"));
        await buffer.saveMap(three, bytes("three"));
        expect(await buffer.map(one)).toEqual(bytes("one"));
        expect(await buffer.map(two)).toBeUndefined();
        await buffer.release([1]);
        await buffer.saveMap(three, bytes("three"));
        expect(await buffer.map(one)).toBeUndefined();
        expect(await buffer.map(three)).toEqual(bytes("three"));
      });
    });

    describe("at its bound, with drop_oldest", () => {
      const bound = 2 * mib;

      it("drops the oldest frames and accounts for each reading", async () => {
        const { buffer } = await open({ maxBytes: bound });
        const devices = ["press", "oven"];
        let losses: readonly Gap[] = [];
        let n = 0;
        for (; losses.length === 0; n++) {
          const record = frame({ device: devices[n % 2], from: t0 + n * 60 * second, readings: 5000 + n });
          ({ losses } = await buffer.append(record));
          expect((await buffer.stats()).bytes).toBeLessThanOrEqual(bound);
        }
        const kept = await seqsIn(buffer);
        const first = kept[0]!;
        expect(kept).toEqual(Array.from({ length: n - first + 1 }, (_, i) => first + i));
        const dropped = Array.from({ length: first - 1 }, (_, i) => i);
        const expected = devices.flatMap((device, d) => {
          const own = dropped.filter((i) => i % 2 === d);
          if (own.length === 0) return [];
          const [begin, end] = [own[0]!, own.at(-1)!];
          const readings = own.reduce((sum, i) => sum + 5000 + i, 0);
          return gap({
            device,
            reason: "buffer_full",
            from: t0 + begin * 60 * second,
            to: t0 + end * 60 * second + (5000 + end - 1) * 1000,
            detail: `${readings} readings dropped to keep the buffer within its bound (frames ${begin + 1} to ${end + 1})`,
          });
        });
        expect(expected.length).toBeGreaterThan(0);
        expect(losses).toEqual(expected);
      });

      const untilLoss = async (buffer: FrameBuffer, from = t0): Promise<readonly Gap[]> => {
        for (let n = 0; ; n++) {
          const { losses } = await buffer.append(frame({ readings: 5000, from: from + n * 60 * second }));
          if (losses.length > 0) return losses;
        }
      };

      it("tells of a loss until a frame has carried it, over restarts", async () => {
        const { buffer } = await open({ maxBytes: bound });
        const losses = await untilLoss(buffer);
        expect((await buffer.append(frame())).losses).toEqual(losses);
        const { buffer: again, recovered } = await reopen(buffer, { maxBytes: bound });
        expect(recovered.losses).toEqual(losses);
        expect((await again.append(frame({ losses }))).losses).toEqual([]);
        expect((await reopen(again, { maxBytes: bound })).recovered.losses).toEqual([]);
      });

      it("a loss that a frame is to carry does not grow any more: what is lost meanwhile is another one", async () => {
        const { buffer } = await open({ maxBytes: bound });
        const early = await untilLoss(buffer);
        const count = (gaps: readonly Gap[]) => gaps.reduce((sum, { detail }) => sum + Number.parseInt(detail, 10), 0);
        let all: readonly Gap[] = early;
        while (all.length === early.length) all = (await buffer.append(frame({ readings: 5000, from: t0 + 1 }))).losses;
        expect(all.slice(0, early.length)).toEqual(early);
        expect((await buffer.append(frame({ losses: early }))).losses).toEqual(all.slice(early.length));
        expect(count(all)).toBe(5000 * ((await seqsIn(buffer))[0]! - 1));
      });

      it("what a dropped frame reported is reported again: losses with their numbers, gaps as they were", async () => {
        const { buffer } = await open({ maxBytes: bound });
        const opened = gap({ tag: "force", reason: "tag_bad", from: t0 + 1 });
        const down = gap({ from: t0 + 2 });
        await buffer.append(frame({ readings: 5000, gaps: [opened, down] }));
        await buffer.append(frame({ readings: 5000, gaps: [{ ...down, to: t0 + 9, detail: "back" }] }));
        const first = await untilLoss(buffer);
        // Both frames are gone. The open gap is told as open, the other one as closed.
        expect(first.filter(({ reason }) => reason !== "buffer_full")).toEqual([
          opened,
          { ...down, to: t0 + 9, detail: "back" },
        ]);
        // They and the loss go into a frame, and that one is dropped too.
        const { seq } = await buffer.append(frame({ readings: 0, losses: first }));
        let losses: readonly Gap[] = [];
        while ((await buffer.oldest(0, 1))[0]!.seq <= seq)
          losses = (await buffer.append(frame({ readings: 5000 }))).losses;
        const readings = losses
          .filter(({ reason }) => reason === "buffer_full")
          .map((one) => Number.parseInt(one.detail, 10));
        expect(readings.reduce((a, b) => a + b)).toBe(5000 * ((await seqsIn(buffer))[0]! - 2));
        expect(losses.filter(({ reason }) => reason !== "buffer_full")).toHaveLength(2);
        // An open gap that is told again was not opened again.
        await buffer.append(frame({ readings: 0, losses, gaps: [{ ...opened, to: t0 + 99 }] }));
        expect((await reopen(buffer, { maxBytes: bound })).recovered.openGaps).toEqual([]);
      });

      it("hands out lost reports a thousand at a time, and stays bounded when gaps come without end", async () => {
        const { buffer } = await open({ maxBytes: bound });
        let from = t0;
        let last: readonly Gap[] = [];
        for (let n = 0; n < 250; n++) {
          const gaps = Array.from({ length: 100 }, () =>
            gap({ tag: "force", reason: "tag_bad", from: ++from, to: from + 1 }),
          );
          ({ losses: last } = await buffer.append(frame({ readings: 2000, from, gaps })));
          expect(last.filter(({ reason }) => reason === "tag_bad").length).toBeLessThanOrEqual(1000);
          // What is lost is written down before the frames that held it are gone.
          expect((await buffer.stats()).bytes).toBeLessThanOrEqual(bound + 128 * 1024);
        }
        // The oldest gaps, above ten thousand, became part of a loss, which covers them.
        const losses = last.filter(({ reason }) => reason === "buffer_full");
        expect(Math.min(...losses.map((loss) => loss.from))).toBe(t0 + 1);
        const oldest = last.find(({ reason }) => reason === "tag_bad")!;
        expect(oldest.from).toBeGreaterThan(t0 + 1);
        for (let time = t0 + 1; time < oldest.from; time += 7) {
          expect(losses.some((loss) => loss.from <= time && time <= loss.to!)).toBe(true);
        }
      });
    });

    describe("at its bound, with stop_collecting", () => {
      const options = { maxBytes: mib, whenFull: "stop_collecting" } as const;

      it("takes no more, loses nothing, and takes again after a release", async () => {
        const { buffer } = await open(options);
        let taken = 0;
        while ((await buffer.append(frame({ readings: 5000 }))).seq > 0) taken++;
        expect(await buffer.append(frame({ readings: 5000, gaps: [gap()] }))).toEqual({ seq: 0, losses: [] });
        expect((await buffer.stats()).bytes).toBeLessThanOrEqual(options.maxBytes);
        const { buffer: again, recovered } = await reopen(buffer, options);
        expect(recovered.openGaps).toEqual([]);
        expect(await seqsIn(again)).toHaveLength(taken);
        await again.release([1]);
        expect((await again.append(frame({ readings: 5000 }))).seq).toBe(taken + 1);
      });

      it("takes a frame that is larger than the bound when it is the only one", async () => {
        const { buffer } = await open({ ...options, maxBytes: mib });
        expect((await buffer.append(frame({ readings: 60_000 * 3 }))).seq).toBe(1);
        expect((await buffer.append(frame())).seq).toBe(0);
      });
    });

    it.each(["drop_oldest", "stop_collecting"] as const)("full, drained, full again, with %s", async (whenFull) => {
      const { buffer } = await open({ maxBytes: 2 * mib, whenFull });
      const rounds: number[] = [];
      for (let round = 0; round < 3; round++) {
        let taken = 0;
        for (;;) {
          const { seq, losses } = await buffer.append(frame({ readings: 5000 }));
          if (seq === 0) break;
          if (losses.length > 0) {
            await buffer.append(frame({ readings: 0, losses }));
            break;
          }
          taken++;
        }
        rounds.push(taken);
        await buffer.release(await seqsIn(buffer));
        expect(await buffer.stats()).toMatchObject({ frames: 0 });
      }
      expect(Math.min(...rounds)).toBeGreaterThan(Math.max(...rounds) - 2);
    });

    describe("frames set aside", () => {
      it("are out of the way, and what they held becomes a gap", async () => {
        const { buffer } = await open();
        for (let n = 0; n < 3; n++) await buffer.append(frame({ readings: 10 + n, from: t0 + n * second }));
        const reason = "no such type";
        await buffer.setAside([
          { seq: 2, reason },
          { seq: 77, reason },
        ]);
        expect(await seqsIn(buffer)).toEqual([1, 3]);
        const loss = gap({
          reason: "frame_refused",
          from: t0 + second,
          to: t0 + second + 10_000,
          detail: "11 readings in frames that were set aside (frames 2 to 2)",
        });
        expect((await buffer.append(frame())).losses).toEqual([loss]);
        await buffer.append(frame({ losses: [loss] }));
        expect((await gapsIn(buffer)).at(-1)).toEqual(loss);
      });

      it("give their closed gaps to the loss, not to the next frame, which may be refused for them again", async () => {
        const { buffer } = await open();
        const odd = gap({ tag: "force", reason: "tag_bad", from: t0 - 60 * second, to: t0 + 60 * second });
        const { seq } = await buffer.append(frame({ readings: 10, gaps: [odd] }));
        await buffer.setAside([{ seq, reason: "odd" }]);
        const { losses } = await buffer.append(frame());
        expect(losses).toEqual([expect.objectContaining({ reason: "frame_refused", from: odd.from, to: odd.to })]);
      });

      it("never crowd out the others", async () => {
        const { buffer } = await open({ maxBytes: 2 * mib });
        for (let n = 0; n < 60; n++) {
          const { seq } = await buffer.append(frame({ readings: 5000, losses: [] }));
          await buffer.setAside([{ seq, reason: "refused" }]);
        }
        expect((await buffer.stats()).bytes).toBeLessThan(mib / 2);
      });
    });

    it("refuses a folder that another one has open, and names it", async () => {
      await open();
      const error = await open().catch((refusal: unknown) => refusal);
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as Error).message).toMatch(new RegExp(`${folder}.*another agent`));
    });

    it("refuses a bound that leaves no room", async () => {
      await expect(open({ maxBytes: 1000 })).rejects.toThrow(/buffer\.max_size/);
    });

    it("answers every call after it was closed with a LinkError", async () => {
      const { buffer } = await open();
      const pending = buffer.append(frame());
      await buffer.close();
      expect((await pending).seq).toBe(1); // what was asked before is done
      await expect(buffer.append(frame())).rejects.toThrow(LinkError);
      await expect(buffer.oldest(0, 1)).rejects.toThrow(LinkError);
      await buffer.close();
    });
  });
}
