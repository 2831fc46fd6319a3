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
import type { Path } from "./tree.ts";
import { type LoaderKeys, validate } from "./validate.ts";

export { ConfigFileError } from "./problem.ts";

/**
 * Reads an edge's file: YAML, interpolation, templates, CSV tag lists, schema, rules.
 * @throws ConfigFileError with every mistake at once
 */
export function loadEdge(file: string, env: Environment = process.env, registry: Registry = protocols): EdgeConfig {
  return load(file, env, edgeSchema(registry, dirname(file)), { expand, rules: edgeRules, loaderKeys });
}

/**
 * Reads the cloud's file: YAML, interpolation, schema, rules.
 * @throws ConfigFileError with every mistake at once
 */
export function loadCloud(file: string, env: Environment = process.env): CloudConfig {
  return load(file, env, cloudSchema(dirname(file)), {
    expand: interpolateMap,
    rules: cloudRules,
    loaderKeys: () => [],
  });
}

/** What the two kinds of file differ in, beside their schema. */
interface Kind {
  readonly expand: Expand;
  readonly rules: Rules;
  readonly loaderKeys: LoaderKeys;
}

function load<T>(file: string, env: Environment, schema: z.ZodType<T>, { expand, rules, loaderKeys }: Kind): T {
  const problems = new Problems(file);
  const tree = readTree(file, env, expand, problems);
  const config = tree && validate(tree, schema, problems, loaderKeys);
  if (tree) rules(tree, problems);
  problems.throwIfAny();
  return config as T;
}

/** Where templates and CSV files can be written. */
function loaderKeys(path: Path): readonly string[] {
  if (path.length === 0) return ["templates"];
  if (path[0] === "devices" && path.length === 2) return ["template", "with", "each", "tags_from"];
  if (path[2] === "tags" && path.length === 4) return ["template", "with", "each"];
  return [];
}
