import { z } from "zod";
import { protocols } from "../protocols/registry.ts";
import { cloudSchema } from "./cloud.ts";
import { edgeSchema, type Registry } from "./edge.ts";

/**
 * JSON Schemas (2020-12) of the files as they are written, for editors: completion, descriptions, and marks under
 * mistakes. They take what the loader takes before the schemas see it: interpolation, templates and CSV tag lists.
 */
export interface JsonSchema {
  [keyword: string]: unknown;
  type?: string;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
}

/** The schema of an edge's file. */
export function edgeJsonSchema(registry: Registry = protocols): JsonSchema {
  const schema = written(edgeSchema(registry, "."));
  const { devices } = schema.properties!;
  const variants = (devices!.items!.oneOf ?? [devices!.items!]) as JsonSchema[];
  const $defs: Record<string, JsonSchema> = { interpolated, parameters, tagUse: tagUse(), deviceUse: deviceUse() };
  const whole: JsonSchema[] = [];
  const partial: JsonSchema[] = [];
  const tagLists: JsonSchema[] = [];
  for (const { required = [], properties = {}, ...rest } of variants) {
    const protocol = String(properties.protocol!.const);
    const tags: JsonSchema = { ...properties.tags!, items: either(properties.tags!.items!, ref("tagUse")) };
    const { minItems: _, ...anyTags } = tags;
    $defs[`${protocol}-tags`] = anyTags;
    const device = { ...properties, tags: ref(`${protocol}-tags`), tags_from: tagsFrom };
    $defs[protocol] = { ...rest, properties: device };
    const needed = required.filter((key) => key !== "tags");
    whole.push({ ...ref(protocol), required: needed, ...either({ required: ["tags"] }, { required: ["tags_from"] }) });
    partial.push({ ...ref(protocol), required: ["protocol"] });
    tagLists.push(ref(`${protocol}-tags`));
  }
  schema.properties!.devices = { ...devices, items: either(...whole, ref("deviceUse")) };
  schema.properties!.templates = templates(either(...partial), either(...tagLists));
  return { ...schema, $defs };
}

/** The schema of the cloud's file. */
export function cloudJsonSchema(): JsonSchema {
  return { ...written(cloudSchema(".")), $defs: { interpolated } };
}

/** The schemas that are checked in, by their paths from this folder. */
export function schemaFiles(): Record<string, string> {
  const text = (schema: JsonSchema) => `${JSON.stringify(schema, null, 2)}\n`;
  return { "schema/edge.schema.json": text(edgeJsonSchema()), "schema/cloud.schema.json": text(cloudJsonSchema()) };
}

const ref = (name: string): JsonSchema => ({ $ref: `#/$defs/${name}` });
const either = (...anyOf: JsonSchema[]): JsonSchema => ({ anyOf });

const interpolated: JsonSchema = {
  type: "string",
  pattern: "\\$\\{[^}]+\\}",
  description: "A value from elsewhere: ${env:NAME}, ${file:/path}, or in a template ${parameter}.",
};

const parameters: JsonSchema = { type: "object", description: "The template's parameters, by name." };

const tagsFrom: JsonSchema = {
  type: "string",
  description: "A CSV file of tags, whose first line names their fields; relative to this file.",
};

function use(what: string): Record<string, JsonSchema> {
  return {
    template: { type: "string", description: `The template (a name under \`templates\`) that makes ${what}.` },
    with: { ...ref("parameters"), description: "The template's parameters." },
    each: {
      type: "array",
      items: ref("parameters"),
      description: "Use the template once for each of these parameters.",
    },
  };
}

function tagUse(): JsonSchema {
  return { type: "object", properties: use("tags"), required: ["template"], additionalProperties: false };
}

/** Beside the template's parameters, an entry has keys of its own, whose schema depends on the template. */
function deviceUse(): JsonSchema {
  return { type: "object", properties: use("a device"), required: ["template"] };
}

function templates(device: JsonSchema, tags: JsonSchema): JsonSchema {
  const names: JsonSchema = { type: "array", items: { type: "string" } };
  const defaults: JsonSchema = { type: "object", description: "Names with their defaults; nothing: to be given." };
  const template: JsonSchema = {
    type: "object",
    properties: {
      parameters: {
        ...either(names, defaults),
        description: "What differs from use to use: `[unit, base]`, or with defaults `{ unit: , base: 100 }`.",
      },
      device: { ...device, description: "A device, in which ${name} or ${name + 2} stands for a parameter." },
      tags: { ...tags, description: "Tags, in which ${name} or ${name + 2} stands for a parameter." },
    },
    additionalProperties: false,
  };
  return {
    type: "object",
    additionalProperties: template,
    description: "Devices and lists of tags that are written once and used with parameters, by name.",
  };
}

/** What may be written in a file: each value but plain text may also be interpolated. */
function written(schema: z.ZodType): JsonSchema {
  return interpolatable(z.toJSONSchema(schema, { io: "input" }) as JsonSchema);
}

function interpolatable(schema: JsonSchema): JsonSchema {
  const { properties, items, anyOf, oneOf, additionalProperties } = schema;
  const inside: JsonSchema = { ...schema };
  if (properties) inside.properties = mapValues(properties, interpolatable);
  if (items) inside.items = interpolatable(items);
  if (anyOf) inside.anyOf = anyOf.map(interpolatable);
  if (oneOf) inside.oneOf = oneOf.map(interpolatable);
  if (typeof additionalProperties === "object")
    inside.additionalProperties = interpolatable(additionalProperties as JsonSchema);
  // Whole numbers without a bound of their own show the bounds of JavaScript, which help nobody.
  if (inside.minimum === Number.MIN_SAFE_INTEGER) delete inside.minimum;
  if (inside.maximum === Number.MAX_SAFE_INTEGER) delete inside.maximum;
  return takesAnyText(inside) ? inside : orInterpolated(inside);
}

/** Mappings, lists and unions aside (their parts are seen to), what would refuse `${…}`. */
function takesAnyText({
  type,
  properties,
  items,
  anyOf,
  oneOf,
  pattern,
  const: constant,
  enum: words,
}: JsonSchema): boolean {
  if (properties || items || anyOf || oneOf || constant !== undefined || type === "object") return true;
  return type === "string" && pattern === undefined && words === undefined;
}

function orInterpolated({ description, default: fallback, examples, ...rest }: JsonSchema): JsonSchema {
  const notes = Object.entries({ description, default: fallback, examples }).filter(([, note]) => note !== undefined);
  return { ...Object.fromEntries(notes), ...either(rest, ref("interpolated")) };
}

function mapValues<T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}
