import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { edgeSchema } from "../../../config/edge.ts";
import { schema } from "../../../edge/buffer/schema.ts";
import { gapReasons } from "../../../protocols/reading.ts";
import { protocols } from "../../../protocols/registry.ts";
import { optionsTable, tableIn } from "../protocols/options.ts";

const readme = readFileSync(new URL("../../../edge/README.md", import.meta.url), "utf8");

it("has the table of options that the schema makes", () => {
  const agent = edgeSchema(protocols, "/").omit({ devices: true });
  expect(tableIn(readme)).toBe(optionsTable(agent).replaceAll("`[object Object]`", "–"));
});

it("explains every table of the buffer's file, and every column", () => {
  const tables = [...schema.matchAll(/CREATE TABLE (\w+) \(([\s\S]*?)\) STRICT/g)];
  expect(tables.length).toBeGreaterThan(5);
  for (const [, table, body] of tables) {
    const row = readme.split("\n").find((line) => line.startsWith(`| \`${table}\``));
    expect(row, table).toBeDefined();
    const columns = body!
      .replace(/PRIMARY KEY \([^)]*\)/, "")
      .split(",")
      .flatMap((column) => /^\s*(\w+) /.exec(column)?.[1] ?? []);
    for (const column of columns) expect(row, `${table}.${column}`).toContain(`\`${column}\``);
  }
});

it("names every reason for a gap", () => {
  for (const reason of gapReasons) expect(readme).toContain(`\`${reason}\``);
});
