import { resolve } from "node:path";
import { z } from "zod";
import { duration } from "../protocols/quantity.ts";

/** Pieces of schema that the edge's and the cloud's files share. */

/** A path, taken relative to the folder of the file that says it; parsed to an absolute path. */
export function path(folder: string) {
  return z
    .string({ error: () => "a path, absolute or relative to this file" })
    .min(1, { error: () => "a path, absolute or relative to this file" })
    .transform((text) => resolve(folder, text));
}

/** An address with one of the given schemes, such as `mqtts`; without a password, as addresses are logged. */
export function url(schemes: readonly string[], example: string) {
  const wanted = `an address that begins with ${schemes.map((scheme) => `${scheme}://`).join(", ")}, such as ${example}`;
  return z
    .string({ error: () => wanted })
    .regex(new RegExp(`^(${schemes.join("|")})://[^\\s/]+`), { error: () => wanted, abort: true })
    .refine((text) => URL.canParse(text), { error: () => wanted, abort: true })
    .refine((text) => !holdsPassword(new URL(text)), {
      error: () => 'the address without its password, and beside it the keys "user" and "password"',
    })
    .meta({ examples: [example] });
}

/** A password before the host, or in the query, where PostgreSQL's clients take one too. */
function holdsPassword({ password, searchParams }: URL): boolean {
  return password !== "" || [...searchParams.keys()].some((key) => /^(ssl)?password$/i.test(key));
}

/** A TCP port to listen on. */
export const port = z.int().min(0).max(65535);

/** The address to listen on: this machine alone, unless the file says otherwise. */
export const host = z.string().min(1);

/** The MQTT protocol to speak. */
export const mqttVersion = z
  .literal(["auto", 5, "3.1.1"])
  .default("auto")
  .describe("MQTT version: auto tries 5 first and falls back to 3.1.1.");

/** What is logged. */
export const log = z
  .strictObject({
    level: z
      .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
      .default("info")
      .describe("The least important messages that are logged."),
  })
  .prefault({})
  .describe("The log, written to standard output as lines of JSON.");

/** A duration longer than nothing. */
export const positiveDuration = duration.refine((ms) => ms > 0, { error: () => "a time longer than 0" });
