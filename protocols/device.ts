import { z } from "zod";
import { duration } from "./quantity.ts";

/** Names of edges, devices and tags: they stand in topics, URLs and file names, joined by dots (`line-3.drives.speed`). */
export const name = z.string().regex(/^[A-Za-z][A-Za-z0-9_-]{0,63}$/, {
  error: () => "a name of letters, digits, - and _, starting with a letter, at most 64 long",
});

/** The place of equipment in the ISA-95 hierarchy, from the site down: `pune/api/reactor-1`. */
export const equipmentPath = z.string().regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/, {
  error: () => "an equipment path such as pune/api/reactor-1 (names joined by /)",
});

/** What every tag of every protocol can say. A protocol's own tag schema extends this. */
export const tagFields = {
  name: name.describe("The tag's name, unique within its device."),
  description: z.string().optional().describe("What the signal means, for people."),
  unit: z.string().optional().describe("Engineering unit, such as degC, bar or rpm."),
  equipment: equipmentPath.optional().describe("The equipment that the tag belongs to; the device's by default."),
  range: z
    .tuple([z.number(), z.number()])
    .refine(([low, high]) => low < high, { error: "two numbers, the lower one first" })
    .optional()
    .describe("The instrument's range in engineering units: [low, high]."),
  deadband: z
    .number()
    .nonnegative()
    .optional()
    .describe(
      "Report by exception: a number that moved by no more than this since the last reported one is not reported (0: every change is). Texts and booleans: only changes are reported. Without a deadband every reading is.",
    ),
  heartbeat: duration
    .optional()
    .describe(
      "With a deadband: report an unchanged value again after this time, so that silence and no change differ.",
    ),
} as const;

/** What every device of every protocol can say, beside its `protocol` and its `tags`. */
export const deviceFields = {
  name: name.describe("The device's name, unique within the edge."),
  description: z.string().optional().describe("What the device is, for people."),
  equipment: equipmentPath
    .optional()
    .describe("The equipment that the device's tags belong to, such as pune/api/reactor-1."),
} as const;

/** The kinds of value a tag can hold, as far as they are known before the first reading. */
export const valueKinds = ["number", "boolean", "text", "any"] as const;
export type ValueKind = (typeof valueKinds)[number];

/** The part of any device's configuration that the edge uses whatever the protocol. */
export interface DeviceConfig {
  readonly name: string;
  readonly protocol: string;
  readonly description?: string;
  readonly equipment?: string;
  readonly tags: readonly TagConfig[];
}

/** The part of any tag's configuration that the edge uses whatever the protocol. */
export interface TagConfig {
  readonly name: string;
  readonly description?: string;
  readonly unit?: string;
  readonly equipment?: string;
  readonly range?: readonly [number, number];
  readonly deadband?: number;
  /** Milliseconds. */
  readonly heartbeat?: number;
}
