import type { Problems } from "./problem.ts";
import { child, itemsOf, type MapNode, type Node, type Path, pathText, shownText, textOf } from "./tree.ts";

/** What no single field can tell: rules between the parts of a file. They hold whatever else is wrong with it. */
export type Rules = (tree: Node, problems: Problems) => void;

/** The rules of an edge's file: names are unique, settings that need each other come together. */
export const edgeRules: Rules = (tree, problems) => {
  uniqueNames(tree, [], "devices", "device", problems);
  itemsOf(tree, "devices").forEach((device, index) => {
    const path = ["devices", index];
    uniqueNames(tree, path, "tags", "tag", problems, device);
    itemsOf(device, "tags").forEach((tag, tagIndex) => {
      const heartbeat = entryOf(tag, "heartbeat");
      if (!heartbeat || entryOf(tag, "deadband")) return;
      const where = pathText(tree, [...path, "tags", tagIndex]);
      problems.add(
        heartbeat.keyAt,
        where,
        "a heartbeat has no effect without a deadband; add deadband (0: report every change), or remove heartbeat",
      );
    });
  });
  encryptedWithCa(tree, "uplink", problems);
};

/** The rules of the cloud's file. */
export const cloudRules: Rules = (tree, problems) => {
  uniqueNames(tree, [], "edges", "edge", problems);
  const broker = child(tree, "broker");
  const user = textOf(broker, "user") ?? "cloud";
  itemsOf(tree, "edges").forEach((edge, index) => {
    const path = pathText(tree, ["edges", index]);
    const name = entryOf(edge, "name");
    if (name && textOf(edge, "name") === user) {
      problems.add(
        name.value.at,
        path,
        `"${user}" is the broker user of the cloud service itself; give the edge another name, or change broker.user`,
      );
    }
    if (entryOf(broker, "embedded") && edge.kind === "map" && !entryOf(edge, "password")) {
      problems.add(
        edge.at,
        path,
        'missing key "password"; add one, such as "${env:NAME}": the embedded broker lets nobody in without',
      );
    }
  });
  encryptedWithCa(tree, "broker", problems);
};

function entryOf(node: Node | undefined, key: string) {
  return node?.kind === "map" ? (node as MapNode).entries.get(key) : undefined;
}

function uniqueNames(tree: Node, path: Path, key: string, what: string, problems: Problems, node: Node = tree): void {
  const first = new Map<string, Node["at"]>();
  itemsOf(node, key).forEach((item, index) => {
    const name = child(item, "name");
    const text = textOf(item, "name");
    if (name?.kind !== "scalar" || text === undefined) return;
    const before = first.get(text);
    if (!before) first.set(text, name.at);
    else {
      const place = before.file === name.at.file ? `line ${before.line}` : `${before.file}:${before.line}`;
      problems.add(
        name.at,
        pathText(tree, [...path, key, index]),
        `a second ${what} named "${shownText(name)}" (the first: ${place}); give it another name`,
      );
    }
  });
}

function encryptedWithCa(tree: Node, key: string, problems: Problems): void {
  const link = child(tree, key);
  const ca = entryOf(link, "ca");
  const scheme = /^(mqtt|ws):/.exec(textOf(link, "url") ?? "")?.[1];
  if (ca && scheme)
    problems.add(
      ca.keyAt,
      key,
      `"ca" has no effect, because ${scheme}:// is not encrypted; write ${scheme}s:// in url, or remove ca`,
    );
}
