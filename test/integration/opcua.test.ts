import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Quality } from "../../protocols/reading.ts";
import { type DeviceInput, Reader } from "./opcua/reader.ts";
import { Server, type Variable } from "./opcua/server.ts";

const plant = "urn:plant:r1";
const node = (name: string) => `nsu=${plant};s=${name}`;
const variable = (name: string, dataType: string, value: unknown): Variable => ({
  namespace: plant,
  name,
  dataType,
  value,
});

/** One variable of each type, and what is to be read. */
const types: [name: string, dataType: string, held: unknown, read: unknown, quality: number][] = [
  ["yes", "Boolean", true, true, Quality.Good],
  ["sbyte", "SByte", -128, -128, Quality.Good],
  ["byte", "Byte", 255, 255, Quality.Good],
  ["int16", "Int16", -32768, -32768, Quality.Good],
  ["uint16", "UInt16", 65535, 65535, Quality.Good],
  ["int32", "Int32", -2147483648, -2147483648, Quality.Good],
  ["uint32", "UInt32", 4294967295, 4294967295, Quality.Good],
  ["int64", "Int64", [0xffffffff, 0xfffffffe], -2, Quality.Good],
  ["int64exact", "Int64", [0x40000000, 0], 2 ** 62, Quality.Good],
  ["int64near", "Int64", [0x40000000, 1], 2 ** 62, Quality.Uncertain],
  ["uint64near", "UInt64", [0xffffffff, 0xffffffff], 2 ** 64, Quality.Uncertain],
  ["float", "Float", 1.5, 1.5, Quality.Good],
  ["double", "Double", 0.1, 0.1, Quality.Good],
  ["nan", "Double", "NaN", null, Quality.BadSensorFailure],
  ["infinity", "Float", "Infinity", null, Quality.BadSensorFailure],
  ["text", "String", "Charge 17 – süß", "Charge 17 – süß", Quality.Good],
  ["empty", "String", "", "", Quality.Good],
  ["moment", "DateTime", "2024-02-29T12:00:00.123Z", "2024-02-29T12:00:00.123Z", Quality.Good],
  ["guid", "Guid", "72962B91-FA75-4AE6-8D28-B404DC7DAF63", "72962B91-FA75-4AE6-8D28-B404DC7DAF63", Quality.Good],
  ["bytes", "ByteString", "00ff10", "AP8Q", Quality.Good],
  ["localized", "LocalizedText", { text: "Heizen", locale: "de" }, "Heizen", Quality.Good],
  ["qualified", "QualifiedName", { name: "Phase", namespaceIndex: 2 }, "2:Phase", Quality.Good],
  ["array", "Double", [1, 2, 3], null, Quality.BadNotSupported],
];

describe("OPC UA", () => {
  let server: Server;
  const opened: Reader[] = [];
  const reader = (device: Omit<DeviceInput, "endpoint">, settings?: ConstructorParameters<typeof Reader>[1]) => {
    const one = new Reader({ endpoint: server.endpoint, ...device }, settings);
    opened.push(one);
    return one;
  };

  beforeAll(async () => {
    server = await Server.start({
      namespaces: [plant],
      counters: 35,
      limits: { maxMonitoredItemsPerCall: 10 },
      variables: [
        ...types.map(([name, dataType, held]) => variable(name, dataType, held)),
        variable("state", "Double", 1),
        variable("level", "Double", 100),
      ],
    });
  });
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close();
    await expect.poll(() => server.sessions()).toEqual({ sessions: 0, subscriptions: 0 });
  });
  afterAll(() => server.kill());

  it("reads a value of each type", async () => {
    const one = await reader({ tags: types.map(([name]) => ({ name, node: node(name) })) }).start();
    for (const [name, , , value, quality] of types) {
      expect((await one.atLeast(name, 1))[0]).toMatchObject({ tag: name, value, quality });
    }
  });

  it("says why an array cannot be read, once", async () => {
    const tags = ["array", "state"].map((name) => ({ name, node: node(name) }));
    const one = await reader({ tags }).start();
    await one.atLeast("array", 1);
    for (const value of [11, 12, 13]) {
      await server.update({ name: "array", dataType: "Double", value: [value] });
      await server.update({ name: "state", dataType: "Double", value });
      await one.atLeast("state", one.of("state").length + 1);
    }
    expect(one.of("array")).toHaveLength(1);
    expect(one.logged.join()).toContain("array of Double");
  });

  it("refuses a value of another kind than the tag's", async () => {
    const one = await reader({ tags: [{ name: "text", node: node("text"), type: "number" }] }).start();
    expect((await one.atLeast("text", 1))[0]).toMatchObject({ value: null, quality: 0x80740000 });
  });

  it("keeps status codes, and gives null where they are bad", async () => {
    const one = await reader({ tags: [{ name: "state", node: node("state") }] }).start();
    await one.atLeast("state", 1);
    await server.update({ name: "state", dataType: "Double", value: 2, status: "UncertainLastUsableValue" });
    expect((await one.atLeast("state", 2))[1]).toMatchObject({ value: 2, quality: Quality.UncertainLastUsableValue });
    await server.update({ name: "state", dataType: "Double", value: 3, status: "BadSensorFailure" });
    expect((await one.atLeast("state", 3))[2]).toMatchObject({ value: null, quality: Quality.BadSensorFailure });
    await server.update({ name: "state", dataType: "Double", value: 4, status: "BadSensorFailure" });
    await server.update({ name: "state", dataType: "Double", value: 5 });
    expect((await one.atLeast("state", 4))[3]).toMatchObject({ value: 5, quality: Quality.Good });
  });

  it("takes the source's time to the microsecond, and refuses the year 1601", async () => {
    const one = await reader({ tags: [{ name: "state", node: node("state") }] }).start();
    await one.atLeast("state", 1);
    const time = "2024-02-29T12:00:00.123Z";
    await server.update({ name: "state", dataType: "Double", value: 10, time, picoseconds: 456_700_000 });
    expect((await one.atLeast("state", 2))[1]!.time).toBe(Date.parse(time) * 1000 + 456);
    const before = Date.now() * 1000;
    await server.update({ name: "state", dataType: "Double", value: 20, time: "1601-01-01T00:00:00Z" });
    const reading = (await one.atLeast("state", 3))[2]!;
    expect(reading.value).toBe(20);
    expect(reading.time).toBeGreaterThan(before - 5_000_000);
  });

  it("creates more items than the server takes in one call", async () => {
    const tags = Array.from({ length: 35 }, (_, i) => ({ name: `c${i}`, node: node(`counter${i}`) }));
    const one = await reader({ tags }).start();
    await expect.poll(() => new Set(one.readings.map(({ tag }) => tag)).size).toBe(35);
    expect(one.readings.every(({ quality }) => quality === Quality.Good)).toBe(true);
  });

  it("gives each refused node one bad reading, and finds it when it appears", async () => {
    const tags = [
      { name: "good", node: node("state") },
      { name: "ghost", node: node("ghost") },
      { name: "elsewhere", node: "nsu=urn:nowhere;s=x" },
    ];
    const one = await reader({ tags }, { retryRefusedMs: 50 }).start();
    const unknown = { value: null, quality: Quality.BadNodeIdUnknown };
    expect((await one.atLeast("ghost", 1))[0]).toMatchObject(unknown);
    expect((await one.atLeast("elsewhere", 1))[0]).toMatchObject(unknown);
    await one.atLeast("good", 1);
    await expect.poll(() => one.batches, { timeout: 5000 }).toBeGreaterThan(3);
    await server.add(variable("ghost", "Double", 7));
    expect((await one.atLeast("ghost", 2))[1]).toMatchObject({ value: 7, quality: Quality.Good });
    expect(one.of("elsewhere")).toHaveLength(1);
    expect(one.logged.filter((line) => line.includes("urn:nowhere"))).toHaveLength(1);
  });

  it("has the server apply the deadband, and goes without where it cannot", async () => {
    const tags = [
      { name: "level", node: node("level"), deadband: 5 },
      { name: "text", node: node("text"), deadband: 5 },
    ];
    const one = await reader({ tags }).start();
    await one.atLeast("level", 1);
    expect((await one.atLeast("text", 1))[0]!.quality).toBe(Quality.Good);
    for (const value of [102, 104, 120]) {
      await server.update({ name: "level", dataType: "Double", value });
      await server.update({ name: "text", dataType: "String", value: `at ${value}` });
      await one.atLeast("text", one.of("text").length + 1);
    }
    await one.atLeast("level", 2);
    expect(one.of("level").map(({ value }) => value)).toEqual([100, 120]);
  });

  it("carries every change of a burst, and names the tag whose queue was too small", async () => {
    const tags = [
      { name: "large", node: node("counter0"), sampling: "0 ms", queue: 500 },
      { name: "small", node: node("counter1"), sampling: "0 ms", queue: 2 },
    ];
    const one = await reader({ tags }).start();
    await one.atLeast("large", 1);
    await one.atLeast("small", 1);
    const first = Number(one.of("large")[0]!.value);
    await server.burst(200);
    await one.atLeast("large", 201);
    expect(one.of("large").map(({ value }) => value)).toEqual(Array.from({ length: 201 }, (_, i) => first + i));
    await one.atLeast("small", 3);
    expect(one.overflows.map(({ tag }) => tag)).toEqual(["small"]);
    expect(one.of("small").every(({ quality }) => quality === Quality.Good)).toBe(true);
  });

  it("keeps its memory bounded while nobody takes the readings, and goes on after", async () => {
    const tags = Array.from({ length: 35 }, (_, i) => ({
      name: `c${i}`,
      node: node(`counter${i}`),
      sampling: "0 ms",
      queue: 1000,
    }));
    const one = reader({ tags });
    await one.connect();
    const batches = one.driver.readings(new AbortController().signal)[Symbol.asyncIterator]();
    await batches.next();
    const before = await server.published();
    // 35,000 values at a time: the driver holds two of them, the server's queues a third, the fourth overflows.
    for (let round = 0; round < 4; round++) {
      await server.burst(1000);
      await server.published();
    }
    expect((await server.published()) - before).toBeLessThan(60_000);

    const goal = await server.counter();
    const last = new Map<string, unknown>();
    while (last.size < 35 || ![...last.values()].every((value) => value === goal)) {
      for (const reading of (await batches.next()).value) last.set(reading.tag, reading.value);
    }
    expect(one.overflows.length).toBeGreaterThan(0);
    await batches.return!();
  });

  it("says where the server samples more slowly than asked", async () => {
    const tags = [
      { name: "state", node: node("state"), sampling: "1 ms" },
      { name: "level", node: node("level"), sampling: "100 ms" },
    ];
    const one = await reader({ tags }).start();
    await one.atLeast("level", 1);
    expect(one.logged.join()).toMatch(/"slower":\["state: \d+ ms"\]/);
  });

  it("is alive while nothing changes", async () => {
    const one = await reader({ tags: [{ name: "yes", node: node("yes") }] }).start();
    await one.atLeast("yes", 1);
    const before = one.batches;
    await expect.poll(() => one.batches, { timeout: one.driver.quietMs }).toBeGreaterThan(before);
    expect(one.of("yes")).toHaveLength(1);
  });
});
