import { DataError } from "../../protocols/errors.ts";
import { parseDuration } from "../../protocols/quantity.ts";
import type { Micros } from "../../protocols/reading.ts";

/** What a time parameter may be, for messages and documentation. */
export const timeForms =
  'a time such as 2026-03-01T08:00:00.123456Z or 2026-03-01T13:30:00+05:30 (RFC 3339, at most 6 decimals), "now", or a duration before now such as "-15 min"';

// A "+" that was not written as %2B arrives as a space, so a space before an offset can only be a plus.
const instant = /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:[Zz]|([-+ ])(\d\d):(\d\d))$/;

/**
 * Reads a time as it stands in a URL: RFC 3339 to the microsecond, `now`, or a duration before now (`-15 min`).
 *
 * @throws DataError when the text is no such time, names a day or hour that does not exist, or lies outside the years
 * 1685 to 2254, where microseconds since 1970 are exact integers
 */
export function parseTime(text: string, now: Micros): Micros {
  if (text === "now") return now;
  if (text.startsWith("-")) {
    const ms = parseDuration(text.slice(1));
    if (ms === undefined) throw new DataError(timeForms);
    return withinRange(now - ms * 1000);
  }
  const match = instant.exec(text);
  if (!match) throw new DataError(timeForms);
  const [, year, month, day, hour, minute, second, fraction = "", sign, offsetHour = "0", offsetMinute = "0"] = match;
  const fields = [year, month, day, hour, minute, second].map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  withinYears(fields[0]);
  const utcMs = Date.UTC(fields[0], fields[1] - 1, fields[2], fields[3], fields[4], fields[5]);
  // Date.UTC turns 30 February into 2 March; only a time that exists comes back as it went in.
  if (new Date(utcMs).toISOString().slice(0, 19) !== `${year}-${month}-${day}T${hour}:${minute}:${second}`) {
    throw new DataError("a day and a time of day that exist (a leap second is written as second 59)");
  }
  if (Number(offsetHour) > 23 || Number(offsetMinute) > 59) throw new DataError("an offset from -23:59 to +23:59");
  const offset = (Number(offsetHour) * 60 + Number(offsetMinute)) * 60_000_000;
  return withinRange(utcMs * 1000 + Number(fraction.padEnd(6, "0")) - (sign === "-" ? -offset : offset));
}

function withinYears(year: number): void {
  if (year < 1685 || year > 2254) throw new DataError("a time between the years 1685 and 2254");
}

function withinRange(time: Micros): Micros {
  const date = new Date(time / 1000);
  withinYears(Number.isNaN(date.getTime()) ? Number.NaN : date.getUTCFullYear());
  if (!Number.isSafeInteger(time)) throw new DataError("a time between the years 1685 and 2254");
  return time;
}

/** A time as RFC 3339 in UTC with all six decimals: `2026-03-01T08:00:00.123456Z`. */
export function formatTime(time: Micros): string {
  const ms = Math.floor(time / 1000);
  const micros = String(time - ms * 1000).padStart(3, "0");
  return `${new Date(ms).toISOString().slice(0, -1)}${micros}Z`;
}
