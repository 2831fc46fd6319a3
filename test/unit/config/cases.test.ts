import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ConfigFileError, loadCloud, loadEdge } from "../../../config/load.ts";

// Each folder of test/cases/config is a wrong file, `input.yaml`, with every line that is said of it, `expected.txt`
// (`npx vitest run test/unit/config/cases.test.ts --update` writes them anew). Those of the cloud begin with `cloud-`.

const folder = join(import.meta.dirname, "../../cases/config");
const env = { SECRET: "hunter2", EMPTY: "", REGISTER: "40101" };

test.each(readdirSync(folder))("%s", async (name) => {
  const file = join(folder, name, "input.yaml");
  const load = name.startsWith("cloud-") ? loadCloud : loadEdge;
  const error = errorOf(() => load(file, env));
  const message = error.message.replaceAll(`${join(folder, name)}/`, "");
  expect(message).not.toContain("hunter2");
  if (name.startsWith("interpolated")) expect(message).not.toContain("40101");
  expect(message.split("\n")).toHaveLength(error.problems.length);
  await expect(`${message}\n`).toMatchFileSnapshot(join(folder, name, "expected.txt"));
});

function errorOf(load: () => unknown): ConfigFileError {
  try {
    load();
  } catch (error) {
    if (error instanceof ConfigFileError) return error;
    throw error;
  }
  throw new Error("the file was taken as right");
}
