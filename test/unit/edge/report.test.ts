import { describe, expect, it } from "vitest";
import { Reporter } from "../../../edge/report.ts";
import type { TagConfig } from "../../../protocols/device.ts";
import { Quality, type Value } from "../../../protocols/reading.ts";

type Given = readonly [seconds: number, value: Value, quality?: Quality];

/** The readings, of those given, that pass. */
function passed(tag: Omit<TagConfig, "name">, given: readonly Given[]): Given[] {
  const reporter = new Reporter([{ name: "other" }, { name: "tag", ...tag }]);
  return given.filter(([seconds, value, quality = Quality.Good]) =>
    reporter.passes(1, { tag: "tag", time: 1_780_000_000_000_000 + seconds * 1e6, value, quality }),
  );
}

const second = 1000;
const cases: [what: string, tag: Omit<TagConfig, "name">, pass: Given[], dropped: Given[]][] = [
  [
    "no deadband: every reading",
    {},
    [
      [0, 1],
      [1, 1],
      [2, 1],
    ],
    [],
  ],
  ["the first reading", { deadband: 100 }, [[0, 1]], []],
  ["the first reading, when it is bad", { deadband: 1 }, [[0, null, Quality.Bad]], [[1, null, Quality.Bad]]],
  [
    "deadband 0: every change",
    { deadband: 0 },
    [
      [0, 1],
      [2, 1.0001],
      [4, 1],
    ],
    [
      [1, 1],
      [3, 1.0001],
    ],
  ],
  [
    "exactly the deadband is no news",
    { deadband: 2 },
    [
      [0, 10],
      [3, 12.5],
    ],
    [
      [1, 12],
      [2, 8],
    ],
  ],
  [
    "a slow drift, measured from the last reported value",
    { deadband: 1 },
    [
      [0, 0],
      [3, 1.2],
    ],
    [
      [1, 0.4],
      [2, 0.8],
      [4, 1.6],
    ],
  ],
  [
    "the way there and back",
    { deadband: 1 },
    [
      [0, 0],
      [1, 5],
      [2, 0],
    ],
    [],
  ],
  [
    "another quality with the same value",
    { deadband: 1 },
    [
      [0, 5],
      [1, 5, Quality.Uncertain],
      [2, 5],
    ],
    [],
  ],
  [
    "a lost device and its return with the same value",
    { deadband: 1 },
    [
      [0, 5],
      [1, null, Quality.BadNoCommunication],
      [3, 5],
    ],
    [[2, null, Quality.BadNoCommunication]],
  ],
  [
    "a text that changes",
    { deadband: 0 },
    [
      [0, "idle"],
      [2, "heat"],
    ],
    [[1, "idle"]],
  ],
  [
    "a boolean that changes, whatever the deadband",
    { deadband: 5 },
    [
      [0, false],
      [2, true],
    ],
    [[1, false]],
  ],
  [
    "a number that becomes a text",
    { deadband: 5 },
    [
      [0, 1],
      [1, "1"],
    ],
    [],
  ],
  [
    "an unchanged value when the heartbeat is due",
    { deadband: 1, heartbeat: 10 * second },
    [
      [0, 5],
      [10, 5],
      [20, 5.5],
    ],
    [
      [9.999, 5],
      [19, 5.5],
    ],
  ],
  [
    "the heartbeat counts from the last reported reading",
    { deadband: 1, heartbeat: 10 * second },
    [
      [0, 5],
      [8, 9],
      [18, 9],
    ],
    [[17, 9]],
  ],
  [
    "a clock that was put back does not silence the heartbeat",
    { deadband: 1, heartbeat: 10 * second },
    [
      [0, 5],
      [-3600, 5],
      [-3590, 5],
    ],
    [[-3599, 5]],
  ],
];

describe("report by exception passes", () => {
  it.each(cases)("%s", (_, tag, pass, dropped) => {
    // In the order of the case: those that pass and those that do not, by time as the device gives them.
    const given =
      tag.heartbeat && pass.some(([s]) => s < 0)
        ? [pass[0]!, pass[1]!, dropped[0]!, pass[2]!]
        : [...pass, ...dropped].sort((a, b) => a[0] - b[0]);
    expect(passed(tag, given)).toEqual(pass);
  });

  it("each tag by its own rule and memory", () => {
    const reporter = new Reporter([
      { name: "a", deadband: 1 },
      { name: "b", deadband: 1 },
    ]);
    const reading = (value: number) => ({ tag: "", time: 1, value, quality: 0 });
    expect(reporter.passes(0, reading(1))).toBe(true);
    expect(reporter.passes(1, reading(1))).toBe(true);
    expect(reporter.passes(0, reading(1.5))).toBe(false);
    expect(reporter.passes(1, reading(9))).toBe(true);
  });
});
