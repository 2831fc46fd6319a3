import { expect, it } from "vitest";
import { ReadingQueue } from "../../../../protocols/opcua/queue.ts";
import type { Reading } from "../../../../protocols/reading.ts";

const batch = (...values: number[]): Reading[] => values.map((value) => ({ tag: "t", time: 0, value, quality: 0 }));

it("gives the batches in the order of their arrival", () => {
  const queue = new ReadingQueue(10, () => {});
  queue.push(batch(1, 2));
  queue.push(batch(3));
  expect(queue.size).toBe(3);
  expect([queue.shift(), queue.shift(), queue.shift()]).toEqual([batch(1, 2), batch(3), undefined]);
  expect(queue.size).toBe(0);
});

it("drops the oldest batches when it is full, and says how many readings that were", () => {
  const lost: number[] = [];
  const queue = new ReadingQueue(4, (count) => lost.push(count));
  queue.push(batch(1, 2));
  queue.push(batch(3, 4));
  queue.push(batch(5));
  queue.push(batch(6, 7, 8, 9, 10));
  expect(lost).toEqual([2, 3]);
  expect(queue.shift()).toEqual(batch(6, 7, 8, 9, 10));
});

it("keeps a sign of life only where nothing else waits", () => {
  const queue = new ReadingQueue(4, () => {});
  queue.push([]);
  queue.push([]);
  expect(queue.shift()).toEqual([]);
  expect(queue.shift()).toBeUndefined();
});

it("wakes whoever waits", async () => {
  const queue = new ReadingQueue(4, () => {});
  const waiting = queue.changed();
  queue.push(batch(1));
  await waiting;
});
