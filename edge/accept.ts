import { isBad, isGood, type Micros, Quality, type Reading, type Value } from "../protocols/reading.ts";
import { timeRange } from "../protocols/uplink/columns.ts";

/** A longer text, in UTF-16 units, is no value of an instrument: frames have to stay small enough for any broker. */
export const maxTextLength = 256 * 1024;

/**
 * A driver's reading as the rest of the program may rely on it:
 * - the time is a whole number of microseconds that a frame can carry. For a clock that was never set the time of
 *   arrival stands in, and a good reading becomes uncertain. The edge's own clock may not be set either: then it is the
 *   earliest time that a frame can carry;
 * - a number is finite, a text is Unicode and of bounded length; any other value is null with BadDecodingError;
 * - a bad reading carries null.
 */
export function accept(reading: Reading, arrival: Micros): Reading {
  const possible = typeof reading.time === "number" && reading.time >= timeRange.from && reading.time < timeRange.to;
  const time = possible ? Math.floor(reading.time) : Math.max(arrival, timeRange.from);
  let quality = typeof reading.quality === "number" ? reading.quality >>> 0 : Quality.Bad;
  if (!possible && isGood(quality)) quality = Quality.Uncertain;
  let value = storable(reading.value);
  if (value === undefined && !isBad(quality)) quality = Quality.BadDecodingError;
  if (value === undefined || isBad(quality)) value = null;
  if (time === reading.time && quality === reading.quality && Object.is(value, reading.value)) return reading;
  return { tag: reading.tag, time, value, quality };
}

/** undefined when the value is none. */
function storable(value: Value): Value | undefined {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) ? value : undefined;
    case "boolean":
      return value;
    case "string":
      return value.length > maxTextLength ? undefined : value.toWellFormed();
    default:
      return value === null ? null : undefined;
  }
}
