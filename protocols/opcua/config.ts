import { z } from "zod";
import { deviceFields, tagFields, type ValueKind, valueKinds } from "../device.ts";
import { duration } from "../quantity.ts";
import { secret } from "../secret.ts";
import { parseNodeAddress } from "./nodeid.ts";

const node = z
  .string()
  .refine((text) => parseNodeAddress(text) !== undefined, {
    error: () => 'a node id such as "nsu=urn:plant:r1;s=TT101.PV", "ns=2;s=TT101.PV" or "i=2258"',
  })
  .meta({ examples: ["nsu=urn:plant:r1;s=TT101.PV", "ns=2;s=TT101.PV", "i=2258"] });

const endpoint = z
  .string()
  .refine((text) => /^opc\.tcp:\/\/([^\s/:[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(\/\S*)?$/.test(text), {
    error: () => 'an OPC UA address such as "opc.tcp://10.0.5.11:4840"',
  })
  .meta({ examples: ["opc.tcp://10.0.5.11:4840"] });

const interval = duration.refine((ms) => ms > 0, { error: () => 'a duration above zero, such as "500 ms"' });
const queue = z.int().min(1).max(100_000);
const discard = z.enum(["oldest", "newest"]);

const opcuaTag = z.strictObject({
  ...tagFields,
  node: node.describe(
    "The node to read. A namespace given by its URI (nsu=) is found again on every session; an index (ns=) may mean another namespace after the server was restarted or changed.",
  ),
  type: z
    .enum(valueKinds)
    .default("any")
    .describe("The kind of value to accept; a value of another kind becomes a bad reading (BadTypeMismatch)."),
  sampling: duration.optional().describe("How often the server samples this node; the device's by default."),
  queue: queue.optional().describe("How many values the server keeps for this node between two publishings."),
  discard: discard.optional().describe("Which value the server drops when that queue is full."),
});

const login = z.strictObject({
  user: z.string().min(1).describe("The user's name on the server."),
  password: secret.describe("The user's password, best from the environment or a file of its own."),
});

/** One OPC UA server whose nodes are read by subscription. */
export const opcuaDevice = z.strictObject({
  ...deviceFields,
  protocol: z.literal("opcua"),
  endpoint: endpoint.describe("The server's address."),
  login: login.optional().describe("User name and password; the session is anonymous without."),
  sampling: duration.prefault("1 s").describe("How often the server samples each node."),
  publishing: interval.prefault("500 ms").describe("How often the server sends what has changed."),
  queue: queue
    .optional()
    .describe(
      "How many values the server keeps per node between two publishings. By default twice as many as can be sampled in that time, and at least 2.",
    ),
  discard: discard.default("oldest").describe("Which value the server drops when a node's queue is full."),
  timeout: interval.prefault("10 s").describe("How long to wait for an answer of the server."),
  tags: z.array(opcuaTag).min(1).describe("The signals to read."),
});

export type OpcuaDevice = z.output<typeof opcuaDevice>;
export type OpcuaTag = OpcuaDevice["tags"][number];

/** The kind of value that a tag yields, as far as its configuration tells. */
export function opcuaValueKind(tag: OpcuaTag): ValueKind {
  return tag.type;
}
