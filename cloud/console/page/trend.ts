import type { GapBody, ReadingBody, TagBody } from "../../api/schemas.ts";
import { element, setText } from "./dom.ts";
import { formatMoment, formatReason, formatValue } from "./format.ts";
import { changes, extend, lonePoints, type Series, seriesOf } from "./series.ts";
import { NoAnswer, type Service } from "./service.ts";
import uPlot from "./uplot.js";

/** The spans of time that can be shown, in milliseconds. */
export const spans: Readonly<Record<string, number>> = { "15 min": 900_000, "1 h": 3_600_000, "8 h": 28_800_000 };

/** More readings than this are not drawn; the earlier part of the span is left out, and that is said. */
const mostReadings = 60_000;
const slices = 8;
/** Late readings (a backlog after an outage) lie before the newest one: from time to time everything is asked anew. */
const reloadAfterMs = 60_000;
const height = 340;

interface Shown {
  readonly tag: TagBody;
  readonly spanMs: number;
  /** A question is under way. */
  asking: boolean;
  readings: ReadingBody[];
  gaps: GapBody[];
  /** From here on the readings are all there; later than asked for when there were too many. */
  fromMs: number;
  /** When everything was last asked, and how long that took. */
  loadedAt: number;
  loadMs: number;
}

/** The trend of one tag: numbers and booleans as a line that breaks where there is no data, texts as their history. */
export class Trend {
  readonly #root: HTMLElement;
  readonly #service: Service;
  #shown: Shown | null = null;
  #plot: uPlot | null = null;
  #series: Series = { times: [], values: [], readings: [] };
  readonly #title = element("p", "trend-title");
  readonly #readout = element("p", "readout muted");
  readonly #picture = element("div", "picture");
  readonly #notes = element("ul", "notes");

  constructor(root: HTMLElement, service: Service) {
    this.#root = root;
    this.#service = service;
    new ResizeObserver(() => this.#plot?.setSize({ width: this.#width(), height })).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  /** Shows another tag or span. The readings come with the next `update`. */
  choose(tag: TagBody, spanMs: number): void {
    this.#shown = {
      tag,
      spanMs,
      asking: false,
      readings: [],
      gaps: [],
      fromMs: 0,
      loadedAt: 0,
      loadMs: 0,
    };
    this.#plot?.destroy();
    this.#plot = null;
    const about = [tag.description, tag.equipment].filter(Boolean).join(" · ");
    this.#title.replaceChildren(element("strong", "", tag.tag), element("span", "muted", about));
    this.#picture.replaceChildren(element("p", "empty", "Loading …"));
    this.#notes.replaceChildren();
    setText(this.#readout, "");
    this.#root.replaceChildren(this.#title, this.#picture, this.#readout, this.#notes);
  }

  /** Asks for what is new and draws it; where that fails it says so, and the next call tries again. */
  async update(): Promise<void> {
    const shown = this.#shown;
    if (!shown || shown.asking) return;
    shown.asking = true;
    try {
      const due = performance.now() - shown.loadedAt > Math.max(reloadAfterMs, 50 * shown.loadMs);
      if (shown.loadedAt === 0 || due) await this.#load(shown);
      else await this.#continue(shown);
      if (shown === this.#shown) this.#draw(shown);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      if (shown === this.#shown)
        this.#notes.replaceChildren(element("li", "alarm", `The trend is not up to date: ${error.message}`));
    } finally {
      shown.asking = false;
    }
  }

  /** Asks slice after slice, the newest first, so that too many readings cost the oldest and not the newest. */
  async #load(shown: Shown): Promise<void> {
    const started = performance.now();
    const toMs = this.#service.nowMs() + 1000;
    const startMs = toMs - shown.spanMs;
    const parts: ReadingBody[][] = [];
    let count = 0;
    let fromMs = toMs;
    while (fromMs > startMs && count < mostReadings) {
      const endMs = fromMs;
      fromMs = Math.max(startMs, endMs - shown.spanMs / slices);
      const part = await this.#ask(shown.tag, iso(fromMs), iso(endMs));
      if (shown !== this.#shown) return;
      parts.unshift(part);
      count += part.length;
    }
    shown.gaps = await this.#service.askAll<GapBody>(
      `/api/v1/gaps?edge=${shown.tag.edge}&device=${shown.tag.device}&tag=${shown.tag.name}&from=${iso(fromMs)}`,
    );
    shown.readings = parts.flat();
    shown.fromMs = fromMs;
    shown.loadedAt = performance.now();
    shown.loadMs = shown.loadedAt - started;
  }

  async #continue(shown: Shown): Promise<void> {
    const last = shown.readings.at(-1)?.time ?? iso(shown.fromMs);
    const fresh = await this.#ask(shown.tag, last, iso(this.#service.nowMs() + 1000));
    const start = iso(this.#service.nowMs() - shown.spanMs);
    shown.readings = extend(shown.readings, fresh).filter(({ time }) => time >= start);
  }

  #ask(tag: TagBody, from: string, to: string): Promise<ReadingBody[]> {
    return this.#service.askAll(`/api/v1/tags/${tag.tag}/readings?limit=10000&from=${from}&to=${to}`, mostReadings);
  }

  /** Takes over the gaps that are open now, so that a new one is drawn at once. */
  noteOpenGaps(open: readonly GapBody[]): void {
    const shown = this.#shown;
    if (!shown) return;
    const { edge, device, name } = shown.tag;
    const ours = open.filter((gap) => gap.edge === edge && gap.device === device && (gap.tag ?? name) === name);
    const ended = shown.gaps.some((gap) => gap.to === null && !ours.some((one) => same(one, gap)));
    if (ended) shown.loadedAt = 0;
    else shown.gaps.push(...ours.filter((gap) => !shown.gaps.some((one) => same(one, gap))));
  }

  #draw(shown: Shown): void {
    const isText = shown.readings.some(({ value }) => typeof value === "string");
    if (isText) this.#drawHistory(shown);
    else if (shown.readings.length === 0) {
      this.#plot?.destroy();
      this.#plot = null;
      this.#picture.replaceChildren(element("p", "empty", "No reading in this time."));
    } else this.#drawLine(shown);
    this.#note(shown);
  }

  #drawHistory({ readings, tag }: Shown): void {
    const now = this.#service.nowMs();
    const rows = changes(readings)
      .slice(-100)
      .reverse()
      .map(({ time, value, quality }) => {
        const text = quality.severity === "bad" ? `— ${quality.name}` : formatValue(value, tag.range);
        return element(
          "li",
          "",
          element("time", "muted", formatMoment(Date.parse(time), now)),
          element("span", "", text),
        );
      });
    this.#picture.replaceChildren(element("ol", "history", ...rows));
  }

  #drawLine(shown: Shown): void {
    this.#series = seriesOf(shown.readings, shown.gaps);
    const data: uPlot.AlignedData = [this.#series.times, this.#series.values];
    if (this.#plot) this.#plot.setData(data);
    else {
      this.#picture.replaceChildren();
      this.#plot = new uPlot(this.#options(shown), data, this.#picture);
    }
    if (this.#plot.cursor.idx == null) this.#say(this.#series.times.length - 1);
  }

  #redraw(): void {
    this.#plot?.destroy();
    this.#plot = null;
    if (this.#shown?.loadedAt) this.#draw(this.#shown);
  }

  #options(shown: Shown): uPlot.Options {
    const colour = (name: string) => colourOf(this.#picture, name);
    const style = { font: '12px system-ui, "Segoe UI", sans-serif', stroke: colour("--muted"), ticks: { show: false } };
    const grid = { stroke: colour("--line"), width: 1 };
    const stepped = shown.readings.some(({ value }) => typeof value === "boolean");
    const end = () => this.#service.nowMs() / 1000;
    return {
      width: this.#width(),
      height,
      padding: [12, 12, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, points: { size: 8 } },
      scales: { x: { range: () => [end() - shown.spanMs / 1000, end()] }, y: stepped ? { range: [-0.1, 1.1] } : {} },
      series: [
        {},
        {
          stroke: colour("--line-colour"),
          width: 1.75,
          ...(stepped && uPlot.paths.stepped && { paths: uPlot.paths.stepped({ align: 1 }) }),
          points: {
            size: 5,
            fill: colour("--line-colour"),
            // A reading between two gaps has no line to either side: it is drawn as a point.
            filter: (plot, _series, show) => (show ? null : lonePoints(plot.data[1]!)),
          },
        },
      ],
      axes: [
        { ...style, grid, size: 32, values: (_plot, splits) => splits.map((at) => clockText(at, shown.spanMs)) },
        {
          ...style,
          grid,
          size: 64,
          label: stepped ? "" : (shown.tag.unit ?? ""),
          labelFont: style.font,
          labelSize: 18,
          ...(stepped && { splits: () => [0, 1], values: () => ["off", "on"] }),
        },
      ],
      hooks: {
        drawClear: [(plot) => this.#shadeGaps(plot, colour("--gap"))],
        setCursor: [(plot) => this.#say(plot.cursor.idx ?? this.#series.times.length - 1)],
      },
    };
  }

  #shadeGaps(plot: uPlot, colour: string): void {
    const { left, top, width, height: tall } = plot.bbox;
    plot.ctx.save();
    plot.ctx.fillStyle = colour;
    for (const { from, to } of this.#shown?.gaps ?? []) {
      const at = (ms: number) => Math.min(left + width, Math.max(left, plot.valToPos(ms / 1000, "x", true)));
      const [start, end] = [at(Date.parse(from)), at(to === null ? this.#service.nowMs() : Date.parse(to))];
      plot.ctx.fillRect(start, top, Math.max(end - start, 2), tall);
    }
    plot.ctx.restore();
  }

  /** Says the value under the cursor, or the latest. */
  #say(index: number): void {
    const at = this.#series.times[index];
    if (at === undefined || !this.#shown) return;
    const { tag } = this.#shown;
    const reading = this.#series.readings[index];
    const known = reading && reading.value !== null;
    const said = known ? `${formatValue(reading.value, tag.range)} ${tag.unit ?? ""}`.trim() : "no value";
    const parts = [formatMoment(at * 1000, this.#service.nowMs()), said, reading?.quality.name ?? "gap"];
    setText(this.#readout, parts.join("  ·  "));
  }

  /** Below the picture: what was left out, and the gaps in view. */
  #note(shown: Shown): void {
    const now = this.#service.nowMs();
    const startMs = now - shown.spanMs;
    const notes = shown.gaps
      .filter(({ to }) => to === null || Date.parse(to) > startMs)
      .slice(0, 5)
      .map(({ from, to, reason }) => {
        const until = to === null ? "still open" : `to ${formatMoment(Date.parse(to), now)}`;
        return `Gap from ${formatMoment(Date.parse(from), now)}, ${until}: ${formatReason(reason).toLowerCase()}`;
      });
    if (shown.fromMs > startMs + 5000 + (performance.now() - shown.loadedAt)) {
      notes.unshift(`Too many readings to draw them all: shown from ${formatMoment(shown.fromMs, now)} on.`);
    }
    this.#notes.replaceChildren(...notes.map((text) => element("li", "", text)));
  }

  #width(): number {
    return Math.max(240, this.#picture.clientWidth);
  }
}

function same(a: GapBody, b: GapBody): boolean {
  return a.edge === b.edge && a.device === b.device && a.tag === b.tag && a.reason === b.reason && a.from === b.from;
}

/** A colour of the style sheet as the canvas understands it, for the scheme (light or dark) that holds now. */
function colourOf(place: HTMLElement, name: string): string {
  const probe = element("span");
  probe.style.color = `var(${name})`;
  place.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

const withSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const toMinutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

function clockText(at: number, spanMs: number): string {
  return (spanMs < 300_000 ? withSeconds : toMinutes).format(at * 1000);
}
