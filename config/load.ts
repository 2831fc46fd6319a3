import { dirname } from "node:path";
import type { z } from "zod";
import { protocols } from "../protocols/registry.ts";
import { type CloudConfig, cloudSchema } from "./cloud.ts";
import { type EdgeConfig, edgeSchema, type Registry } from "./edge.ts";
import { expand } from "./expand.ts";
import { type Environment, interpolateMap } from "./interpolate.ts";
import { Problems } from "./problem.ts";
import { type Expand, readTree } from "./read.ts";
import { cloudRules, edgeRules, type Rules } from "./rules.ts";
import type { Node, Path } from "./tree.ts";
import { type LoaderKeys, validate, withStandIns } from "./validate.ts";

export { ConfigFileError } from "./problem.ts";

/** A configuration with what it was made from, for those who say more about the file. */
export interface Loaded<T> {
  /** Undefined when something is missing here that nothing can stand for. */
  readonly config: T | undefined;
  readonly schema: z.ZodType<T>;
  readonly tree: Node;
}

/**
 * Reads an edge's file: YAML, interpolation, templates, CSV tag lists, schema, rules. Offline: nothing is connected to.
 * @throws ConfigFileError with every mistake at once
 */
export function loadEdge(file: string, env: Environment = process.env, registry: Registry = protocols): EdgeConfig {
  return readEdge(file, env, registry).config as EdgeConfig; // nothing stands for anything: there is one
}

/**
 * Reads the cloud's file: YAML, interpolation, schema, rules. Offline: nothing is connected to.
 * @throws ConfigFileError with every mistake at once
 */
export function loadCloud(file: string, env: Environment = process.env): CloudConfig {
  return readCloud(file, env).config as CloudConfig;
}

/**
 * As `loadEdge`.
 * @param missing takes variables and files that are not on this machine, in whose place then something stands that the
 *   schema takes; they are mistakes without
 */
export function readEdge(file: string, env: Environment, registry: Registry, missing?: Problems): Loaded<EdgeConfig> {
  return read(file, env, edgeSchema(registry, dirname(file)), { expand, rules: edgeRules, loaderKeys }, missing);
}

/** As `loadCloud`; `missing` as for `readEdge`. */
export function readCloud(file: string, env: Environment, missing?: Problems): Loaded<CloudConfig> {
  const kind = { expand: interpolateMap, rules: cloudRules, loaderKeys: () => [] };
  return read(file, env, cloudSchema(dirname(file)), kind, missing);
}

/** What the two kinds of file differ in, beside their schema. */
interface Kind {
  readonly expand: Expand;
  readonly rules: Rules;
  readonly loaderKeys: LoaderKeys;
}

function read<T>(
  file: string,
  env: Environment,
  schema: z.ZodType<T>,
  { expand, rules, loaderKeys }: Kind,
  missing?: Problems,
): Loaded<T> {
  const problems = new Problems(file, missing);
  const tree = readTree(file, env, expand, problems);
  const config = tree && validate(tree, schema, problems, loaderKeys);
  if (tree) rules(tree, problems);
  problems.throwIfAny();
  // Without a problem there is a tree, and a configuration made of it as far as everything is known.
  return { config: config ?? withStandIns(tree as Node, schema), schema, tree: tree as Node };
}

/** Where templates and CSV files can be written. */
function loaderKeys(path: Path): readonly string[] {
  if (path.length === 0) return ["templates"];
  if (path[0] === "devices" && path.length === 2) return ["template", "with", "each", "tags_from"];
  if (path[2] === "tags" && path.length === 4) return ["template", "with", "each"];
  return [];
}
