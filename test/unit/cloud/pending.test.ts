import { describe, expect, it } from "vitest";
import { type PendingFrame, PendingFrames } from "../../../cloud/pending.ts";

const frame = (edge: string, seq: number, bytes = 1024, mapHash = "m"): PendingFrame => ({
  envelope: { edge, stream: "s", seq, mapHash, contentSize: 0, content: new Uint8Array() },
  raw: Buffer.alloc(bytes),
});
const name = ({ envelope }: PendingFrame) => `${envelope.edge}${envelope.seq}`;
const any = () => true;

function takeAll(pending: PendingFrames, ready = any): string[] {
  const taken: string[] = [];
  for (let next = pending.take(ready); next !== undefined; next = pending.take(ready)) taken.push(name(next));
  return taken;
}

describe("PendingFrames", () => {
  it("gives each edge its turn, and its frames in the order in which they came", () => {
    const pending = new PendingFrames(1e6);
    for (const seq of [1, 2, 3, 4]) pending.add(frame("a", seq));
    for (const seq of [1, 2]) pending.add(frame("b", seq));
    pending.add(frame("c", 1));
    expect(takeAll(pending)).toEqual(["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    expect(pending.bytes).toBe(0);
  });

  it("gives an edge that comes later its turn before the next of one that had its own", () => {
    const pending = new PendingFrames(1e6);
    for (const seq of [1, 2, 3]) pending.add(frame("a", seq));
    expect(name(pending.take(any)!)).toBe("a1");
    pending.add(frame("b", 1));
    expect(takeAll(pending)).toEqual(["a2", "b1", "a3"]);
  });

  it("passes over an edge whose oldest frame is not ready", () => {
    const pending = new PendingFrames(1e6);
    pending.add(frame("a", 1, 10, "new map"));
    pending.add(frame("a", 2));
    pending.add(frame("b", 1));
    expect(takeAll(pending, () => true).length).toBe(3);
    for (const held of [frame("a", 1, 10, "new map"), frame("a", 2), frame("b", 1)]) pending.add(held);
    const taken: string[] = [];
    const ready = ({ envelope }: PendingFrame) => envelope.mapHash !== "new map";
    for (let next = pending.take(ready); next !== undefined; next = pending.take(ready)) taken.push(name(next));
    expect(taken).toEqual(["b1"]);
    expect(takeAll(pending)).toEqual(["a1", "a2"]);
  });

  it("lets one edge take at most half of the room, and all together no more than the whole", () => {
    const pending = new PendingFrames(20 * 2048);
    const fill = (edge: string) => {
      let seq = 0;
      while (pending.add(frame(edge, seq + 1))) seq++;
      return seq;
    };
    expect(fill("a")).toBe(10);
    expect(fill("b")).toBe(10);
    expect(fill("c")).toBe(0);
    expect(pending.bytes).toBe(20 * 2048);
    pending.take(any);
    expect(fill("c")).toBe(1);
  });

  it("has room for a single frame of any size", () => {
    const pending = new PendingFrames(100);
    expect(pending.add(frame("a", 1, 5000))).toBe(true);
    expect(pending.add(frame("b", 1, 0))).toBe(false);
    pending.take(any);
    expect(pending.add(frame("b", 1, 5000))).toBe(true);
  });

  it("counts what a frame takes beside its bytes, so that small ones are bounded too", () => {
    const pending = new PendingFrames(1024 * 1024);
    let held = 0;
    for (let seq = 1; seq <= 10_000; seq++) if (pending.add(frame(`e${seq % 5}`, seq, 10))) held++;
    expect(held).toBeLessThanOrEqual(1024);
  });

  it("knows what it has", () => {
    const pending = new PendingFrames(1e6);
    const { envelope } = frame("a", 1);
    expect(pending.has(envelope)).toBe(false);
    pending.add(frame("a", 1));
    expect(pending.has(envelope)).toBe(true);
    expect(pending.has({ ...envelope, stream: "other" })).toBe(false);
    pending.take(any);
    expect(pending.has(envelope)).toBe(false);
  });
});
