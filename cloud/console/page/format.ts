import type { TagBody } from "../../api/schemas.ts";

type Value = NonNullable<TagBody["latest"]>["value"];

/** How many decimals tell about 1/10000 of the instrument's range; undefined without a range. */
function decimalsOf(range: TagBody["range"]): number | undefined {
  if (!range) return undefined;
  const span = range[1]! - range[0]!;
  return span > 0 ? Math.min(8, Math.max(0, 4 - Math.floor(Math.log10(span)))) : undefined;
}

/** A value for people: numbers rounded to what the instrument can tell, so that the last digit does not dance. */
export function formatValue(value: Value, range: TagBody["range"] = null): string {
  if (value === null) return "—";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "string") return value === "" ? "(empty)" : value;
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? String(value) : value.toExponential(6);
  const size = Math.abs(value);
  if (size >= 1e9 || size < 1e-4) return value.toExponential(4);
  const decimals = decimalsOf(range);
  return decimals === undefined ? String(Number(value.toPrecision(5))) : value.toFixed(decimals);
}

/** An age in seconds, in at most two units: `0 s`, `3 min 20 s`, `2 d 4 h`; `4 s ahead` when the clock that stamped it is ahead. */
export function formatAge(seconds: number): string {
  // The service's clock is known to about a second.
  if (seconds < -2) return `${formatAge(-seconds)} ahead`;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return twoUnits(whole, 60, "min", "s");
  if (whole < 86_400) return twoUnits(Math.floor(whole / 60), 60, "h", "min");
  return twoUnits(Math.floor(whole / 3600), 24, "d", "h");
}

function twoUnits(small: number, ratio: number, bigUnit: string, smallUnit: string): string {
  const rest = small % ratio;
  const big = `${Math.floor(small / ratio)} ${bigUnit}`;
  return rest === 0 ? big : `${big} ${rest} ${smallUnit}`;
}

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** A moment in the viewer's time: the time of day, with the date when it is not today's. `ms` and `nowMs` since 1970. */
export function formatMoment(ms: number, nowMs: number): string {
  const [date, today] = [day.format(ms), day.format(nowMs)];
  return date === today ? clock.format(ms) : `${date}, ${clock.format(ms)}`;
}

const reasons: Record<string, string> = {
  device_down: "Device does not answer",
  tag_bad: "No usable value",
  agent_stopped: "Edge agent was not running",
  buffer_full: "Edge buffer was full",
  overflow: "Values were lost: a queue overflowed",
  frame_refused: "A damaged frame was set aside",
};

/** A gap's reason in plain words. */
export function formatReason(reason: string): string {
  return reasons[reason] ?? reason;
}
