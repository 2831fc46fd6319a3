import { withTagsFrom } from "./csv.ts";
import { interpolate, interpolateMap, placed, type Scope } from "./interpolate.ts";
import type { Place, Problems } from "./problem.ts";
import { list } from "./schema.ts";
import { nearest } from "./suggest.ts";
import { readTemplates, type Template } from "./templates.ts";
import { child, type Entry, type ListNode, type MapNode, type Node, reportUnknown } from "./tree.ts";

/** The keys of an entry that uses a template. */
const useKeys = ["template", "with", "each"];

/**
 * What a device map stands for: interpolated, its templates expanded, its CSV files read.
 *
 * A template is a device, or a list of tags, with parameters. An entry of `devices` or of a device's `tags` that says
 * `template: NAME` stands for it, with the parameters given in `with`, or once for each item of `each`. Beside them, an
 * entry of `devices` may say keys of its own: they replace the template's, and its `tags` are added to the template's.
 */
export function expand(root: MapNode, scope: Scope, problems: Problems): MapNode {
  return new Expander(root, scope, problems).expand(root);
}

class Expander {
  readonly #scope: Scope;
  readonly #problems: Problems;
  readonly #templates: ReadonlyMap<string, Template>;

  constructor(root: MapNode, scope: Scope, problems: Problems) {
    this.#scope = scope;
    this.#problems = problems;
    const templates = child(root, "templates");
    this.#templates = templates ? readTemplates(templates, scope, problems) : new Map();
  }

  expand(root: MapNode): MapNode {
    const entries = new Map<string, Entry>();
    for (const [key, { keyAt, value }] of root.entries) {
      if (key === "templates") continue;
      const devices = key === "devices" && value.kind === "list";
      entries.set(key, { keyAt, value: devices ? this.#devices(value) : interpolate(value, this.#scope) });
    }
    return { ...root, entries };
  }

  #devices(node: ListNode): ListNode {
    const items = node.items.flatMap((item, index) => {
      if (item.kind !== "map") return [interpolate(item, this.#scope)];
      const where = `devices[${index}]`;
      if (!item.entries.has("template")) {
        return [withTagsFrom(this.#device(item, this.#scope, where), this.#scope.folder, this.#problems)];
      }
      return this.#uses(item, "device", this.#scope, where).map(({ template, scope, at }) => {
        const own = without(item, useKeys);
        const ownScope = { ...scope, usedAt: at === item.at ? this.#scope.usedAt : at };
        const made = merge(this.#device(template.device!, scope, where), this.#device(own, ownScope, where), at);
        return withTagsFrom(made, scope.folder, this.#problems);
      });
    });
    return { ...node, items };
  }

  #device(device: MapNode, scope: Scope, where: string): MapNode {
    const tags = device.entries.get("tags");
    if (tags?.value.kind !== "list") return interpolateMap(device, scope);
    const rest = interpolateMap(without(device, ["tags"]), scope);
    const expanded: Entry = { keyAt: placed(tags.keyAt, scope), value: this.#tags(tags.value, scope, where, []) };
    return { ...rest, entries: new Map([...rest.entries, ["tags", expanded]]) };
  }

  /** @param inside the names of the tag templates around this list */
  #tags(node: ListNode, scope: Scope, where: string, inside: readonly string[]): ListNode {
    const items = node.items.flatMap((item, index) => {
      if (item.kind !== "map" || !item.entries.has("template")) return [interpolate(item, scope)];
      const here = `${where}.tags[${index}]`;
      for (const [key, { keyAt }] of without(item, useKeys).entries) {
        const message = `a tag template takes no keys of its own; move "${key}" into the template or its parameters`;
        this.#problems.add(placed(keyAt, scope), here, message);
      }
      return this.#uses(item, "tags", scope, here).flatMap(({ template, scope: inner }) => {
        if (!inside.includes(template.name)) {
          return this.#tags(template.tags!, inner, here, [...inside, template.name]).items;
        }
        const cycle = [...inside, template.name].join(" → ");
        this.#problems.add(placed(item.at, scope), here, `the template uses itself (${cycle}); take one use out`);
        return [];
      });
    });
    return { kind: "list", at: placed(node.at, scope), items };
  }

  /** The template that an entry names, once for each set of parameters that the entry gives. */
  #uses(entry: MapNode, kind: "device" | "tags", scope: Scope, where: string) {
    const template = this.#find(entry, kind, scope, where);
    if (!template || scope.budget.left < 0) return [];
    return this.#argumentLists(entry, scope, where).flatMap((given) => {
      const parameters = this.#bind(template, given, where);
      return parameters ? [{ template, at: given.at, scope: { ...scope, parameters, usedAt: given.at } }] : [];
    });
  }

  #find(entry: MapNode, kind: "device" | "tags", scope: Scope, where: string): Template | undefined {
    const name = interpolate(child(entry, "template")!, scope);
    reportUnknown(name, this.#problems, `${where}.template`);
    if (name.kind === "unknown") return undefined;
    const text = name.kind === "scalar" ? String(name.value) : "";
    const template = this.#templates.get(text);
    if (template?.[kind]) return template;
    const fitting = [...this.#templates.values()].filter((each) => each[kind]).map((each) => each.name);
    const meant = nearest(text, fitting);
    const known = fitting.length > 0 ? `write ${list(fitting, "or")}` : `add it under templates, with ${kind}`;
    const what = template
      ? `the template "${text}" makes ${kind === "device" ? "tags, not a device" : "a device, not tags"}`
      : `unknown template "${text}"`;
    this.#problems.add(name.at, `${where}.template`, `${what}; ${meant ? `did you mean "${meant}"?` : known}`);
    return undefined;
  }

  #argumentLists(entry: MapNode, scope: Scope, where: string): MapNode[] {
    const single = entry.entries.get("with");
    const each = entry.entries.get("each");
    if (single && each) {
      this.#problems.add(placed(each.keyAt, scope), where, '"each" does not go with "with"; write one of them');
      return [];
    }
    if (!single && !each) return [{ kind: "map", at: placed(entry.at, scope), entries: new Map() }];
    const given = interpolate((single ?? each)!.value, scope);
    const key = single ? "with" : "each";
    reportUnknown(given, this.#problems, `${where}.${key}`);
    // One use of a template stands where the entry stands; several are told apart by their items.
    if (single && given.kind === "map") return [{ ...given, at: placed(entry.at, scope) }];
    if (each && given.kind === "list" && given.items.every((item) => item.kind === "map"))
      return [...given.items] as MapNode[];
    const wanted = single ? "a mapping, such as { unit: 3 }" : "a list of mappings, such as [{ unit: 3 }, { unit: 4 }]";
    if (given.kind !== "unknown")
      this.#problems.add(given.at, `${where}.${key}`, `found no parameters; write ${wanted}`);
    return [];
  }

  /** The template's parameters with their values; undefined when some are wrong, which is reported. */
  #bind(template: Template, given: MapNode, where: string): Map<string, Node> | undefined {
    const names = [...template.parameters.keys()];
    const meant = new Set<string>();
    let wrong = false;
    for (const [key, { keyAt }] of given.entries) {
      if (template.parameters.has(key)) continue;
      wrong = true;
      const near = nearest(
        key,
        names.filter((name) => !given.entries.has(name)),
      );
      if (near) meant.add(near);
      const known = names.length > 0 ? `known here: ${names.join(", ")}` : "it has none";
      const instead = near ? `did you mean "${near}"?` : known;
      this.#problems.add(keyAt, where, `the template "${template.name}" has no parameter "${key}"; ${instead}`);
    }
    const bound = new Map<string, Node>();
    for (const [name, fallback] of template.parameters) {
      const value = given.entries.get(name)?.value ?? fallback;
      if (value) bound.set(name, value);
      else {
        wrong = true;
        if (meant.has(name)) continue;
        const message = `the template "${template.name}" needs the parameter "${name}"; add it to "with" or "each"`;
        this.#problems.add(given.at, where, message);
      }
    }
    return wrong ? undefined : bound;
  }
}

function without(map: MapNode, keys: readonly string[]): MapNode {
  return { ...map, entries: new Map([...map.entries].filter(([key]) => !keys.includes(key))) };
}

/** A template's device with the keys of the entry that uses it. */
function merge(device: MapNode, own: MapNode, at: Place): MapNode {
  const entries = new Map([...device.entries, ...own.entries]);
  const [tags, ownTags] = [device.entries.get("tags"), own.entries.get("tags")];
  if (tags?.value.kind === "list" && ownTags?.value.kind === "list") {
    const items = [...tags.value.items, ...ownTags.value.items];
    entries.set("tags", { keyAt: ownTags.keyAt, value: { ...ownTags.value, items } });
  }
  return { kind: "map", at, entries };
}
