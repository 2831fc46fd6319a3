import { describe, expect, it } from "vitest";
import { LinkError } from "../../../protocols/errors.ts";
import { Quality } from "../../../protocols/reading.ts";
import { run } from "./device.ts";
import { until, useModbusServer } from "./rig.ts";
import { exception } from "./server.ts";

const rig = useModbusServer();

describe("several units", () => {
  const tags = [1, 2, 3].map((unit_id) => ({ name: `u${unit_id}`, unit_id, register: "holding 7" }));

  it.each([
    ["is silent", "silence" as const],
    ["is unknown to the gateway (exception 10)", 10],
    ["does not answer the gateway (exception 11)", 11],
  ])("goes on with the others when one %s, says so once, and takes it back", async (_, answer) => {
    let isDead = false;
    rig.server.script = (request) => {
      if (!isDead || request.unitId !== 2) return undefined;
      return answer === "silence" ? answer : exception(request, answer);
    };
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", timeout: "60 ms", tags });
    await until(() => expect(one.of("u2").length).toBeGreaterThan(2));
    isDead = true;
    await until(() => expect(one.last("u2")).toMatchObject({ value: null, quality: Quality.BadNoCommunication }));
    const seen = one.of("u3").length;
    await until(() => expect(one.of("u3").length).toBeGreaterThan(seen + 20));
    expect(one.of("u2").filter((reading) => reading.value === null)).toHaveLength(1);
    expect(one.log.filter((line) => line.msg.includes("unit 2 does not answer"))).toHaveLength(1);
    isDead = false;
    await until(() => expect(one.last("u2")).toMatchObject({ value: 7, quality: Quality.Good }));
    expect(one.log.filter((line) => line.msg.includes("unit 2 answers again"))).toHaveLength(1);
    expect(one.error).toBeUndefined();
  });

  it("does not let a dead unit take more than a tenth of the time from the others", async () => {
    rig.server.silent.add(2);
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", timeout: "50 ms", tags });
    await until(() => expect(one.last("u2")?.quality).toBe(Quality.BadNoCommunication));
    const began = Date.now();
    const seen = one.of("u3").length;
    await until(() => expect(one.of("u3").length).toBeGreaterThan(seen + 60));
    // 60 scans of 20 ms take 1.2 s, and a probe of 50 ms now and then costs two or three of them.
    expect(Date.now() - began).toBeLessThan(1600);
  });

  it("gives the link up when no unit answers any more", async () => {
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", timeout: "50 ms", tags });
    await until(() => expect(one.of("u3").length).toBeGreaterThan(1));
    for (const unit of [1, 2, 3]) rig.server.silent.add(unit);
    await one.ended;
    expect(one.error).toBeInstanceOf(LinkError);
    expect((one.error as Error).message).toContain("no unit answers any more");
  });

  it("does not connect to a device that accepts connections and never answers", async () => {
    for (const unit of [1, 2, 3]) rig.server.silent.add(unit);
    await expect(run({ port: rig.server.port, timeout: "50 ms", tags })).rejects.toThrow(
      /no unit answers \(unit 1: no answer in time; unit 2/,
    );
  });
});

describe("illegal addresses", () => {
  const row = (length: number) =>
    Array.from({ length }, (_, index) => ({ name: `r${index}`, register: `holding ${index}` }));

  it("costs only the tags that stand there, and the rest goes on with few requests", async () => {
    const illegal = new Set([17, 60, 61, 99]);
    rig.server.isIllegal = ({ address }) => illegal.has(address);
    const one = await rig.start({ port: rig.server.port, scan: "30 ms", tags: row(125) });
    await until(() => expect(new Set(one.readings.map((reading) => reading.tag)).size).toBe(125));
    for (const { tag, value, quality } of one.readings) {
      const address = Number(tag.slice(1));
      if (illegal.has(address)) expect([value, quality]).toEqual([null, Quality.BadNodeIdUnknown]);
      else expect([value, quality]).toEqual([address, Quality.Good]);
    }
    // Four holes in a row, two of them side by side, leave four pieces.
    await until(() => expect(one.of("r0").length).toBeGreaterThan(4));
    const asked = rig.server.requests.length;
    const scans = one.of("r0").length;
    await until(() => expect(one.of("r0").length).toBe(scans + 10));
    expect(rig.server.requests.length - asked).toBeLessThanOrEqual(4 * 11);
    expect(one.of("r60")).toHaveLength(1);
    expect(one.log.filter((line) => line.msg.includes("holding 60"))).toHaveLength(1);
  });

  it("learns of holes that are read along, and costs no tag for them", async () => {
    rig.server.isIllegal = ({ address }) => address >= 105 && address < 110;
    const one = await rig.start({
      port: rig.server.port,
      scan: "20 ms",
      tags: [100, 104, 110, 130].map((address) => ({ name: `r${address}`, register: `holding ${address}` })),
    });
    await until(() => expect(one.of("r130").length).toBeGreaterThan(5));
    expect(one.readings.every((reading) => reading.quality === Quality.Good)).toBe(true);
    const asked = rig.server.requests.slice(-2).map(({ address, length }) => [address, length]);
    expect(asked.toSorted((a, b) => a[0]! - b[0]!)).toEqual([
      [100, 5],
      [110, 21],
    ]);
  });

  it("reads an address again when the device has it again", async () => {
    let isBroken = true;
    rig.server.isIllegal = ({ address }) => isBroken && address >= 3;
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", tags: row(10) });
    await until(() => expect(one.last("r9")?.quality).toBe(Quality.BadNodeIdUnknown));
    isBroken = false;
    await until(() => expect(one.last("r9")?.value).toBe(9));
    await until(() => expect(one.last("r3")?.value).toBe(3));
    expect(one.error).toBeUndefined();
  });

  it("finds out by itself that a device takes only small requests", async () => {
    rig.server.maxRegisters = 40;
    const one = await rig.start({ port: rig.server.port, scan: "30 ms", tags: row(125) });
    await until(() => expect(new Set(one.readings.map((reading) => reading.tag)).size).toBe(125));
    expect(one.readings.every((reading) => reading.quality === Quality.Good)).toBe(true);
    const scans = one.of("r0").length;
    await until(() => expect(one.of("r0").length).toBeGreaterThan(scans + 3));
    expect(rig.server.requests.slice(-8).every((request) => request.length <= 40)).toBe(true);
  });

  it("reports a whole table that the device does not have", async () => {
    rig.server.script = (request) => (request.functionCode === 2 ? exception(request, 1) : undefined);
    const one = await rig.start({
      port: rig.server.port,
      scan: "20 ms",
      tags: [...row(3), { name: "d1", register: "discrete 1" }, { name: "d2", register: "discrete 2" }],
    });
    await until(() => expect(one.of("r0").length).toBeGreaterThan(10));
    expect(one.of("d1")).toMatchObject([{ value: null, quality: Quality.BadNotSupported }]);
    expect(one.of("d2")).toMatchObject([{ value: null, quality: Quality.BadNotSupported }]);
  });
});

describe("a device in trouble", () => {
  const tags = [
    { name: "a", register: "holding 1" },
    { name: "b", register: "holding 2" },
    { name: "far", register: "holding 500" },
  ];

  it.each([5, 6])("is asked again later when it is busy (exception %i), and that is no bad value yet", async (code) => {
    let busy = 2;
    rig.server.script = (request) => (request.address === 1 && busy-- > 0 ? exception(request, code) : undefined);
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", tags });
    await until(() => expect(one.of("a").length).toBeGreaterThan(3));
    expect(one.readings.every((reading) => reading.quality === Quality.Good)).toBe(true);
  });

  it("has bad tags once it is busy for long", async () => {
    let isBusy = false;
    rig.server.script = (request) => (isBusy && request.address === 1 ? exception(request, 6) : undefined);
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", tags });
    isBusy = true;
    await until(() => expect(one.last("a")).toMatchObject({ value: null, quality: Quality.BadTimeout }));
    isBusy = false;
    await until(() => expect(one.last("a")!.value).toBe(1));
  });

  it("has bad tags while it fails (exception 4), at once and as long as that lasts", async () => {
    let isBroken = false;
    rig.server.script = (request) => (isBroken ? exception(request, 4) : undefined);
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", tags });
    await until(() => expect(one.of("far").length).toBeGreaterThan(1));
    isBroken = true;
    await until(() => expect(one.last("far")).toMatchObject({ value: null, quality: Quality.BadDeviceFailure }));
    const asked = rig.server.requests.length;
    await until(() => expect(rig.server.requests.length).toBeGreaterThan(asked + 20));
    expect(rig.server.requests.slice(asked).every((request) => request.length === 2 || request.address === 500)).toBe(
      true,
    );
    isBroken = false;
    await until(() => expect(one.last("a")!.value).toBe(1));
    expect(one.of("a").filter((reading) => reading.value === null)).toHaveLength(1);
  });

  it("loses only the tag that fails for good while the unit is well (exception 4 for one address)", async () => {
    rig.server.script = (request) =>
      request.address <= 2 && request.address + request.length > 2 ? exception(request, 4) : undefined;
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", tags });
    await until(() => expect(one.last("a")).toMatchObject({ value: 1, quality: Quality.Good }));
    await until(() => expect(one.of("far").length).toBeGreaterThan(10));
    expect(one.last("b")).toMatchObject({ value: null, quality: Quality.BadDeviceFailure });
  });

  it("loses only the block that it never answers, when the unit answers others", async () => {
    rig.server.script = (request) => (request.address === 500 ? "silence" : undefined);
    const one = await rig.start({ port: rig.server.port, scan: "20 ms", timeout: "50 ms", tags });
    await until(() => expect(one.of("far").length).toBe(1));
    const seen = one.of("a").length;
    await until(() => expect(one.of("a").length).toBeGreaterThan(seen + 30));
    expect(one.of("far")).toMatchObject([{ value: null, quality: Quality.BadTimeout }]);
    expect(one.error).toBeUndefined();
  });
});
