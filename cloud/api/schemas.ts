import { z } from "zod";
import { equipmentPath, name, valueKinds } from "../../protocols/device.ts";
import { DataError } from "../../protocols/errors.ts";
import { gapReasons, now } from "../../protocols/reading.ts";
import { severities } from "./quality.ts";
import { parseTime, timeForms } from "./time.ts";

// Parameters. They arrive as text; each schema says what to write instead when the text is wrong.

/** A parameter that `parse` turns into its value; the message of the DataError it throws says what to write. */
function parameter<T>(parse: (text: string) => T, documentation: z.core.GlobalMeta) {
  return z
    .string({ error: () => "one value, once" })
    .transform((text, context) => {
      try {
        return parse(text);
      } catch (error) {
        if (!(error instanceof DataError)) throw error;
        context.issues.push({ code: "custom", message: error.message, input: text });
        return z.NEVER;
      }
    })
    .meta(documentation);
}

const maxLimit = 10_000;
const defaultLimit = 1000;

export const limitParameter = parameter(
  (text) => {
    const limit = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    if (limit < 1 || limit > maxLimit) throw new DataError(`a whole number from 1 to ${maxLimit}`);
    return limit;
  },
  {
    type: "integer",
    minimum: 1,
    maximum: maxLimit,
    default: defaultLimit,
    description: "The greatest number of items in one page.",
  },
).default(defaultLimit);

export const cursorParameter = z
  .string({ error: () => "one value, once" })
  .max(2000, { error: () => "the text of `next` from the page before, unchanged" })
  .optional()
  .describe("Where the page starts: `next` of the page before, unchanged. All other parameters stay the same.");

function timeParameter(description: string, example: string) {
  return parameter((text) => parseTime(text, now()), {
    description: `${description} Write ${timeForms}.`,
    examples: [example],
  }).optional();
}

const [fromExample, toExample] = ["2026-03-01T08:00:00.000000Z", "2026-03-01T09:00:00Z"];

/** The bounds of a span that is an hour long, and ends now, unless they say otherwise. */
export const spanParameters = {
  from: timeParameter("Start, inclusive; an hour before `to` when it is not given.", fromExample),
  to: timeParameter("End, exclusive; now when it is not given.", toExample),
};

/** The bounds of a span that is unlimited unless they say otherwise. */
export const overlapParameters = {
  from: timeParameter("Only gaps that end after this time, or are open.", fromExample),
  to: timeParameter("Only gaps that start before this time.", toExample),
};

export const edgeParameter = name.describe("Only this edge.").meta({ examples: ["line-3"] });
export const deviceParameter = name.describe("Only devices of this name.").meta({ examples: ["reactor-1"] });
export const tagNameParameter = name
  .describe("Only this tag, by its name within the device.")
  .meta({ examples: ["temperature"] });
export const equipmentParameter = equipmentPath
  .describe("Only tags of this equipment and of everything below it, by ISA-95 path.")
  .meta({ examples: ["pune/api/reactor-1"] });
export const reasonParameter = z
  .enum(gapReasons, { error: () => `one of ${gapReasons.join(", ")}` })
  .describe("Only gaps for this reason.");

const namePattern = "[A-Za-z][A-Za-z0-9_-]{0,63}";
export const tagPath = z.object({
  tag: z
    .string()
    .regex(new RegExp(`^${namePattern}\\.${namePattern}\\.${namePattern}$`), {
      error: () => "a tag's full name: edge.device.tag, such as line-3.reactor-1.temperature",
    })
    .describe("The tag's full name: `edge.device.tag`.")
    .meta({ examples: ["line-3.reactor-1.temperature"] }),
});

// Answers.

const time = z.string().meta({
  format: "date-time",
  description: "UTC, always to the microsecond.",
  examples: ["2026-03-01T08:00:00.123456Z"],
});

const value = z.union([z.number(), z.boolean(), z.string(), z.null()]).meta({
  description:
    "What the tag said; null when the quality is bad. Numbers are IEEE 754 doubles, written so that they read back exactly; a negative zero is written 0. NaN and infinities do not occur.",
});

const quality = z
  .object({
    severity: z.enum(severities).describe("What the code comes down to. The value of a bad reading is null."),
    code: z.int().min(0).max(0xffffffff).describe("The OPC UA status code, as an unsigned 32-bit integer."),
    name: z
      .string()
      .describe("The code's OPC UA name; for a code without one its severity and number, such as `Bad 0x80FF0000`."),
  })
  .meta({ id: "Quality", examples: [{ severity: "bad", code: 2150694912, name: "BadNoCommunication" }] });

const reading = z.object({ time, value, quality }).meta({
  id: "Reading",
  description: "One value of a tag at one time: the device's own time where it gives one.",
  examples: [
    { time: "2026-03-01T08:00:00.123456Z", value: 71.25, quality: { severity: "good", code: 0, name: "Good" } },
  ],
});
export type ReadingBody = z.infer<typeof reading>;

export const tag = z
  .object({
    tag: z.string().describe("Full name, `edge.device.tag`: what the tag is called in this API."),
    edge: z.string(),
    device: z.string(),
    name: z.string().describe("Name within the device."),
    kind: z
      .string()
      .describe(`The kind of its values as far as it is known before the first reading: ${valueKinds.join(", ")}.`),
    description: z.string().nullable(),
    unit: z.string().nullable().describe("Engineering unit."),
    equipment: z.string().nullable().describe("ISA-95 path of the equipment it belongs to."),
    range: z.array(z.number()).length(2).nullable().describe("The instrument's range in engineering units: low, high."),
    latest: reading.nullable().describe("The reading with the greatest time; null when there is none yet."),
  })
  .meta({
    id: "Tag",
    description: "One named signal of one device.",
    examples: [
      {
        tag: "line-3.reactor-1.temperature",
        edge: "line-3",
        device: "reactor-1",
        name: "temperature",
        kind: "number",
        description: "Jacket temperature",
        unit: "degC",
        equipment: "pune/api/reactor-1",
        range: [0, 200],
        latest: {
          time: "2026-03-01T08:00:00.123456Z",
          value: 71.25,
          quality: { severity: "good", code: 0, name: "Good" },
        },
      },
    ],
  });
export type TagBody = z.infer<typeof tag>;

const stream = z
  .object({
    stream: z.string().describe("The stream's identity: a UUID as 32 hex digits."),
    frames: z.int().describe("Frames stored."),
    last_seq: z.int().describe("The greatest sequence number that has arrived."),
    whole: z.boolean().describe("True when every frame up to `last_seq` is stored."),
    missing: z
      .array(z.array(z.int()).length(2))
      .describe("Ranges of sequence numbers that have not arrived, both ends included."),
  })
  .meta({ id: "Stream", description: "One unbroken sequence of frames of one edge, and the account of what arrived." });

export const edge = z
  .object({
    edge: z.string(),
    site: z.string().nullable(),
    first_seen: time,
    last_frame_at: time.nullable().describe("When its last frame was committed; null before the first."),
    frames: z.int().describe("Frames stored, over all streams."),
    whole: z.boolean().describe("True when no stream misses a frame."),
    streams: z.array(stream),
  })
  .meta({
    id: "Edge",
    description: "An edge agent, as the cloud knows it.",
    examples: [
      {
        edge: "line-3",
        site: "pune",
        first_seen: "2026-03-01T06:00:00.000000Z",
        last_frame_at: "2026-03-01T08:00:00.250000Z",
        frames: 7200,
        whole: true,
        streams: [
          { stream: "0195f3c2a6b17c3e8d4f5a6b7c8d9e0f", frames: 7200, last_seq: 7200, whole: true, missing: [] },
        ],
      },
    ],
  });
export type EdgeBody = z.infer<typeof edge>;

export const gap = z
  .object({
    edge: z.string(),
    device: z.string(),
    tag: z.string().nullable().describe("Name within the device; null: every tag of the device."),
    reason: z.enum(gapReasons),
    from: time.describe("The last moment at which data is known to have been whole."),
    to: time.nullable().describe("The first moment at which data is whole again; null while the gap is open."),
    detail: z.string().describe("What was seen, for a person."),
  })
  .meta({
    id: "Gap",
    description: "From when to when, and why, nothing was collected.",
    examples: [
      {
        edge: "line-3",
        device: "drives",
        tag: null,
        reason: "device_down",
        from: "2026-03-01T08:00:00.000000Z",
        to: null,
        detail: "10.0.5.20:502 does not answer: connect ECONNREFUSED",
      },
    ],
  });
export type GapBody = z.infer<typeof gap>;

const next = z.string().nullable().describe("The cursor of the next page; null on the last one.");

/** A page of a list: its items, and the cursor of the next. */
function page<T extends z.ZodType>(item: T, id: string) {
  return z.object({ items: z.array(item), next }).meta({ id });
}

export const edgePage = page(edge, "EdgePage");
export const tagPage = page(tag, "TagPage");
export const readingPage = page(reading, "ReadingPage");
export const gapPage = page(gap, "GapPage");
