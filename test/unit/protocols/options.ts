import { z } from "zod";

interface Property {
  description?: string;
  default?: unknown;
  examples?: unknown[];
  const?: unknown;
  enum?: unknown[];
  type?: string;
  properties?: Record<string, Property>;
  required?: string[];
  items?: Property;
  anyOf?: Property[];
}

/** The table that a protocol's README has between `<!-- options -->` and `<!-- /options -->`, its padding taken out. */
export function tableIn(readme: string): string | undefined {
  const table = /<!-- options -->\n(.*?)\n<!-- \/options -->/s.exec(readme)?.[1];
  return table
    ?.trim()
    .replaceAll(/ +/g, " ")
    .replaceAll(/-{3,}/g, "---")
    .replace("| --- | --- | --- |", "|---|---|---|");
}

/** The options of a device and its tags as a Markdown table, made of its schema: what its README is to carry. */
export function optionsTable(schema: z.ZodType): string {
  const root = z.toJSONSchema(schema, { io: "input" }) as Property;
  return ["| option | default | meaning |", "|---|---|---|", ...rows(root, "")].join("\n");
}

function rows({ properties = {}, required = [] }: Property, prefix: string): string[] {
  return Object.entries(properties).flatMap(([name, property]) => {
    const isRequired = required.includes(name);
    const nested = property.items?.properties ? property.items : property.properties ? property : undefined;
    const path = `${prefix}${name}`;
    const below = nested ? rows(nested, `${path}${nested === property ? "." : "[]."}`) : [];
    return [`| \`${path}\` | ${defaultOf(property, isRequired)} | ${meaningOf(property)} |`, ...below];
  });
}

function defaultOf(property: Property, isRequired: boolean): string {
  if (property.const !== undefined) return `required: \`${property.const}\``;
  if (property.default !== undefined) return `\`${property.default}\``;
  return isRequired ? "required" : "–";
}

function meaningOf({ description = "", enum: choices, examples, const: constant }: Property): string {
  if (constant !== undefined) return "Names the protocol.";
  const oneOf = choices ? ` One of ${choices.map((choice) => `\`${choice}\``).join(", ")}.` : "";
  const example = examples && !choices ? ` Example: \`${examples[0]}\`.` : "";
  return `${description}${oneOf}${example}`.trim().replaceAll("|", "\\|");
}
