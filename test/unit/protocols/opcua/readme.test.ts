import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { opcuaDevice } from "../../../../protocols/opcua/config.ts";
import { optionsTable, tableIn } from "../options.ts";

const readme = readFileSync(new URL("../../../../protocols/opcua/README.md", import.meta.url), "utf8");

it("has the table of options that the schema makes", () => {
  expect(tableIn(readme)).toBe(optionsTable(opcuaDevice));
});

it("has examples that are valid", () => {
  const examples = [...readme.matchAll(/```yaml\n(.*?)```/gs)].map(([, yaml]) => parse(yaml!).devices);
  expect(examples.length).toBeGreaterThan(0);
  for (const device of examples.flat()) expect(opcuaDevice.safeParse(device).error).toBeUndefined();
});
