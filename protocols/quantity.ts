import { z } from "zod";

const durationUnits: Record<string, number> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Record<string, number> = {
  B: 1,
  KB: 1000,
  MB: 1000 ** 2,
  GB: 1000 ** 3,
  TB: 1000 ** 4,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

function parse(text: string, units: Record<string, number>): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$/.exec(text);
  const factor = match && units[match[2]!];
  return factor ? Math.round(Number(match[1]) * factor) : undefined;
}

/** `"500 ms"` → 500 (milliseconds); undefined when the text is no duration. */
export function parseDuration(text: string): number | undefined {
  return parse(text, durationUnits);
}

/** `"2 GiB"` → 2147483648 (bytes); undefined when the text is no size. */
export function parseSize(text: string): number | undefined {
  return parse(text, sizeUnits);
}

function quantity(what: string, units: Record<string, number>, example: string) {
  const names = Object.keys(units);
  return z
    .string({ error: () => `a ${what} with its unit, such as "${example}"` })
    .regex(new RegExp(`^\\s*\\d+(\\.\\d+)?\\s*(${names.join("|")})\\s*$`), {
      error: () => `a ${what} with its unit (${names.join(", ")}), such as "${example}"`,
    })
    .meta({ examples: [example] });
}

/** A duration with its unit (`500 ms`, `2 s`, `5 min`, `1 h`, `7 d`); parsed to milliseconds. */
export const duration = quantity("duration", durationUnits, "500 ms").transform((text) => parseDuration(text)!);

/** A size with its unit (`512 MiB`, `2 GB`); parsed to bytes. */
export const size = quantity("size", sizeUnits, "2 GiB").transform((text) => parseSize(text)!);
