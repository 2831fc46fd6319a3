import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { faultKinds } from "../../../simulators/plant/fault.ts";
import { Plant } from "../../../simulators/plant/plant.ts";
import { plantUnits } from "../../../simulators/register-map.ts";

const readme = readFileSync(join(import.meta.dirname, "../../../simulators/README.md"), "utf8");
const { signals } = new Plant({ seed: 1, firstBatch: 1, year: 2026 });
const rows = readme.split("\n").map((line) => line.split("|").map((cell) => cell.trim()));
const onModbus = new Set(plantUnits.map((unit) => unit.equipment));

it("the README's tables name every node with its unit and meaning", () => {
  for (const { name, unit = "", description } of signals.values()) {
    const equipment = name.split(".")[0]!;
    if (onModbus.has(equipment)) continue;
    const node = `\`${name.replace(/^reactor-\d/, "reactor-N")}\``;
    const row = rows.find((cells) => cells[1] === node);
    expect(row, name).toBeDefined();
    expect([row![3], row![6]], name).toEqual([unit, description]);
  }
});

it("the README's tables name every register with its type, scale, unit and meaning", () => {
  for (const { equipment, registers } of plantUnits) {
    for (const register of registers) {
      const { unit = "", description } = signals.get(`${equipment}.${register.signal}`)!;
      const { table, address, type, bit = "", length = 0, scale = "" } = register;
      const kind = type === "string" ? `string, ${2 * length} bytes` : type === "bit" ? `bit ${bit}`.trim() : type;
      const expected = [`${table} ${address}`, kind, String(scale), unit, `\`${register.signal}\``, description];
      const found = rows.some((cells) => [1, 2, 3, 4, 7, 8].every((cell, index) => cells[cell] === expected[index]));
      expect(found, expected.join(" | ")).toBe(true);
    }
  }
});

it("the README names every kind of fault", () => {
  for (const { kind } of faultKinds) expect(readme).toContain(`\`${kind}:`);
});
