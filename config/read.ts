import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { unreadable, utf8 } from "./file.ts";
import { type Environment, interpolate, maxTemplateValues, type Scope } from "./interpolate.ts";
import type { Problems } from "./problem.ts";
import { type MapNode, type Node, reportUnknown } from "./tree.ts";
import { readYaml } from "./yaml.ts";

/** What a file's top mapping stands for. */
export type Expand = (root: MapNode, scope: Scope, problems: Problems) => MapNode;

/**
 * Reads a configuration file to the tree that its schema is held against.
 * @param expand how the file's mapping is interpolated
 * @returns undefined when there is none, which is added to `problems`
 */
export function readTree(file: string, env: Environment, expand: Expand, problems: Problems): Node | undefined {
  const root = readFile(file, problems);
  if (!root) return undefined;
  const scope: Scope = { env, folder: dirname(file), budget: { left: maxTemplateValues } };
  const tree = root.kind === "map" ? expand(root, scope, problems) : interpolate(root, scope);
  if (scope.budget.left < 0) {
    problems.add(root.at, "templates", `the templates make more than ${maxTemplateValues} values; use them less often`);
    return undefined;
  }
  reportUnknown(tree, problems);
  return tree;
}

/** Reads a YAML file as it stands. @returns undefined when there is none, which is added to `problems` */
export function readFile(file: string, problems: Problems): Node | undefined {
  try {
    return readYaml(utf8(readFileSync(file)), file, problems);
  } catch (error) {
    problems.add({ file, line: 1, column: 1 }, "", unreadable(error));
    return undefined;
  }
}
