import type { GapBody, ReadingBody } from "../../api/schemas.ts";

/** Columns for the chart: times in seconds since 1970, ascending, and a value or null (the line breaks) for each. */
export interface Series {
  readonly times: number[];
  readonly values: (number | null)[];
  /** The reading behind each point; null where the line breaks for a gap. */
  readonly readings: (ReadingBody | null)[];
}

/** Puts newly asked readings after those already here. They were asked from the last one's time on, so that comes twice. */
export function extend(readings: readonly ReadingBody[], fresh: readonly ReadingBody[]): ReadingBody[] {
  const first = fresh[0];
  if (!first) return [...readings];
  let end = readings.length;
  // Times all have one form, so they compare as texts.
  while (end > 0 && readings[end - 1]!.time >= first.time) end--;
  return [...readings.slice(0, end), ...fresh];
}

/** The readings as columns; the line breaks at readings without a number, and where a gap lies between two of them. */
export function seriesOf(readings: readonly ReadingBody[], gaps: readonly GapBody[]): Series {
  const breaks = new Breaks(gaps);
  const series: Series = { times: [], values: [], readings: [] };
  let before: number | undefined;
  for (const reading of readings) {
    const at = seconds(reading.time);
    if (before !== undefined && breaks.between(before, at)) push(series, (before + at) / 2, null);
    push(series, at, reading);
    before = at;
  }
  return series;
}

function push(series: Series, at: number, reading: ReadingBody | null): void {
  series.times.push(at);
  series.values.push(reading && numberOf(reading.value));
  series.readings.push(reading);
}

/** Tells for one pair of neighbouring readings after the other whether a gap lies between them. */
class Breaks {
  readonly #gaps: readonly (readonly [from: number, to: number])[];
  #first = 0;

  constructor(gaps: readonly GapBody[]) {
    this.#gaps = gaps
      .map(({ from, to }) => [seconds(from), to === null ? Number.POSITIVE_INFINITY : seconds(to)] as const)
      .sort(([a], [b]) => a - b);
  }

  /**
   * A gap counts when it holds the middle between the two, or lies between them altogether: its bounds come from
   * another clock than the readings, so that a reading may seem to lie just inside.
   */
  between(a: number, b: number): boolean {
    const middle = (a + b) / 2;
    while (this.#first < this.#gaps.length && this.#gaps[this.#first]![1] <= a) this.#first++;
    for (let i = this.#first; i < this.#gaps.length; i++) {
      const [from, to] = this.#gaps[i]!;
      if (from >= b) return false;
      if ((from <= middle && middle < to) || (a <= from && to <= b)) return true;
    }
    return false;
  }
}

function seconds(time: string): number {
  return Date.parse(time) / 1000;
}

function numberOf(value: ReadingBody["value"]): number | null {
  if (typeof value === "boolean") return value ? 1 : 0;
  return typeof value === "number" ? value : null;
}

/** The indices of points without a neighbour to draw a line to. */
export function lonePoints(values: ArrayLike<number | null | undefined>): number[] {
  const lone: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) lone.push(i);
  }
  return lone;
}

/** The readings whose value differs from the one before: the history of a text. */
export function changes(readings: readonly ReadingBody[]): ReadingBody[] {
  return readings.filter(({ value, quality }, i) => {
    const before = readings[i - 1];
    return before === undefined || before.value !== value || before.quality.code !== quality.code;
  });
}
