import { describe, expect, it } from "vitest";
import { modbusTcpDevice } from "../../../../protocols/modbus/config.ts";
import { type Block, planDevice } from "../../../../protocols/modbus/plan.ts";
import { Quarantine } from "../../../../protocols/modbus/quarantine.ts";
import { Schedule } from "../../../../protocols/modbus/schedule.ts";

/** Blocks far from each other, given as [address, scan in ms]. */
function blocks(...places: [address: number, everyMs: number][]): Block[] {
  const tags = places.map(([address, everyMs]) => ({
    name: `t${address}`,
    register: `holding ${address}`,
    scan: `${everyMs} ms`,
  }));
  return planDevice(modbusTcpDevice.parse({ protocol: "modbus-tcp", name: "d", host: "h", tags }));
}

function schedule(plan: Block[], onOverrun: (everyMs: number) => void = () => {}): Schedule {
  const made = new Schedule(
    plan.map((block) => block.everyMs),
    0,
    onOverrun,
  );
  made.plan(plan);
  return made;
}

/** Reads for `untilMs`, each request taking `costMs`; when which address was read. */
function simulate(made: Schedule, untilMs: number, costMs: (block: Block) => number): [number, number][] {
  const done: [number, number][] = [];
  for (let nowMs = 0; nowMs < untilMs; ) {
    const next = made.next(nowMs);
    if (typeof next === "number") {
      expect(next).toBeGreaterThan(nowMs);
      nowMs = next;
    } else {
      done.push([nowMs, next.address]);
      nowMs += costMs(next);
    }
  }
  return done;
}

describe("the schedule", () => {
  it("keeps each rate on its grid, whatever the requests take", () => {
    const done = simulate(schedule(blocks([0, 100], [500, 100], [1000, 300])), 700, () => 7);
    expect(done).toEqual([
      [0, 0],
      [7, 500],
      [14, 1000],
      [100, 0],
      [107, 500],
      [200, 0],
      [207, 500],
      [300, 0],
      [307, 500],
      [314, 1000],
      [400, 0],
      [407, 500],
      [500, 0],
      [507, 500],
      [600, 0],
      [607, 500],
      [614, 1000],
    ]);
  });

  it("lets a fast rate go between the requests of a long slow scan", () => {
    const slow = Array.from({ length: 10 }, (_, index): [number, number] => [1000 + index * 200, 1000]);
    const done = simulate(schedule(blocks([0, 100], ...slow)), 1000, () => 20);
    const fast = done.filter(([, address]) => address === 0).map(([time]) => time);
    expect(fast).toHaveLength(10);
    for (const [index, time] of fast.entries()) expect(time - index * 100).toBeLessThan(40);
    expect(done).toHaveLength(20);
  });

  it("leaves out what cannot be done, says so once, and starves no rate", () => {
    const overruns: number[] = [];
    const made = schedule(blocks([0, 100], [500, 1000]), (everyMs) => overruns.push(everyMs));
    const done = simulate(made, 10_000, () => 150);
    expect(done.filter(([, address]) => address === 500).length).toBeGreaterThanOrEqual(9);
    expect(done.filter(([, address]) => address === 0).length).toBeGreaterThan(50);
    expect(overruns).toEqual([100]);
  });

  it("does not make up for a long pause", () => {
    const made = schedule(blocks([0, 100]));
    expect(made.next(0)).toMatchObject({ address: 0 });
    expect(made.next(5030)).toMatchObject({ address: 0 });
    expect(made.next(5031)).toBe(5100);
  });

  it("still reads in this scan what a new plan parts differently", () => {
    const before = blocks([0, 100], [500, 100], [1000, 100]);
    const made = schedule(before);
    expect(made.next(0)).toBe(before[0]);
    made.plan([before[0]!, { ...before[1]! }]);
    expect(made.next(10)).toMatchObject({ address: 500 });
    expect(made.next(20)).toBe(100);
  });
});

describe("the quarantine", () => {
  const [one, two] = blocks([0, 100], [500, 100]).map((block) => ({
    scope: "tags" as const,
    unitId: 1,
    tags: block.tags,
    probe: block,
  }));

  it("asks again after 1, 2, 4 s and so on, at last every minute", () => {
    const quarantine = new Quarantine();
    quarantine.add(one!, 0);
    const waits: number[] = [];
    for (let nowMs = 0; waits.length < 9; ) {
      const { dueMs } = quarantine.next()!;
      waits.push((dueMs - nowMs) / 1000);
      nowMs = dueMs;
      quarantine.tried(one!, nowMs, nowMs);
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
  });

  it("spends a tenth of the time on all of its cases together", () => {
    const quarantine = new Quarantine();
    quarantine.add(one!, 0);
    quarantine.add(two!, 0);
    expect(quarantine.next()).toEqual({ case: one, dueMs: 1000 });
    quarantine.tried(one!, 1000, 2000);
    expect(quarantine.next()).toEqual({ case: two, dueMs: 11_000 });
  });

  it("does not ask for single registers of a silent unit", () => {
    const quarantine = new Quarantine();
    const unit = { ...two!, scope: "unit" as const };
    quarantine.add(one!, 0);
    quarantine.add(unit, 500);
    expect(quarantine.next()).toEqual({ case: unit, dueMs: 1500 });
    quarantine.remove(unit);
    expect(quarantine.next()).toEqual({ case: one, dueMs: 1000 });
    quarantine.remove(one!);
    expect(quarantine.next()).toBeUndefined();
  });
});
