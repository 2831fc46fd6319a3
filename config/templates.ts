import { interpolate, parametersIn, type Scope } from "./interpolate.ts";
import type { Place, Problems } from "./problem.ts";
import { nearest } from "./suggest.ts";
import { child, type ListNode, type MapNode, type Node, reportUnknown, type ScalarNode } from "./tree.ts";

/** A device, or a list of tags, with parameters: see `expand` for its use. */
export interface Template {
  readonly name: string;
  /** Each parameter's default; undefined where it has to be given. */
  readonly parameters: ReadonlyMap<string, Node | undefined>;
  /** Either this … */
  readonly device?: MapNode;
  /** … or this, not yet interpolated. */
  readonly tags?: ListNode;
}

/** The templates that a file defines, by name. */
export function readTemplates(node: Node, scope: Scope, problems: Problems): Map<string, Template> {
  reportUnknown(node, problems, "templates");
  const templates = new Map<string, Template>();
  if (node.kind !== "map") {
    if (node.kind !== "unknown") problems.add(node.at, "templates", "write a mapping of names to templates");
    return templates;
  }
  for (const [name, { value }] of node.entries) {
    const template = readTemplate(name, value, scope, problems);
    if (template) templates.set(name, template);
  }
  return templates;
}

function readTemplate(name: string, node: Node, scope: Scope, problems: Problems): Template | undefined {
  const path = `templates.${name}`;
  const known = ["parameters", "device", "tags"];
  if (node.kind !== "map") {
    problems.add(node.at, path, "write a mapping with parameters, and with device or tags");
    return undefined;
  }
  for (const [key, { keyAt }] of node.entries) {
    if (known.includes(key)) continue;
    const meant = nearest(key, known);
    problems.add(
      keyAt,
      path,
      `unknown key "${key}"; ${meant ? `did you mean "${meant}"?` : `known here: ${known.join(", ")}`}`,
    );
  }
  const device = child(node, "device");
  const tags = child(node, "tags");
  const parameters = readParameters(child(node, "parameters"), path, scope, problems);
  if (device && tags) {
    problems.add(
      node.entries.get("tags")!.keyAt,
      path,
      '"tags" does not go with "device"; write one of them (a device has tags of its own)',
    );
    return undefined;
  }
  const body = device?.kind === "map" ? { device } : tags?.kind === "list" ? { tags } : undefined;
  if (!body) {
    problems.add(
      (device ?? tags ?? node).at,
      path,
      "a template makes something; write a device (a mapping) or tags (a list)",
    );
    return undefined;
  }
  // Once without values: what is wrong with the template itself is said of it, used or not.
  const unbound = new Map(
    [...parameters].map(([key, { at }]) => [key, { kind: "unknown", at, messages: [] } as const]),
  );
  reportUnknown(
    interpolate((device ?? tags)!, { ...scope, parameters: unbound }),
    problems,
    `${path}.${device ? "device" : "tags"}`,
  );
  reportUnused(parameters, parametersIn((device ?? tags)!), path, problems);
  return { name, parameters: new Map([...parameters].map(([key, { value }]) => [key, value])), ...body };
}

type Parameters = ReadonlyMap<string, { readonly at: Place; readonly value: Node | undefined }>;

/** `[unit, base]`, or `{ unit: , base: 100 }` with defaults. */
function readParameters(node: Node | undefined, path: string, scope: Scope, problems: Problems): Parameters {
  const parameters = new Map<string, { at: Place; value: Node | undefined }>();
  const add = (name: string, at: Place, value: Node | undefined) => {
    if (/^[A-Za-z_][A-Za-z0-9_-]*$/.test(name)) parameters.set(name, { at, value });
    else
      problems.add(
        at,
        `${path}.parameters`,
        `"${name}" is no name for a parameter; write letters, digits, _ and -, starting with a letter`,
      );
  };
  if (node?.kind === "list" && node.items.every((item) => item.kind === "scalar")) {
    for (const item of node.items as ScalarNode[]) add(item.text, item.at, undefined);
  } else if (node?.kind === "map") {
    for (const [name, { keyAt, value }] of node.entries) {
      const required = value.kind === "scalar" && value.value === null;
      const fallback = required ? undefined : interpolate(value, scope);
      if (fallback) reportUnknown(fallback, problems, `${path}.parameters.${name}`);
      add(name, keyAt, fallback);
    }
  } else if (node) {
    problems.add(
      node.at,
      `${path}.parameters`,
      "write a list of names, such as [unit, base], or a mapping with defaults",
    );
  }
  return parameters;
}

function reportUnused(parameters: Parameters, used: ReadonlySet<string>, path: string, problems: Problems): void {
  for (const [name, { at }] of parameters) {
    if (used.has(name)) continue;
    const meant = nearest(
      name,
      [...used].filter((other) => !parameters.has(other)),
    );
    const instead = meant
      ? `the template says "\${${meant}}"; give both the same name`
      : `write "\${${name}}" in it, or remove it`;
    problems.add(at, `${path}.parameters`, `the parameter "${name}" is never used; ${instead}`);
  }
}
