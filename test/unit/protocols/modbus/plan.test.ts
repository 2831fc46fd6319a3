import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ModbusTcpDevice, modbusTcpDevice } from "../../../../protocols/modbus/config.ts";
import {
  blockOf,
  type Cut,
  limitsOf,
  placedTags,
  plan,
  planBlocks,
  planDevice,
} from "../../../../protocols/modbus/plan.ts";

function device(tags: object[], rest: object = {}): ModbusTcpDevice {
  return modbusTcpDevice.parse({
    protocol: "modbus-tcp",
    name: "device",
    host: "127.0.0.1",
    ...rest,
    tags: tags.map((tag, index) => ({ name: `t${index}`, ...tag })),
  });
}

const requests = (tags: object[], rest?: object) => plan(device(tags, rest)).map((line) => line.request);

describe("planning", () => {
  it("puts what is near into one request, across gaps", () => {
    expect(
      requests([
        { register: "holding 100", type: "float32" },
        { register: "holding 110" },
        { register: "holding 117" },
      ]),
    ).toEqual(["unit 1, FC3 holding 100..117 (18 registers)"]);
  });

  it("does not read along more than the gap that is worth it", () => {
    expect(requests([{ register: "holding 0" }, { register: "holding 33" }])).toHaveLength(1);
    expect(requests([{ register: "holding 0" }, { register: "holding 34" }])).toHaveLength(2);
    expect(requests([{ register: "holding 0" }, { register: "holding 2" }], { max_gap: 0 })).toHaveLength(2);
    expect(requests([{ register: "holding 0" }, { register: "holding 1" }], { max_gap: 0 })).toHaveLength(1);
    expect(requests([{ register: "coil 0" }, { register: "coil 513" }])).toHaveLength(1);
    expect(requests([{ register: "coil 0" }, { register: "coil 514" }])).toHaveLength(2);
  });

  it("keeps tables, units and rates apart", () => {
    expect(
      plan(
        device([
          { register: "holding 1" },
          { register: "input 1" },
          { register: "coil 1" },
          { register: "discrete 1" },
          { register: "holding 2", unit_id: 9 },
          { register: "holding 2", scan: "5 s" },
        ]),
      ),
    ).toEqual([
      { request: "unit 1, FC3 holding 1 (1 register)", everyMs: 1000, tags: 1 },
      { request: "unit 1, FC4 input 1 (1 register)", everyMs: 1000, tags: 1 },
      { request: "unit 1, FC1 coil 1 (1 bit)", everyMs: 1000, tags: 1 },
      { request: "unit 1, FC2 discrete 1 (1 bit)", everyMs: 1000, tags: 1 },
      { request: "unit 9, FC3 holding 2 (1 register)", everyMs: 1000, tags: 1 },
      { request: "unit 1, FC3 holding 2 (1 register)", everyMs: 5000, tags: 1 },
    ]);
  });

  it("never splits a value at the end of a request", () => {
    const tags = Array.from({ length: 63 }, (_, index) => ({ register: `holding ${index * 2}`, type: "uint32" }));
    expect(requests(tags)).toEqual([
      "unit 1, FC3 holding 0..123 (124 registers)",
      "unit 1, FC3 holding 124..125 (2 registers)",
    ]);
  });

  it("serves equal and overlapping tags with the same request", () => {
    const bits = Array.from({ length: 16 }, (_, bit) => ({ register: "holding 7", bit }));
    expect(requests([...bits, { register: "holding 7", type: "float64" }])).toEqual([
      "unit 1, FC3 holding 7..10 (4 registers)",
    ]);
  });

  it("reads 10,000 registers with 80 requests and 10,000 bits with 5", () => {
    const all = (table: string) => Array.from({ length: 10_000 }, (_, index) => ({ register: `${table} ${index}` }));
    expect(requests(all("holding"))).toHaveLength(80);
    expect(requests(all("coil"))).toHaveLength(5);
    expect(requests(all("holding"), { max_registers: 100 })).toHaveLength(100);
  });
});

/** Devices with up to 60 tags crowded into a few hundred addresses, so that everything happens that can. */
const anyDevice = fc
  .record({
    max_registers: fc.integer({ min: 4, max: 125 }),
    max_gap: fc.integer({ min: 0, max: 125 }),
    tags: fc.array(
      fc.record({
        register: fc.tuple(fc.constantFrom("holding", "holding", "input", "coil"), fc.nat(500)),
        type: fc.constantFrom("int16", "uint32", "float64"),
        unit_id: fc.integer({ min: 1, max: 2 }),
        scan: fc.constantFrom("1 s", "5 s"),
      }),
      { minLength: 1, maxLength: 60 },
    ),
  })
  .map(({ tags, ...rest }) =>
    device(
      tags.map(({ register: [table, address], type, ...tag }) => ({
        register: `${table} ${address}`,
        ...(table === "coil" ? {} : { type }),
        ...tag,
      })),
      rest,
    ),
  );

const anyCuts = fc.array(
  fc.record({
    unitId: fc.integer({ min: 1, max: 2 }),
    table: fc.constantFrom("holding" as const, "input" as const, "coil" as const),
    address: fc.nat(500),
  }),
  { maxLength: 10 },
);

describe("any plan", () => {
  it("serves every tag once, whole, within the limits", () => {
    fc.assert(
      fc.property(anyDevice, anyCuts, (config, cuts) => {
        const tags = placedTags(config);
        const blocks = planBlocks(tags, { ...limitsOf(config), cuts });
        expect(blocks.flatMap((block) => block.tags.map((tag) => tag.name)).toSorted()).toEqual(
          tags.map((tag) => tag.name).toSorted(),
        );
        for (const block of blocks) {
          expect(block.length).toBeLessThanOrEqual(block.table === "coil" ? 2000 : config.max_registers);
          for (const tag of block.tags) {
            expect([tag.unitId, tag.table, tag.everyMs]).toEqual([block.unitId, block.table, block.everyMs]);
            expect(tag.address).toBeGreaterThanOrEqual(block.address);
            expect(tag.address + tag.length).toBeLessThanOrEqual(block.address + block.length);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it("never runs across a cut", () => {
    fc.assert(
      fc.property(anyDevice, anyCuts, (config, cuts) => {
        for (const block of planBlocks(placedTags(config), { ...limitsOf(config), cuts })) {
          for (const cut of cuts.filter((one) => one.unitId === block.unitId && one.table === block.table)) {
            const isBefore = block.tags.map((tag) => tag.address < cut.address);
            expect(new Set(isBefore).size).toBe(1);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it("needs no more requests than the best way to part the tags", () => {
    fc.assert(
      fc.property(anyDevice, (config) => {
        const groups = Map.groupBy(placedTags(config), (tag) => `${tag.unitId} ${tag.table} ${tag.everyMs}`);
        const best = [...groups.values()].reduce((sum, tags) => sum + fewest(tags, config), 0);
        expect(planDevice(config)).toHaveLength(best);
      }),
      { numRuns: 300 },
    );
  });

  it("decodes from a block what it would from the registers alone", () => {
    const memory = Buffer.from(Array.from({ length: 1200 }, (_, index) => (index * 89 + 7) & 0xff));
    const bits = Buffer.from(Array.from({ length: 200 }, (_, index) => (index * 151 + 3) & 0xff));
    const bitAt = (address: number) => (bits[address >> 3]! >> (address & 7)) & 1;
    const read = (table: string, address: number, length: number): Buffer => {
      if (table !== "coil") return memory.subarray(address * 2, (address + length) * 2);
      const packed = Buffer.alloc(Math.ceil(length / 8));
      for (let index = 0; index < length; index++) packed[index >> 3]! |= bitAt(address + index) << (index & 7);
      return packed;
    };
    fc.assert(
      fc.property(anyDevice, (config) => {
        for (const block of planDevice(config)) {
          const bytes = read(block.table, block.address, block.length);
          for (const tag of block.tags) {
            const alone = tag.decode(read(tag.table, tag.address, tag.length), 0);
            expect(tag.decode(bytes, tag.address - block.address)).toEqual(alone);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});

/** The smallest number of requests for tags of one table, over every way to take them in the order of their ends. */
function fewest(tags: ReturnType<typeof placedTags>, config: ModbusTcpDevice): number {
  const maxLength = tags[0]!.table === "coil" ? 2000 : config.max_registers;
  const maxGap = tags[0]!.table === "coil" ? config.max_gap * 16 : config.max_gap;
  // A request that begins at a tag's address and serves all that it can reach is as good as any other from there.
  const starts = [...new Set(tags.map((tag) => tag.address))].sort((a, b) => a - b);
  const served = (start: number): Set<(typeof tags)[number]> => {
    const reached = new Set<(typeof tags)[number]>();
    let end = start;
    for (const tag of tags.toSorted((a, b) => a.address - b.address || a.length - b.length)) {
      if (tag.address < start || tag.address + tag.length > start + maxLength) continue;
      if (tag.address - end > maxGap) break;
      reached.add(tag);
      end = Math.max(end, tag.address + tag.length);
    }
    return reached;
  };
  const reaches = starts.map(served);
  // Search by levels over sets of tags still to serve: every start may be taken at every step.
  let level = [new Set(tags)];
  for (let count = 0; ; count++) {
    if (level.some((rest) => rest.size === 0)) return count;
    const seen = new Map<string, Set<(typeof tags)[number]>>();
    for (const rest of level) {
      // The first tag left must be served by something: try every start that reaches it.
      const first = tags.filter((tag) => rest.has(tag)).reduce((a, b) => (b.address < a.address ? b : a));
      for (const reach of reaches) {
        if (!reach.has(first)) continue;
        const left = new Set([...rest].filter((tag) => !reach.has(tag)));
        seen.set([...left].map((tag) => tag.name).join(" "), left);
      }
    }
    level = [...seen.values()];
  }
}

describe("a block", () => {
  it("reaches as far as its longest tag", () => {
    const tags = placedTags(device([{ register: "holding 1", type: "float64" }, { register: "holding 2" }]));
    expect(blockOf(tags)).toMatchObject({ address: 1, length: 4 });
  });

  it("begins anew at a cut though both sides would fit", () => {
    const config = device([{ register: "holding 1" }, { register: "holding 2" }, { register: "holding 9" }]);
    const cuts: Cut[] = [{ unitId: 1, table: "holding", address: 5 }];
    const blocks = planBlocks(placedTags(config), { ...limitsOf(config), cuts });
    expect(blocks.map(({ address, length }) => [address, length])).toEqual([
      [1, 2],
      [9, 1],
    ]);
  });
});
