import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { unreadable, utf8 } from "./file.ts";
import type { Place } from "./problem.ts";
import { nearest } from "./suggest.ts";
import type { MapNode, Node, ScalarNode } from "./tree.ts";
import { coreValue } from "./yaml.ts";

/** The variables that `${env:NAME}` reads. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What the interpolations of a node can refer to. */
export interface Scope {
  readonly env: Environment;
  /** The folder that `${file:…}` is relative to. */
  readonly folder: string;
  /** Within a template: its parameters; those that could not be found out are unknown nodes. */
  readonly parameters?: ReadonlyMap<string, Node>;
  /** Within a template: where it is used. */
  readonly usedAt?: Place;
  /** How many more values templates may make: a few lines could otherwise ask for billions. Below 0: it is too many. */
  readonly budget: { left: number };
}

/** The most values that the templates of a file make. */
export const maxTemplateValues = 1_000_000;
/** A secret or a certificate is smaller; a device or a log file named by mistake is not. */
const maxFileBytes = 1024 * 1024;

const reference = /\$\$\{|\$\{([^}]*)\}/g;
const parameterReference = /^\s*([A-Za-z_][A-Za-z0-9_-]*?)\s*(?:([+-])\s*(\d+)\s*)?$/;

/**
 * Resolves `${env:NAME}`, `${file:/path}` and, within a template, `${parameter}` and `${parameter + 2}` in every scalar
 * below a node; `$${` stands for `${` itself.
 *
 * A plain scalar is read anew as YAML would read the result (`port: ${env:PORT}` is a number), a quoted one stays text;
 * but where the schema takes only the other, it becomes that: a password of digits is a text all the same. A scalar that
 * is nothing but one parameter stands for the parameter's value, also when that is a list or a mapping.
 */
export function interpolate(node: Node, scope: Scope): Node {
  const at = placed(node.at, scope);
  if (scope.usedAt && --scope.budget.left < 0) return { kind: "unknown", at, messages: [] };
  if (node.kind === "list") return { kind: "list", at, items: node.items.map((item) => interpolate(item, scope)) };
  if (node.kind === "map") return interpolateMap(node, scope);
  if (node.kind === "unknown" || !node.text.includes("${")) return { ...node, at };
  return interpolateScalar(node, at, scope);
}

/** The same for a mapping, value by value. */
export function interpolateMap(node: MapNode, scope: Scope): MapNode {
  const entries = [...node.entries].map(([key, { keyAt, value }]) => {
    return [key, { keyAt: placed(keyAt, scope), value: interpolate(value, scope) }] as const;
  });
  return { kind: "map", at: placed(node.at, scope), entries: new Map(entries) };
}

/** A place, with where the template around it is used. */
export function placed(at: Place, { usedAt }: Scope): Place {
  return usedAt ? { ...at, usedAt } : at;
}

function interpolateScalar(node: ScalarNode, at: Place, scope: Scope): Node {
  const whole = parameterReference.exec(/^\$\{([^}]*)\}$/.exec(node.text)?.[1] ?? "");
  const lone = whole && !whole[2] ? scope.parameters?.get(whole[1]!) : undefined;
  if (lone?.kind === "unknown") return { kind: "unknown", at, messages: [], written: node.text };
  if (lone && lone.kind !== "scalar") return { ...lone, at };

  const messages: string[] = [];
  const missing: string[] = [];
  const interpolated: Interpolated[] = [];
  let known = true;
  const text = node.text.replaceAll(reference, (written, expression: string | undefined) => {
    if (expression === undefined) return "${";
    const found = standsFor(expression, written, scope);
    if (typeof found === "object" && "text" in found) {
      interpolated.push(...(found.interpolated ?? []));
      return found.text;
    }
    known = false;
    if (typeof found === "string") messages.push(found);
    else if (found) missing.push(found.missing);
    return "";
  });
  if (!known) return { kind: "unknown", at, messages, missing, written: node.text };
  const candidates = node.quoted ? [text, coreValue(text)] : [coreValue(text), text];
  // A lone parameter keeps its own type: the text "007" in quotes does not become the number 7.
  if (lone && !node.quoted) candidates.unshift(lone.value as string);
  const sources = interpolated.length > 0 ? { interpolated } : {};
  return { ...node, at, text, value: candidates[0], candidates, ...sources };
}

type Interpolated = NonNullable<ScalarNode["interpolated"]>[number];
type Found = Pick<ScalarNode, "text" | "interpolated">;
/** Why something is not on this machine, which need not be the one that the file is for. */
interface Missing {
  readonly missing: string;
}

/** What an expression stands for; a text says why it stands for nothing, undefined that this is said elsewhere. */
function standsFor(expression: string, written: string, scope: Scope): Found | Missing | string | undefined {
  const external = /^\s*(env|file):(.*)$/s.exec(expression);
  if (!external) return parameter(expression, written, scope);
  const name = external[2]!.trim();
  const text = external[1] === "env" ? variable(name, scope) : fileText(name, written, scope);
  if (typeof text === "string" || "missing" in text) return text;
  return { text: text.found, interpolated: [{ text: text.found, source: written }] };
}

function variable(name: string, { env }: Scope): { found: string } | Missing {
  const found = env[name];
  if (found !== undefined) return { found };
  return { missing: `the environment variable ${name} is not set; set it, or correct the name` };
}

function fileText(path: string, written: string, { folder }: Scope): { found: string } | Missing | string {
  const file = resolve(folder, path);
  try {
    const status = statSync(file);
    if (status.isFile() && status.size > maxFileBytes) {
      return `${written}: larger than 1 MiB; name the file that holds this one value`;
    }
    return { found: utf8(readFileSync(file)).replace(/\r?\n$/, "") };
  } catch (error) {
    const message = `${written}: ${unreadable(error)}`;
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? { missing: message } : message;
  }
}

function parameter(expression: string, written: string, { parameters }: Scope): Found | string | undefined {
  const [, name, sign, amount] = parameterReference.exec(expression) ?? [];
  const node = name === undefined ? undefined : parameters?.get(name);
  if (!node) return unknownReference(written, name, parameters);
  if (node.kind === "unknown") return undefined;
  if (node.kind !== "scalar") {
    return `${written}: ${name} is a ${node.kind === "list" ? "list" : "mapping"}; write "\${${name}}" alone`;
  }
  if (!sign) return node;
  const base = coreValue(node.text);
  if (typeof base !== "number" || !Number.isSafeInteger(base)) {
    return `${written}: ${name} is no whole number here; give one, or write "\${${name}}" alone`;
  }
  return { ...node, text: String(sign === "+" ? base + Number(amount) : base - Number(amount)) };
}

function unknownReference(written: string, name: string | undefined, parameters: Scope["parameters"]): string {
  const external = '"${env:NAME}" or "${file:/path}"';
  if (!parameters) {
    return `unknown ${written}; write ${external} (other names only in templates), or $\${ for the characters themselves`;
  }
  const meant = name && nearest(name, parameters.keys());
  if (meant) return `unknown parameter ${written}; did you mean "\${${meant}}"?`;
  return `unknown parameter ${written}; add it to the template's parameters, or write ${external}`;
}

/** The names of the parameters that the scalars below a node refer to. */
export function parametersIn(node: Node): Set<string> {
  if (node.kind === "list") return new Set(node.items.flatMap((item) => [...parametersIn(item)]));
  if (node.kind === "map") return new Set([...node.entries.values()].flatMap(({ value }) => [...parametersIn(value)]));
  if (node.kind === "unknown") return new Set();
  const names = [...node.text.matchAll(reference)].map(
    ([, expression]) => parameterReference.exec(expression ?? "")?.[1],
  );
  return new Set(names.filter((name) => name !== undefined));
}
