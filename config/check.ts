import type { z } from "zod";
import type { DeviceConfig } from "../protocols/device.ts";
import type { PlannedRequest } from "../protocols/driver.ts";
import { messageOf } from "../protocols/errors.ts";
import { protocols } from "../protocols/registry.ts";
import type { CloudConfig } from "./cloud.ts";
import type { EdgeConfig, Registry } from "./edge.ts";
import type { Environment } from "./interpolate.ts";
import { readCloud, readEdge } from "./load.ts";
import { ConfigFileError, Problems } from "./problem.ts";
import { readFile } from "./read.ts";
import { branches, isSecret, step } from "./schema.ts";
import { type Node, nodeAt, type Path, pathText } from "./tree.ts";

/** What `millrace check` says. */
export interface Report {
  readonly text: string;
  /** False when any file has a mistake. Warnings are none. */
  readonly ok: boolean;
}

/** Checks configuration files offline and says what each edge would read, and how often. */
export async function check(
  files: readonly string[],
  env: Environment = process.env,
  registry: Registry = protocols,
): Promise<Report> {
  const texts: string[] = [];
  let ok = true;
  for (const file of files) {
    try {
      texts.push(await checkFile(file, env, registry));
    } catch (error) {
      if (!(error instanceof ConfigFileError)) throw error;
      ok = false;
      const count = error.problems.length;
      texts.push(`${error.message}\n${file}: ${count} ${count === 1 ? "mistake" : "mistakes"}`);
    }
  }
  return { text: `${texts.join("\n\n")}\n`, ok };
}

async function checkFile(file: string, env: Environment, registry: Registry): Promise<string> {
  const found = new Problems(file);
  if (kindOf(file) === "edge") {
    const { config, schema, tree } = readEdge(file, env, registry, found);
    const lines = config ? await edgeLines(file, config, tree, registry) : [noPlan(file)];
    return [...lines, ...warnings(found, tree, schema)].join("\n");
  }
  const { config, schema, tree } = readCloud(file, env, found);
  return [...(config ? cloudLines(file, config, tree) : [noPlan(file)]), ...warnings(found, tree, schema)].join("\n");
}

function noPlan(file: string): string {
  return `${file}: no mistakes, as far as it can be told; what is missing decides too much to say more`;
}

/** The setting at a path, or what the file says where that is not known here. */
function said(tree: Node, path: Path, value: string | number): string {
  const node = nodeAt(tree, path);
  return (node?.kind === "unknown" ? node.written : undefined) ?? String(value);
}

const edgeKeys = ["edge", "uplink", "buffer", "devices", "templates"];
const cloudKeys = ["broker", "edges", "store", "retention", "ingest"];

/** Which kind of file it is, told by its keys. @throws ConfigFileError when it cannot be told or read */
function kindOf(file: string): "edge" | "cloud" {
  const problems = new Problems(file);
  const root = readFile(file, problems);
  problems.throwIfAny();
  const has = (keys: string[]) => keys.filter((key) => root?.kind === "map" && root.entries.has(key)).length;
  const [edge, cloud] = [has(edgeKeys), has(cloudKeys)];
  if (edge !== cloud) return edge > cloud ? "edge" : "cloud";
  const message = `neither an edge's file nor the cloud's; write keys of an edge (${edgeKeys.join(", ")}) or of the cloud (${cloudKeys.join(", ")})`;
  problems.add(root?.at ?? { file, line: 1, column: 1 }, "", message);
  throw new ConfigFileError(problems.list());
}

async function edgeLines(file: string, config: EdgeConfig, tree: Node, registry: Registry): Promise<string[]> {
  const plans: { device: DeviceConfig; requests: readonly PlannedRequest[] }[] = [];
  for (const device of config.devices) {
    plans.push({ device, requests: await planOf(file, device, registry) });
  }
  const all = plans.flatMap(({ requests }) => requests);
  const tags = config.devices.reduce((sum, device) => sum + device.tags.length, 0);
  const total = [count(config.devices.length, "device"), count(tags, "tag"), perSecond(all)].filter(Boolean).join(", ");
  const oftenWidth = Math.max(0, ...all.map((request) => often(request).length));
  const tagsWidth = Math.max(0, ...all.map((request) => count(request.tags, "tag").length));
  const lines = [`${file}: edge ${said(tree, ["edge"], config.edge)}: ${total}`];
  for (const { device, requests } of plans) {
    const sum = [count(device.tags.length, "tag"), perSecond(requests)].filter(Boolean).join(", ");
    lines.push("", `  ${device.name} (${device.protocol}): ${sum}`);
    for (const planned of requests) {
      const served = count(planned.tags, "tag");
      lines.push(`    ${often(planned).padEnd(oftenWidth)}  ${served.padEnd(tagsWidth)}  ${planned.request}`);
    }
  }
  return lines;
}

async function planOf(file: string, device: DeviceConfig, registry: Registry): Promise<readonly PlannedRequest[]> {
  try {
    // The schema that told the device's protocol apart is the one whose plan this is.
    return await registry[device.protocol]!.plan(device as never);
  } catch (error) {
    const message = `cannot be planned: ${messageOf(error)}`;
    throw new ConfigFileError([{ file, line: 1, column: 1, path: `devices[${device.name}]`, message }]);
  }
}

function often({ everyMs }: PlannedRequest): string {
  return everyMs === null ? "on change" : `every ${durationText(everyMs)}`;
}

function perSecond(requests: readonly PlannedRequest[]): string {
  const rate = requests.reduce((sum, { everyMs }) => sum + (everyMs === null ? 0 : 1000 / everyMs), 0);
  if (rate === 0) return "";
  const digits = rate < 1 ? 3 : rate < 100 ? 1 : 0;
  const text = String(Number(rate.toFixed(digits)));
  return `${text} ${text === "1" ? "request" : "requests"} per second`;
}

function cloudLines(file: string, config: CloudConfig, tree: Node): string[] {
  const { broker, store, http, edges, retention } = config;
  const names = edges.map(({ name }) => name).join(", ");
  const listens = (path: string[], on: { host: string; port: number }) =>
    `${said(tree, [...path, "host"], on.host)}:${said(tree, [...path, "port"], on.port)}`;
  const brokerText =
    "embedded" in broker
      ? `embedded, on ${listens(["broker", "embedded"], broker.embedded)}`
      : said(tree, ["broker", "url"], broker.url);
  const storeText =
    "embedded" in store
      ? `embedded, in ${said(tree, ["store", "embedded", "path"], store.embedded.path)}`
      : said(tree, ["store", "url"], store.url);
  const kept = retention.readings === undefined ? "for ever" : durationText(retention.readings);
  return [
    `${file}: cloud: ${count(edges.length, "edge")}`,
    "",
    `  broker     ${brokerText}, as user ${said(tree, ["broker", "user"], broker.user)}`,
    `  edges      ${names || "none: nobody may send"}`,
    `  store      ${storeText}`,
    `  http       ${listens(["http"], http)}`,
    `  retention  readings ${kept}, raw frames ${durationText(retention.frame_log)}`,
  ];
}

function durationText(ms: number): string {
  const units = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["min", 60_000],
    ["s", 1000],
  ] as const;
  const [unit, factor] = units.find(([, each]) => ms >= each && ms % each === 0) ?? ["ms", 1];
  return `${ms / factor} ${unit}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/**
 * What is missing on this machine, and passwords that stand in the file itself, where everyone who may read or copy it
 * finds them.
 */
function warnings(found: Problems, tree: Node, schema: z.ZodType): string[] {
  const visit = (node: Node, schemas: readonly z.ZodType[], path: Path): void => {
    if (node.kind === "list") {
      for (const [index, item] of node.items.entries()) visit(item, step(schemas, node, index), [...path, index]);
    } else if (node.kind === "map") {
      for (const [key, { value }] of node.entries) visit(value, step(schemas, node, key), [...path, key]);
    } else if (node.kind === "scalar" && !node.interpolated) {
      if (!branches(schemas, node).some(isSecret)) return;
      found.add(node.at, pathText(tree, path), 'a password stands in the file; write "${env:NAME}" or "${file:/path}"');
    }
  };
  visit(tree, [schema], []);
  const list = found.list().map((each) => ({ ...each, message: `warning: ${each.message}` }));
  return found.empty ? [] : ["", new ConfigFileError(list).message];
}
