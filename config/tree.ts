import type { Place, Problems } from "./problem.ts";

/**
 * What a YAML or CSV file says, each value with its place: what is left of the file once anchors are followed, and what
 * templates and interpolation work on before the schema sees plain values.
 */
export type Node = ScalarNode | ListNode | MapNode | UnknownNode;

export interface ScalarNode {
  readonly kind: "scalar";
  readonly at: Place;
  value: unknown;
  /** As written (quotes and escapes undone), or as interpolated. */
  readonly text: string;
  /** In quotes, or as a block: text, whatever it looks like. */
  readonly quoted: boolean;
  /** What else the text could mean, the likeliest first: the first that the schema takes becomes the value. */
  readonly candidates?: readonly unknown[];
  /** What was interpolated: messages name its source, such as `${env:PASSWORD}`, because the text may be secret. */
  readonly interpolated?: readonly { readonly text: string; readonly source: string }[];
}

export interface ListNode {
  readonly kind: "list";
  readonly at: Place;
  readonly items: readonly Node[];
}

export interface MapNode {
  readonly kind: "map";
  readonly at: Place;
  readonly entries: ReadonlyMap<string, Entry>;
}

export interface Entry {
  readonly keyAt: Place;
  readonly value: Node;
}

/** A value that could not be found out. The schema is not asked about it. */
export interface UnknownNode {
  readonly kind: "unknown";
  readonly at: Place;
  /** Why, and what to write instead; none when that is reported elsewhere. */
  readonly messages: readonly string[];
  /** Why, where only this machine lacks something: a variable that is not set, a file that is not there. */
  readonly missing?: readonly string[];
  /** What the file says in its place. */
  readonly written?: string;
}

export type Path = readonly PropertyKey[];

/** The node at a path; undefined when there is none. Below a scalar (a range in one CSV cell) it is the scalar. */
export function nodeAt(root: Node, path: Path): Node | undefined {
  let node: Node | undefined = root;
  for (const key of path) {
    if (node?.kind === "map") node = node.entries.get(String(key))?.value;
    else if (node?.kind === "list") node = node.items[Number(key)];
    else if (node?.kind !== "scalar") return node;
  }
  return node;
}

/** The value of a key of a mapping; undefined when it is absent or the node is no mapping. */
export function child(node: Node | undefined, key: string): Node | undefined {
  return node?.kind === "map" ? node.entries.get(key)?.value : undefined;
}

/** The items of a list under a key; none when it is absent or no list. */
export function itemsOf(node: Node | undefined, key: string): readonly Node[] {
  const list = child(node, key);
  return list?.kind === "list" ? list.items : [];
}

/** A scalar's text as a message may show it: what was interpolated is named, not shown. */
export function shownText({ text, interpolated = [] }: ScalarNode): string {
  return interpolated.reduce(
    (shown, each) => (each.text === "" ? shown : shown.replaceAll(each.text, each.source)),
    text,
  );
}

/** The text of a scalar under a key. */
export function textOf(node: Node | undefined, key: string): string | undefined {
  const scalar = child(node, key);
  return scalar?.kind === "scalar" && scalar.value !== null ? String(scalar.value) : undefined;
}

/** Adds the unknown values below a node to the problems. */
export function reportUnknown(root: Node, problems: Problems, base = ""): void {
  const visit = (node: Node, path: Path) => {
    if (node.kind === "list") for (const [index, item] of node.items.entries()) visit(item, [...path, index]);
    if (node.kind === "map") for (const [key, { value }] of node.entries) visit(value, [...path, key]);
    if (node.kind !== "unknown") return;
    const text = pathText(root, path);
    const where = base && text && !text.startsWith("[") ? `${base}.${text}` : base + text;
    for (const message of node.messages) problems.add(node.at, where, message);
    for (const message of node.missing ?? []) problems.addMissing(node.at, where, message);
  };
  visit(root, []);
}

const maxPathText = 120;

/** A path as people read it, with list items by their `name`: `devices[drives].tags[speed].register`. */
export function pathText(root: Node, path: Path): string {
  let text = "";
  path.forEach((key, depth) => {
    if (typeof key !== "number") {
      text += text === "" ? String(key) : `.${String(key)}`;
      return;
    }
    const name = child(nodeAt(root, path.slice(0, depth + 1)), "name");
    text += `[${name?.kind === "scalar" && name.text !== "" ? shownText(name) : key}]`;
  });
  return text.length > maxPathText ? `${text.slice(0, maxPathText)}…` : text;
}
