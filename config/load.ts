import { dirname } from "node:path";
import type { z } from "zod";
import { protocols } from "../protocols/registry.ts";
import { type CloudConfig, cloudSchema } from "./cloud.ts";
import { type EdgeConfig, edgeSchema, type Registry } from "./edge.ts";
import { Problems } from "./problem.ts";
import { readTree } from "./read.ts";
import { cloudRules, edgeRules, type Rules } from "./rules.ts";
import type { Path } from "./tree.ts";
import { type LoaderKeys, validate } from "./validate.ts";

export { ConfigFileError } from "./problem.ts";

/** The variables that `${env:NAME}` reads. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads an edge's file: YAML, interpolation, templates, CSV tag lists, schema, rules.
 * @throws ConfigFileError with every mistake at once
 */
export function loadEdge(file: string, env: Environment = process.env, registry: Registry = protocols): EdgeConfig {
  return load(file, env, edgeSchema(registry, dirname(file)), edgeRules, edgeLoaderKeys);
}

/**
 * Reads the cloud's file: YAML, interpolation, schema, rules.
 * @throws ConfigFileError with every mistake at once
 */
export function loadCloud(file: string, env: Environment = process.env): CloudConfig {
  return load(file, env, cloudSchema(dirname(file)), cloudRules, () => []);
}

function load<T>(file: string, env: Environment, schema: z.ZodType<T>, rules: Rules, keys: LoaderKeys): T {
  const problems = new Problems();
  const tree = readTree(file, env, problems);
  const config = tree && validate(tree, schema, problems, keys);
  if (tree) rules(tree, problems);
  problems.throwIfAny();
  return config as T;
}

/** Where templates and CSV files can be written. */
function edgeLoaderKeys(path: Path): readonly string[] {
  if (path.length === 0) return ["templates"];
  if (path[0] === "devices" && path.length === 2) return ["template", "with", "each", "tags_from"];
  if (path[2] === "tags" && path.length === 4) return ["template", "with", "each"];
  return [];
}
