import { describe, expect, it } from "vitest";
import { opcuaDevice, opcuaValueKind } from "../../../../protocols/opcua/config.ts";
import { parseNodeAddress } from "../../../../protocols/opcua/nodeid.ts";

const least = {
  name: "reactor-1",
  protocol: "opcua",
  endpoint: "opc.tcp://10.0.5.11:4840",
  tags: [{ name: "temperature", node: "nsu=urn:plant:r1;s=TT101.PV" }],
};
const messages = (device: unknown) => opcuaDevice.safeParse(device).error?.issues.map(({ message }) => message);

describe("an OPC UA device", () => {
  it("needs no more than an endpoint and nodes", () => {
    expect(opcuaDevice.parse(least)).toMatchObject({
      sampling: 1000,
      publishing: 500,
      discard: "oldest",
      timeout: 10_000,
      tags: [{ type: "any" }],
    });
  });

  it("tells the kind of a tag's values", () => {
    const { tags } = opcuaDevice.parse({ ...least, tags: [{ ...least.tags[0], type: "text" }] });
    expect(opcuaValueKind(tags[0]!)).toBe("text");
  });

  it.each(["opc.tcp://plc", "opc.tcp://plc.local:4840/UA/Server", "opc.tcp://[fe80::1]:4840"])(
    "takes %s",
    (endpoint) => {
      expect(messages({ ...least, endpoint })).toBeUndefined();
    },
  );

  it.each(["10.0.5.11:4840", "http://plc:4840", "opc.tcp://", "opc.tcp://plc:port", "opc.tcp://a b"])(
    "refuses the endpoint %s",
    (endpoint) => {
      expect(messages({ ...least, endpoint })).toEqual(['an OPC UA address such as "opc.tcp://10.0.5.11:4840"']);
    },
  );

  it("refuses what it does not know, a bad node and a device without tags", () => {
    expect(messages({ ...least, securty: {} })?.[0]).toContain("securty");
    expect(messages({ ...least, tags: [] })).toHaveLength(1);
    expect(messages({ ...least, publishing: "0 ms" })).toEqual(['a duration above zero, such as "500 ms"']);
    expect(messages({ ...least, tags: [{ name: "a", node: "TT101" }] })?.[0]).toContain("a node id such as");
  });
});

describe("a node id", () => {
  it.each([
    ["i=2258", { namespace: 0, kind: "i", identifier: "2258" }],
    ["ns=2;s=TT101.PV", { namespace: 2, kind: "s", identifier: "TT101.PV" }],
    ["ns=65535;s=a;b=c", { namespace: 65535, kind: "s", identifier: "a;b=c" }],
    ["nsu=urn:plant:r1;s=x", { namespace: "urn:plant:r1", kind: "s", identifier: "x" }],
    ["nsu=http://a/%3Bb%25;i=7", { namespace: "http://a/;b%", kind: "i", identifier: "7" }],
    ['ns=3;s="Reactor"."TT101"', { namespace: 3, kind: "s", identifier: '"Reactor"."TT101"' }],
    ["ns=1;b=AP8Q", { namespace: 1, kind: "b", identifier: "AP8Q" }],
    [
      "ns=1;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63",
      { namespace: 1, kind: "g", identifier: "72962B91-FA75-4AE6-8D28-B404DC7DAF63" },
    ],
  ])("%s", (text, address) => {
    expect(parseNodeAddress(text)).toEqual(address);
  });

  it.each([
    "",
    "TT101",
    "s=",
    "ns=2",
    "ns=65536;i=1",
    "i=4294967296",
    "i=-1",
    "i=x",
    "ns=1;b=###",
    "ns=1;g=72962B91",
    "nsu=;i=1",
  ])("%s is none", (text) => {
    expect(parseNodeAddress(text)).toBeUndefined();
  });
});
