import { describe, expect, it } from "vitest";
import { modbusTcp } from "../../../protocols/modbus/driver.ts";
import { Quality } from "../../../protocols/reading.ts";
import { until, useModbusServer } from "./rig.ts";
import { held } from "./server.ts";

const rig = useModbusServer();

describe("values", () => {
  it("reads all four tables, each value from its own place", async () => {
    rig.server.values.set("1 holding 50", 0x5465);
    rig.server.values.set("1 holding 51", 0x7374);
    const one = await rig.start({
      port: rig.server.port,
      scan: "20 ms",
      tags: [
        { name: "holding", register: "holding 100" },
        { name: "input", register: "input 30" },
        { name: "on", register: "coil 9" },
        { name: "off", register: "coil 10" },
        { name: "discrete", register: "discrete 25" },
        { name: "wide", register: "holding 300", type: "uint32" },
        { name: "swapped", register: "holding 300", type: "uint32", order: "CDAB" },
        { name: "bit", register: "holding 5", bit: 2 },
        { name: "text", register: "holding 50", type: "string", length: 4 },
        { name: "scaled", register: "holding 100", scale: 0.5, offset: -1 },
        { name: "lastRegister", register: "holding 65535" },
      ],
    });
    await until(() => expect(new Set(one.readings.map((reading) => reading.tag)).size).toBe(11));
    expect(Object.fromEntries(one.readings.slice(0, 11).map((reading) => [reading.tag, reading.value]))).toEqual({
      holding: 100,
      input: held("input", 30),
      on: true,
      off: false,
      discrete: true,
      wide: 300 * 65536 + 301,
      swapped: 301 * 65536 + 300,
      bit: true,
      text: "Test",
      scaled: 49,
      lastRegister: 65535,
    });
    expect(one.readings.every((reading) => reading.quality === Quality.Good)).toBe(true);
  });

  it("gives the moment of the answer as the time", async () => {
    rig.server.delayMs = 100;
    const before = Date.now() * 1000;
    const one = await rig.start({ port: rig.server.port, tags: [{ name: "a", register: "holding 1" }] });
    await until(() => expect(one.readings).toHaveLength(1));
    expect(one.readings[0]!.time).toBeGreaterThanOrEqual(before + 190_000);
    expect(one.readings[0]!.time).toBeLessThanOrEqual(Date.now() * 1000);
  });

  it("says once that a value is bad, and that it is good again", async () => {
    rig.server.values.set("1 holding 1", 0x7fc0);
    const one = await rig.start({
      port: rig.server.port,
      scan: "10 ms",
      tags: [
        { name: "a", register: "holding 1", type: "float32" },
        { name: "clock", register: "holding 0" },
      ],
    });
    await until(() => expect(one.of("clock").length).toBeGreaterThan(5));
    expect(one.of("a")).toMatchObject([{ value: null, quality: Quality.BadSensorFailure }]);
    rig.server.values.set("1 holding 1", 0x41c8);
    rig.server.values.set("1 holding 2", 0);
    await until(() => expect(one.last("a")!.value).toBe(25));
  });
});

describe("the schedule", () => {
  it("reads each rate at its own pace, on a grid that does not drift", async () => {
    const one = await rig.start({
      port: rig.server.port,
      scan: "20 ms",
      tags: [
        { name: "fast", register: "holding 1" },
        { name: "slow", register: "holding 2", scan: "100 ms" },
      ],
    });
    await until(() => expect(one.of("slow").length).toBe(10));
    const fast = one.of("fast").length;
    expect(fast).toBeGreaterThanOrEqual(25);
    expect(fast).toBeLessThanOrEqual(47);
    const times = one.of("slow").map((reading) => (reading.time - one.of("slow")[0]!.time) / 1000);
    // A late scan is not followed by late scans: the best of them are on the grid.
    const off = times.map((time, index) => Math.abs(time - index * 100));
    expect(off.toSorted((a, b) => a - b)[5]!).toBeLessThan(10);
  });

  it("leaves out scans that a slow device has no time for, says so once, and does not pile them up", async () => {
    rig.server.delayMs = 50;
    const one = await rig.start({
      port: rig.server.port,
      scan: "20 ms",
      tags: [
        { name: "a", register: "holding 1" },
        { name: "slow", register: "holding 2", scan: "500 ms" },
      ],
    });
    await until(() => expect(one.of("slow").length).toBeGreaterThanOrEqual(2));
    rig.server.delayMs = 0;
    const scans = () => rig.server.requests.filter((request) => request.address === 1).length;
    const before = scans();
    const began = performance.now();
    await until(() => expect(scans()).toBeGreaterThan(before + 20));
    // 20 requests on a grid of 20 ms, and no burst to make up for what was left out: only the first begin late.
    expect(performance.now() - began).toBeGreaterThan(320);
    expect(one.log.filter((line) => line.msg.includes("left out"))).toHaveLength(1);
  });
});

describe("one connection", () => {
  it("is shared by devices with the same address, one request at a time", async () => {
    const protocol = modbusTcp();
    let pending = 0;
    let most = 0;
    rig.server.script = (request, socket) => {
      most = Math.max(most, ++pending);
      setTimeout(() => {
        pending--;
        socket.write(rig.server.answerTo(request));
      }, 2);
      return "silence";
    };
    for (const unit_id of [1, 2, 3]) rig.server.values.set(`${unit_id} holding 10`, unit_id * 111);
    const devices = await Promise.all(
      [1, 2, 3].map((unit_id) =>
        rig.start(
          { port: rig.server.port, unit_id, scan: "10 ms", tags: [{ name: "a", register: "holding 10" }] },
          protocol,
        ),
      ),
    );
    await until(() => expect(devices.every((one) => one.of("a").length >= 20)).toBe(true));
    for (const [index, one] of devices.entries()) {
      expect(new Set(one.of("a").map((reading) => reading.value))).toEqual(new Set([(index + 1) * 111]));
    }
    expect([rig.server.accepted, most]).toEqual([1, 1]);
    await devices[0]!.stop();
    const seen = devices[1]!.readings.length;
    await until(() => expect(devices[1]!.readings.length).toBeGreaterThan(seen));
    expect(rig.server.connections).toBe(1);
  });

  it("is opened anew when the device has closed it while it was idle", async () => {
    const one = await rig.start({
      port: rig.server.port,
      scan: "100 ms",
      tags: [{ name: "a", register: "holding 1" }],
    });
    await until(() => expect(one.of("a").length).toBe(1));
    await rig.server.stop();
    await rig.server.start();
    await until(() => expect(one.of("a").length).toBeGreaterThan(2));
    expect(one.error).toBeUndefined();
    expect(rig.server.accepted).toBe(2);
  });
});
