import { z } from "zod";
import { secret } from "../protocols/secret.ts";
import { child, type Node } from "./tree.ts";

/** Looks into zod schemas: what may stand at a place, for suggestions and messages. */

/** The schema within `optional`, defaults and transforms: the one that says what may be written. */
export function unwrap(schema: z.ZodType): z.ZodType {
  if (isSecret(schema)) return schema;
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodReadonly) {
    return unwrap(schema.unwrap() as z.ZodType);
  }
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return unwrap(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodPipe) {
    // In a preprocessing the transformation comes first.
    return unwrap((schema.in instanceof z.ZodTransform ? schema.out : schema.in) as z.ZodType);
  }
  if (schema instanceof z.ZodLazy) return unwrap(schema.unwrap() as z.ZodType);
  return schema;
}

/** True for `secret`, described or not: its value is never shown. */
export function isSecret(schema: z.ZodType): boolean {
  if (schema instanceof z.ZodOptional) return isSecret(schema.unwrap() as z.ZodType);
  return schema instanceof z.ZodPipe && schema.in === secret.in;
}

/** What may stand at a node: several where the node does not tell which part of a union it means. */
export function branches(schemas: readonly z.ZodType[], node: Node | undefined): z.ZodType[] {
  return schemas.flatMap((wrapped) => {
    const schema = unwrap(wrapped);
    if (!(schema instanceof z.ZodUnion)) return [schema];
    const options = schema.options as z.ZodType[];
    if (schema instanceof z.ZodDiscriminatedUnion) {
      const key = schema.def.discriminator;
      const given = child(node, key);
      const told = options.filter(
        (option) => given?.kind === "scalar" && literalsAt(option, key).includes(given.value),
      );
      return branches(told.length > 0 ? told : options, node);
    }
    return branches(options, node);
  });
}

function literalsAt(option: z.ZodType, key: string): unknown[] {
  const inner = unwrap(option);
  const literal = inner instanceof z.ZodObject ? inner.shape[key] : undefined;
  return literal instanceof z.ZodLiteral ? [...literal.values] : [];
}

/** What may stand under a key or index of a node. */
export function step(schemas: readonly z.ZodType[], node: Node | undefined, key: PropertyKey): z.ZodType[] {
  return branches(schemas, node).flatMap((schema) => {
    if (schema instanceof z.ZodObject) return schema.shape[String(key)] ? [schema.shape[String(key)] as z.ZodType] : [];
    if (schema instanceof z.ZodArray) return [schema.element as z.ZodType];
    if (schema instanceof z.ZodTuple) return [schema.def.items[Number(key)] as z.ZodType].filter(Boolean);
    if (schema instanceof z.ZodRecord) return [schema.valueType as z.ZodType];
    return [];
  });
}

/** The keys that a mapping may have. */
export function keysOf(schemas: readonly z.ZodType[]): string[] {
  return [...new Set(schemas.flatMap((schema) => (schema instanceof z.ZodObject ? Object.keys(schema.shape) : [])))];
}

/** The words among which a value is chosen; none when it is free. */
export function wordsOf(schemas: readonly z.ZodType[]): unknown[] {
  return schemas.flatMap((schema) => {
    if (schema instanceof z.ZodEnum) return schema.options;
    return schema instanceof z.ZodLiteral ? [...schema.values] : [];
  });
}

/** What to write, in general words, where the schema has none of its own. */
export function expectation(schemas: readonly z.ZodType[]): string {
  const kinds = new Set(schemas.map(expectationOf));
  return list([...kinds], "or");
}

function expectationOf(schema: z.ZodType): string {
  if (schema instanceof z.ZodNumber) return numberExpectation(schema);
  if (schema instanceof z.ZodString) return (schema.minLength ?? 0) > 0 ? "a text that is not empty" : "a text";
  if (schema instanceof z.ZodBoolean) return "true or false";
  if (schema instanceof z.ZodEnum || schema instanceof z.ZodLiteral) return list(wordsOf([schema]).map(String), "or");
  if (schema instanceof z.ZodObject) return `a mapping with the keys ${keysOf([schema]).join(", ")}`;
  if (schema instanceof z.ZodRecord) return "a mapping (name: value)";
  if (isPairOfNumbers(schema)) return "two numbers in a list, such as [0, 100] (in a CSV cell: 0..100)";
  if (schema instanceof z.ZodTuple) return `a list of ${schema.def.items.length} values`;
  if (schema instanceof z.ZodArray) {
    const least = schema.def.checks?.length ? " that is not empty" : "";
    return `a list${least}`;
  }
  return "another value";
}

function isPairOfNumbers(schema: z.ZodType): boolean {
  return (
    schema instanceof z.ZodTuple &&
    schema.def.items.length === 2 &&
    schema.def.items.every((item) => item instanceof z.ZodNumber)
  );
}

function numberExpectation(schema: z.ZodNumber): string {
  const kind = schema.format?.includes("int") ? "a whole number" : "a number";
  const low = schema.minValue ?? -Infinity;
  const high = schema.maxValue ?? Infinity;
  const lowest = low > Number.MIN_SAFE_INTEGER ? low : undefined;
  const highest = high < Number.MAX_SAFE_INTEGER ? high : undefined;
  if (lowest !== undefined && highest !== undefined) return `${kind} from ${lowest} to ${highest}`;
  if (lowest !== undefined) return `${kind}, ${lowest} or more`;
  return highest === undefined ? kind : `${kind}, ${highest} or less`;
}

/** `a, b or c`. */
export function list(words: readonly string[], last: "or" | "and"): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;
}
