import { DataError } from "../../protocols/errors.ts";
import type { Micros } from "../../protocols/reading.ts";

/** A time as PostgreSQL reads it. @throws DataError when it is not a whole number of microseconds */
export function timestampText(time: Micros): string {
  if (!Number.isSafeInteger(time)) {
    throw new DataError(`${time} is no time: a whole number of microseconds since 1970, below 2^53, is needed`);
  }
  const seconds = Math.floor(time / 1e6);
  const micros = time - seconds * 1e6;
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(micros).padStart(6, "0")}Z`;
}

/** The time in PostgreSQL's ISO output with time zone UTC, such as `2026-05-01 12:00:00.000001+00`. */
export function parseTimestamp(text: string): Micros {
  const seconds = Date.parse(`${text.slice(0, 10)}T${text.slice(11, 19)}Z`) * 1000;
  const fraction = text[19] === "." ? text.slice(20, text.indexOf("+", 20)) : "";
  return seconds + Number(fraction.padEnd(6, "0"));
}
