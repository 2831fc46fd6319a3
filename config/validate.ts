import type { z } from "zod";
import type { Problems } from "./problem.ts";
import { branches, expectation, isSecret, keysOf, list, step, wordsOf } from "./schema.ts";
import { nearest } from "./suggest.ts";
import { type MapNode, type Node, nodeAt, type Path, pathText, type ScalarNode, type UnknownNode } from "./tree.ts";
import { coreValue } from "./yaml.ts";

type Issue = z.core.$ZodIssue;

/** Keys that the loader itself takes at a place, beside those of the schema: for suggestions. */
export type LoaderKeys = (path: Path) => readonly string[];

/**
 * Holds a tree against its schema.
 *
 * The messages of a schema are noun phrases that say what to write ("a TCP port, 1 to 65535"); where a schema has none,
 * one is made from its type and bounds.
 * @returns the parsed value; undefined when something was added to `problems`
 */
export function validate<T>(
  tree: Node,
  schema: z.ZodType<T>,
  problems: Problems,
  loaderKeys: LoaderKeys,
): T | undefined {
  const value = plainValue(tree, [schema], () => undefined);
  const result = schema.safeParse(value, { error: () => "" });
  if (result.success) return result.data;
  new Explainer(tree, schema, problems, loaderKeys).explain(result.error.issues, []);
  return undefined;
}

/** The parsed value of a tree without mistakes, with something in place of what is unknown; undefined if that fails. */
export function withStandIns<T>(tree: Node, schema: z.ZodType<T>): T | undefined {
  return schema.safeParse(plainValue(tree, [schema], standIn)).data;
}

/** The first that the schema takes of: what is written, a word, an example, a number. */
function standIn({ written }: UnknownNode, schemas: readonly z.ZodType[]): unknown {
  const possible = branches(schemas, undefined);
  // Words of several schemas tell kinds of mappings apart: to guess one is to guess what else may stand there.
  const words = possible.length === 1 ? wordsOf(possible) : [];
  const candidates = [written, "unknown", ...words, ...schemas.flatMap(examplesOf), 1, true];
  return candidates.find((candidate) => schemas.some((schema) => schema.safeParse(candidate).success));
}

/**
 * The plain value of a node. Scalars that could mean several things become what the schema takes.
 * @param unknown what stands for an unknown value
 */
function plainValue(node: Node, schemas: readonly z.ZodType[], unknown: typeof standIn): unknown {
  if (node.kind === "unknown") return unknown(node, schemas);
  if (node.kind === "list") {
    return node.items.map((item, index) => plainValue(item, step(schemas, node, index), unknown));
  }
  if (node.kind === "map") {
    return Object.fromEntries(
      [...node.entries].map(([key, { value }]) => [key, plainValue(value, step(schemas, node, key), unknown)]),
    );
  }
  const { candidates } = node;
  if (candidates) node.value = likeliest(candidates, schemas);
  return node.value;
}

/** The first candidate that the schema takes; when it takes none, the first of the right type. */
function likeliest(candidates: readonly unknown[], schemas: readonly z.ZodType[]): unknown {
  const results = candidates.flatMap((candidate) =>
    schemas.map((schema) => ({ candidate, issues: schema.safeParse(candidate).error?.issues ?? [] })),
  );
  const ofWrongType = ({ code, path }: Issue) =>
    path.length === 0 && (code === "invalid_type" || code === "invalid_union");
  const taken =
    results.find(({ issues }) => issues.length === 0) ?? results.find(({ issues }) => !issues.some(ofWrongType));
  return taken ? taken.candidate : candidates[0];
}

/** Turns the issues of zod into problems with places, what was found and what to write instead. */
class Explainer {
  readonly #tree: Node;
  readonly #schema: z.ZodType;
  readonly #problems: Problems;
  readonly #loaderKeys: LoaderKeys;
  /** `path key` of the missing keys that an unknown key was probably meant to be. */
  readonly #meant = new Set<string>();

  constructor(tree: Node, schema: z.ZodType, problems: Problems, loaderKeys: LoaderKeys) {
    this.#tree = tree;
    this.#schema = schema;
    this.#problems = problems;
    this.#loaderKeys = loaderKeys;
  }

  explain(issues: readonly Issue[], base: Path): void {
    const unknownFirst = [...issues].sort((a, b) => rank(a) - rank(b));
    for (const issue of unknownFirst) {
      const path = [...base, ...issue.path];
      const node = nodeAt(this.#tree, path);
      if (node && holdsUnknown(node) && issue.code !== "unrecognized_keys") continue;
      if (issue.code === "unrecognized_keys") for (const key of issue.keys) this.#unknownKey(path, key);
      else if (issue.code === "invalid_union" && issue.message === "" && node?.kind === "map")
        this.#union(issue, path, node);
      else if (node === undefined) this.#missing(path.slice(0, -1), [String(path.at(-1))], issue.message);
      else this.#wrong(path, node, issue.message);
    }
  }

  #schemasAt(path: Path): z.ZodType[] {
    return path.reduce<z.ZodType[]>(
      (schemas, key, depth) => step(schemas, nodeAt(this.#tree, path.slice(0, depth)), key),
      [this.#schema],
    );
  }

  #branchesAt(path: Path): z.ZodType[] {
    return branches(this.#schemasAt(path), nodeAt(this.#tree, path));
  }

  #unknownKey(path: Path, key: string): void {
    const node = nodeAt(this.#tree, path);
    const entry = node?.kind === "map" ? node.entries.get(key) : undefined;
    if (!entry || node?.kind !== "map") return;
    const known = keysOf(this.#branchesAt(path));
    const others = known.filter((other) => !node.entries.has(other));
    const meant = nearest(key, [...others, ...this.#loaderKeys(path)]);
    if (meant) this.#meant.add(`${pathText(this.#tree, path)} ${meant}`);
    const instead = meant
      ? `did you mean "${meant}"?`
      : `known here: ${[...known, ...this.#loaderKeys(path)].join(", ")}`;
    this.#add(entry.keyAt, path, `unknown key "${key}"; ${instead}`);
  }

  /** A mapping of which there are several kinds, told apart by the keys that only one kind has. */
  #union(issue: Extract<Issue, { code: "invalid_union" }>, path: Path, node: MapNode): void {
    const options = this.#branchesAt(path);
    const signs = options.map((option) => signsOf(option, options));
    const given = signs.flat().filter((sign) => node.entries.has(sign));
    if (given.length > 1) {
      const at = node.entries.get(given[1]!)!.keyAt;
      this.#add(at, path, `"${given[1]}" does not go with "${given[0]}"; write one of them`);
    }
    const index = signs.findIndex((own) => own.includes(given[0] ?? ""));
    const known = new Set([...keysOf(options), ...this.#loaderKeys(path)]);
    for (const key of node.entries.keys()) if (!known.has(key)) this.#unknownKey(path, key);
    if (given.length === 0) this.#missing(path, signs.flat(), "");
    const own = issue.errors[index] ?? [];
    this.explain(
      own.filter((inner) => inner.code !== "unrecognized_keys"),
      path,
    );
  }

  #missing(path: Path, keys: readonly string[], wanted: string): void {
    if (keys.some((key) => this.#meant.has(`${pathText(this.#tree, path)} ${key}`))) return;
    const parent = nodeAt(this.#tree, path);
    if (!parent) return;
    const schemas = keys.flatMap((key) => step(this.#schemasAt(path), parent, key));
    const words = wordsOf(branches(schemas, undefined));
    const description = schemas.length === 1 ? schemas[0]!.description : undefined;
    const hint = wanted || (words.length > 0 ? list([...new Set(words.map(String))], "or") : "") || (description ?? "");
    const names = list(
      keys.map((key) => `"${key}"`),
      "or",
    );
    this.#add(
      parent.at,
      path,
      `missing key ${names}${hint === "" ? "" : `; add ${hint === description ? `it: ${hint}` : hint}`}`,
    );
  }

  #wrong(path: Path, node: Node, wanted: string): void {
    const schemas = this.#schemasAt(path);
    const possible = branches(schemas, node);
    const words = path.length > 0 && node.kind === "scalar" ? wordsOf(possible) : [];
    const meant = this.#meantValue(node, schemas, words);
    const expected = wanted ? hideInterpolated(wanted, node) : expectation(possible) + quotesHint(node, possible);
    const hint =
      meant === undefined ? "" : `did you mean ${JSON.stringify(typeof meant === "string" ? shown(meant) : meant)}? `;
    const write = `${hint === "" ? "write" : "Write"} ${expected}`;
    this.#add(node.at, path, `found ${found(node, schemas)}; ${hint}${write}`);
  }

  /** The word, or the example with a word mended, that was probably meant. */
  #meantValue(node: Node, schemas: readonly z.ZodType[], words: readonly unknown[]): unknown {
    if (node.kind !== "scalar" || node.interpolated || typeof node.value !== "string" || schemas.some(isSecret)) {
      return undefined;
    }
    const word = nearest(node.value, words.map(String));
    if (word !== undefined) {
      const meant = words.find((value) => String(value) === word);
      // What was found may itself be a word of the schema, ruled out by something beside it.
      return meant === node.value ? undefined : meant;
    }
    const vocabulary = schemas.flatMap(examplesOf).flatMap((example) => example.match(/[A-Za-z]{3,}/g) ?? []);
    const mended = node.value.replaceAll(/[A-Za-z]{3,}/g, (part) =>
      vocabulary.includes(part) ? part : (nearest(part, vocabulary) ?? part),
    );
    return mended !== node.value && schemas.some((schema) => schema.safeParse(mended).success) ? mended : undefined;
  }

  #add(at: Node["at"], path: Path, message: string): void {
    this.#problems.add(at, pathText(this.#tree, path), message);
  }
}

const rank = (issue: Issue) => (issue.code === "unrecognized_keys" ? 0 : 1);

function holdsUnknown(node: Node): boolean {
  if (node.kind === "list") return node.items.some(holdsUnknown);
  if (node.kind === "map") return [...node.entries.values()].some(({ value }) => holdsUnknown(value));
  return node.kind === "unknown";
}

/** The keys that this kind of mapping must have and no other kind knows. */
function signsOf(option: z.ZodType, options: readonly z.ZodType[]): string[] {
  const others = keysOf(options.filter((other) => other !== option));
  const schema = option as z.ZodObject;
  return keysOf([option]).filter(
    (key) => !others.includes(key) && !(schema.shape[key] as z.ZodType).safeParse(undefined).success,
  );
}

function examplesOf(schema: z.ZodType): string[] {
  const { examples } = (schema.meta() ?? {}) as { examples?: unknown[] };
  const inner = "unwrap" in schema ? examplesOf((schema as z.ZodOptional).unwrap() as z.ZodType) : [];
  const own = (examples ?? []).filter((example): example is string => typeof example === "string");
  return [...own, ...inner];
}

function found(node: Node, schemas: readonly z.ZodType[]): string {
  if (node.kind === "list") {
    const plain = node.items.every((item) => item.kind === "scalar" && !item.interpolated);
    return plain && node.items.length <= 4
      ? `[${node.items.map((item) => found(item, schemas)).join(", ")}]`
      : "a list";
  }
  if (node.kind === "map") return "a mapping";
  if (node.kind === "unknown") return "nothing";
  if (node.interpolated) {
    const sources = [...new Set(node.interpolated.map(({ source }) => source))];
    return `the value of ${sources.join(" and ")}${node.text === "" ? " (empty)" : ""}`;
  }
  if (node.value === null) return "nothing";
  if (schemas.some(isSecret)) return "a value that is not text";
  const isText = typeof node.value === "string" || Array.isArray(node.value);
  return isText ? JSON.stringify(shown(node.text)) : String(node.value);
}

/** A text of the file as a message may show it: not too long, and without the password of an address. */
function shown(text: string): string {
  // Greedy, up to the last @ and without asking for a scheme: the address may be wrong in any way.
  const safe = text
    .replace(/^([\w.]*:?\/\/)?([^:@]*):(?!\/\/).*@/s, "$1$2:[secret]@")
    .replace(/([?&](?:ssl)?password=)[^&#]*/gi, "$1[secret]");
  return safe.length > 60 ? `${safe.slice(0, 60)}…` : safe;
}

function quotesHint(node: Node, possible: readonly z.ZodType[]): string {
  if (node.kind !== "scalar" || node.interpolated) return "";
  const wanted = new Set(possible.map((schema) => schema.def.type));
  if (
    wanted.has("number") &&
    typeof node.value === "string" &&
    node.quoted &&
    typeof coreValue(node.text) === "number"
  ) {
    return ", without quotes";
  }
  const isNumber = typeof node.value === "number" || typeof node.value === "boolean";
  const fits = possible.some((schema) => schema.safeParse(node.text).success);
  return wanted.has("string") && !wanted.has("number") && isNumber && fits ? `, such as "${node.text}" in quotes` : "";
}

/** Replaces interpolated texts that a schema's own message repeats by where they came from. */
function hideInterpolated(message: string, node: Node): string {
  return interpolatedIn(node).reduce(
    (result, { text, source }) => (text === "" ? result : result.replaceAll(text, source)),
    message,
  );
}

function interpolatedIn(node: Node): NonNullable<ScalarNode["interpolated"]>[number][] {
  if (node.kind === "list") return node.items.flatMap(interpolatedIn);
  if (node.kind === "map") return [...node.entries.values()].flatMap(({ value }) => interpolatedIn(value));
  return node.kind === "scalar" ? [...(node.interpolated ?? [])] : [];
}
