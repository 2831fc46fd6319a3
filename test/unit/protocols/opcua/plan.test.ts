import { describe, expect, it } from "vitest";
import { opcuaDevice } from "../../../../protocols/opcua/config.ts";
import { monitoring, plan } from "../../../../protocols/opcua/plan.ts";

const device = (more: object, ...tags: object[]) =>
  opcuaDevice.parse({
    name: "reactor-1",
    protocol: "opcua",
    endpoint: "opc.tcp://plc",
    ...more,
    tags: tags.map((tag, i) => ({ name: `t${i}`, node: "i=2258", ...tag })),
  });
const first = (more: object, tag: object) => {
  const one = device(more, tag);
  return monitoring(one, one.tags[0]!);
};

describe("how a node is watched", () => {
  it.each([
    [{}, {}, 2],
    [{ publishing: "1 s" }, { sampling: "100 ms" }, 20],
    [{ publishing: "1 s" }, { sampling: "300 ms" }, 8],
    [{ publishing: "1 s" }, { sampling: "0 ms" }, 200],
    [{ publishing: "1 h" }, { sampling: "1 ms" }, 10_000],
    [{ queue: 5 }, {}, 5],
    [{ queue: 5 }, { queue: 7 }, 7],
  ])("%o and %o have a queue of %i", (more, tag, queue) => {
    expect(first(more, tag).queue).toBe(queue);
  });

  it("takes the device's settings where the tag has none", () => {
    expect(first({ sampling: "2 s", discard: "newest" }, {})).toMatchObject({ samplingMs: 2000, discardOldest: false });
    expect(first({ discard: "newest" }, { discard: "oldest", sampling: "1 s" })).toMatchObject({
      samplingMs: 1000,
      discardOldest: true,
    });
  });

  it("asks for a deadband where there can be one", () => {
    expect(first({}, { deadband: 0.5 }).deadband).toBe(0.5);
    expect(first({}, { deadband: 0 }).deadband).toBeNull();
    expect(first({}, { deadband: 0.5, type: "text" }).deadband).toBeNull();
  });
});

describe("the plan", () => {
  it("has a line for the nodes that are watched alike", async () => {
    const lines = await plan(device({}, {}, { sampling: "100 ms" }, {}, { queue: 50 }));
    expect(lines).toEqual([
      {
        request: "subscription published every 500 ms: nodes sampled every 100 ms, queue of 10, oldest discarded",
        everyMs: 100,
        tags: 1,
      },
      {
        request: "subscription published every 500 ms: nodes sampled every 1000 ms, queue of 2, oldest discarded",
        everyMs: 1000,
        tags: 2,
      },
      {
        request: "subscription published every 500 ms: nodes sampled every 1000 ms, queue of 50, oldest discarded",
        everyMs: 1000,
        tags: 1,
      },
    ]);
  });
});
