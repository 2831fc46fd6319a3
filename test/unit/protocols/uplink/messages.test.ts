import { describe, expect, it } from "vitest";
import { DataError } from "../../../../protocols/errors.ts";
import { decodeAcknowledgement, encodeAcknowledgement } from "../../../../protocols/uplink/acknowledgement.ts";
import { decodeDeviceMap, deviceMapHash, encodeDeviceMap } from "../../../../protocols/uplink/device-map.ts";
import type { DeviceMap } from "../../../../protocols/uplink/frame.ts";
import { edgeMayPublish, edgeMaySubscribe, parseUpward, topics } from "../../../../protocols/uplink/topics.ts";

const map: DeviceMap = {
  edge: "line-3",
  site: "pune",
  devices: [{ name: "drives", protocol: "modbus-tcp", description: undefined }],
  tags: [
    {
      device: "drives",
      name: "speed",
      kind: "number",
      unit: "rpm",
      range: [0, 3000],
      equipment: "pune/line-3/drive-1",
    },
    { device: "drives", name: "fault", kind: "boolean", description: "trips the line" },
  ],
};

describe("a device map", () => {
  it("travels whole", () => {
    expect(decodeDeviceMap(encodeDeviceMap(map).bytes)).toEqual(map);
  });

  it("is named by the hash of its bytes, so that any change is a new map", () => {
    const encoded = encodeDeviceMap(map);
    expect(encoded.hash).toMatch(/^[0-9a-f]{32}$/);
    expect(deviceMapHash(encoded.bytes)).toBe(encoded.hash);
    expect(encodeDeviceMap({ ...map, site: "nagpur" }).hash).not.toBe(encoded.hash);
  });

  it("is refused when it is damaged or holds a tag twice", () => {
    expect(() => decodeDeviceMap(Buffer.from("no map at all"))).toThrow(DataError);
    const twice = encodeDeviceMap({ ...map, tags: [map.tags[0]!, map.tags[0]!] });
    expect(() => decodeDeviceMap(twice.bytes)).toThrow("holds the tag drives.speed twice");
  });
});

describe("an acknowledgement", () => {
  it("travels whole", () => {
    const acknowledgement = {
      stream: "00112233445566778899aabbccddeeff",
      committed: [1, 2, 2 ** 53 - 1],
      refused: [{ seq: 3, reason: "damaged" }],
      mapsStored: ["000102030405060708090a0b0c0d0e0f"],
      mapsNeeded: [],
    };
    expect(decodeAcknowledgement(encodeAcknowledgement(acknowledgement))).toEqual(acknowledgement);
  });

  it("is refused when it is damaged", () => {
    expect(() => decodeAcknowledgement(Buffer.from([0x0a, 0xff]))).toThrow(DataError);
  });
});

describe("the topics", () => {
  it("let an edge publish below its own name alone", () => {
    expect(edgeMayPublish("line-3", topics.upward("line-3", "frame"))).toBe(true);
    for (const topic of [
      topics.upward("line-4", "frame"),
      topics.acknowledgement("line-3"),
      topics.cloudReady,
      "millrace/v1/edge/line-3/frame/more",
      "millrace/v1/edge/line-3/other",
      "millrace/v1/edge//frame",
      "$SYS/broker",
    ]) {
      expect(edgeMayPublish("line-3", topic), topic).toBe(false);
    }
  });

  it("let an edge subscribe to its own acknowledgements and the cloud's call, never by wildcard", () => {
    expect(edgeMaySubscribe("line-3", topics.acknowledgement("line-3"))).toBe(true);
    expect(edgeMaySubscribe("line-3", topics.cloudReady)).toBe(true);
    for (const filter of ["#", "millrace/v1/edge/+/acknowledgement", topics.acknowledgement("line-4")]) {
      expect(edgeMaySubscribe("line-3", filter), filter).toBe(false);
    }
  });

  it("are read back", () => {
    expect(parseUpward(topics.upward("line-3", "map"))).toEqual({ edge: "line-3", kind: "map" });
    expect(parseUpward("millrace/v1/edge/a/b/frame")).toBeUndefined();
  });
});
