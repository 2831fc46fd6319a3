import type { Gap, GapReason, Micros, Reading } from "../protocols/reading.ts";
import { isBad, Quality } from "../protocols/reading.ts";

/** Overflows of one tag that follow each other within this time are one gap. */
const overflowWindow: Micros = 10_000_000;

/** Bad qualities that say the way to the value is broken, rather than the value itself. */
const linkQualities: ReadonlySet<number> = new Set([
  Quality.BadNoCommunication,
  Quality.BadNotConnected,
  Quality.BadTimeout,
]);

/**
 * Keeps the account of one device: until when its data is whole, and which gaps are open. Each gap is reported when it
 * opens and again when it ends. Times are the edge's own clock but for the readings' own, and err on the early side for
 * a gap's beginning and the late side for its end.
 */
export class GapLedger {
  readonly #device: string;
  readonly #tags: readonly string[];
  readonly #report: (gap: Gap) => void;
  /** Time of each tag's last reading that was not bad; 0 before the first. */
  readonly #wholeTags: Float64Array;
  readonly #tagGaps = new Map<number, Gap>();
  readonly #overflows = new Map<string | null, Gap>();
  #deviceGap: Gap | undefined;
  #watermark: Micros | undefined;

  constructor(device: string, tags: readonly string[], report: (gap: Gap) => void) {
    this.#device = device;
    this.#tags = tags;
    this.#report = report;
    this.#wholeTags = new Float64Array(tags.length);
  }

  /**
   * Takes up what the last run left: its open gaps stay open under their names, and if the device was well, the time
   * since is a gap because the agent was stopped. A device that was never read has no gap.
   */
  resume(watermark: Micros | undefined, openGaps: readonly Gap[]): void {
    this.#watermark = watermark;
    for (const gap of openGaps) {
      const tag = gap.tag === null ? -1 : this.#tags.indexOf(gap.tag);
      if (gap.tag === null) this.#deviceGap = gap;
      else if (tag >= 0) this.#tagGaps.set(tag, gap);
      else
        this.#report({
          ...gap,
          to: Math.max(gap.from, watermark ?? 0),
          detail: "the tag was removed from the device map",
        });
    }
    if (this.#deviceGap === undefined && watermark !== undefined) {
      this.#openDeviceGap("agent_stopped", watermark, "the agent was not running");
    }
  }

  /** True while no data comes from the device as a whole. */
  get down(): boolean {
    return this.#deviceGap !== undefined;
  }

  /** Until when the device's data is whole; undefined before the first. */
  get watermark(): Micros | undefined {
    return this.#watermark;
  }

  /**
   * The device answered.
   * @param arrival when its batch arrived
   * @param latest the latest time of the batch's readings, if it held any
   * @param quiet how long a healthy device may be silent: what happened since may still be on its way
   */
  answered(arrival: Micros, latest: Micros | undefined, quiet: Micros): void {
    if (this.#deviceGap !== undefined) {
      this.#report({ ...this.#deviceGap, to: Math.max(arrival, this.#deviceGap.from) });
      this.#deviceGap = undefined;
      this.#watermark = Math.max(this.#watermark ?? 0, arrival - quiet);
    }
    const whole = Math.max(arrival - quiet, Math.min(latest ?? 0, arrival));
    this.#watermark = Math.max(this.#watermark ?? 0, whole);
  }

  /** The device as a whole is lost. */
  lost(time: Micros, detail: string): void {
    if (this.#deviceGap?.reason === "device_down") return;
    let from = this.#watermark ?? time;
    if (this.#deviceGap !== undefined) {
      this.#report({ ...this.#deviceGap, to: Math.max(time, this.#deviceGap.from) });
      from = time;
    }
    this.#openDeviceGap("device_down", from, detail);
  }

  /** @param tag the tag's index within the device */
  reading(tag: number, { time, quality }: Reading): void {
    if (!isBad(quality)) {
      this.#wholeTags[tag] = time;
      if (this.#tagGaps.size > 0) this.#closeTagGap(tag, time);
      return;
    }
    if (this.#tagGaps.has(tag)) return;
    const reason = linkQualities.has(quality) ? "device_down" : "tag_bad";
    const gap = this.#gap(this.#tags[tag]!, reason, this.#wholeTags[tag] || time, `quality 0x${hex(quality)}`);
    this.#tagGaps.set(tag, gap);
    this.#report(gap);
  }

  #closeTagGap(tag: number, time: Micros): void {
    const gap = this.#tagGaps.get(tag);
    if (gap === undefined) return;
    this.#tagGaps.delete(tag);
    this.#report({ ...gap, to: Math.max(time, gap.from) });
  }

  /** Values of a tag, or of unknown tags, were lost on their way from the device. */
  overflowed(tag: string | null, time: Micros, detail: string): void {
    const last = this.#overflows.get(tag);
    const continued = last !== undefined && time - last.to! < overflowWindow;
    const index = tag === null ? -1 : this.#tags.indexOf(tag);
    const whole = index >= 0 ? this.#wholeTags[index] || time : (this.#watermark ?? time);
    const gap = { ...this.#gap(tag, "overflow", continued ? last.from : whole, detail), to: time };
    if (gap.from > time) gap.from = time;
    this.#overflows.set(tag, gap);
    this.#report(gap);
  }

  /** The buffer took nothing from then to now. */
  blocked(from: Micros, to: Micros): void {
    this.#report({ ...this.#gap(null, "buffer_full", from, "the buffer was full: nothing was collected"), to });
  }

  #openDeviceGap(reason: GapReason, from: Micros, detail: string): void {
    this.#deviceGap = this.#gap(null, reason, from, detail);
    this.#report(this.#deviceGap);
  }

  #gap(tag: string | null, reason: GapReason, from: Micros, detail: string) {
    return { device: this.#device, tag, reason, from, to: null as Micros | null, detail };
  }
}

function hex(quality: number): string {
  return quality.toString(16).toUpperCase().padStart(8, "0");
}
