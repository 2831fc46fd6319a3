import type { TagConfig } from "../protocols/device.ts";
import type { Micros, Quality, Reading, Value } from "../protocols/reading.ts";

/** What was last reported of one tag. */
interface Reported {
  value: Value;
  quality: Quality;
  time: Micros;
}

/**
 * Report by exception for the tags of one device: passes a reading when it says something new. A tag without a deadband
 * passes every reading; one with a deadband passes a changed quality, a text or boolean that changed, a number that
 * moved by more than the deadband from the last *reported* one, and, when the heartbeat is due, an unchanged value.
 */
export class Reporter {
  readonly #rules: readonly (Pick<TagConfig, "deadband" | "heartbeat"> | undefined)[];
  readonly #last: (Reported | undefined)[] = [];

  constructor(tags: readonly TagConfig[]) {
    this.#rules = tags.map((tag) => (tag.deadband === undefined ? undefined : tag));
  }

  /** @param tag the tag's index within its device */
  passes(tag: number, reading: Reading): boolean {
    const rule = this.#rules[tag];
    if (rule === undefined) return true;
    const last = this.#last[tag];
    if (last === undefined) {
      this.#last[tag] = { value: reading.value, quality: reading.quality, time: reading.time };
      return true;
    }
    if (!isNews(rule.deadband!, rule.heartbeat, last, reading)) return false;
    last.value = reading.value;
    last.quality = reading.quality;
    last.time = reading.time;
    return true;
  }
}

function isNews(deadband: number, heartbeatMs: number | undefined, last: Reported, reading: Reading): boolean {
  if (reading.quality !== last.quality) return true;
  // Of either sign: a device's clock that was put back must not silence the heartbeat.
  if (heartbeatMs !== undefined && Math.abs(reading.time - last.time) >= heartbeatMs * 1000) return true;
  if (typeof reading.value === "number" && typeof last.value === "number") {
    return Math.abs(reading.value - last.value) > deadband;
  }
  return reading.value !== last.value;
}
