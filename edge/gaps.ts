import type { Gap, GapReason, Micros, Reading } from "../protocols/reading.ts";
import { isBad, Quality } from "../protocols/reading.ts";

/** Overflows of one tag that follow each other within this time are one gap. */
const overflowWindow: Micros = 10_000_000;
/** An error's message may be long; a gap travels and is stored. */
const maxDetailLength = 500;

/** Bad qualities that say the way to the value is broken, rather than the value itself. */
const linkQualities: ReadonlySet<number> = new Set([
  Quality.BadNoCommunication,
  Quality.BadNotConnected,
  Quality.BadTimeout,
]);

/**
 * Keeps the account of one device: until when its data is whole, and which gaps are open. Each gap is reported when it
 * opens and again when it ends. Times are the edge's own clock; they err on the early side for a gap's beginning and the
 * late side for its end. No two gaps of a tag and reason begin at the same time, for that is what tells them apart.
 */
export class GapLedger {
  readonly #device: string;
  readonly #tags: readonly string[];
  readonly #report: (gap: Gap) => void;
  /** Until when each tag is known to have been whole: its last reading that was not bad, or its last gap's end. */
  readonly #wholeTags: Float64Array;
  readonly #tagGaps = new Map<number, Gap>();
  /** Open overflows, and when each was last heard of. */
  readonly #overflows = new Map<string | null, { readonly gap: Gap; last: Micros }>();
  #deviceGap: Gap | undefined;
  /** When the device's last gap ended. */
  #lastGapEnd: Micros = 0;
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
   * @param time now: a watermark after it was written under a clock that was wrong
   */
  resume(watermark: Micros | undefined, openGaps: readonly Gap[], time: Micros): void {
    this.#watermark = watermark === undefined ? undefined : Math.min(watermark, time);
    for (const gap of openGaps) this.#resumeGap(gap);
    if (this.#deviceGap === undefined && this.#watermark !== undefined) {
      this.#openDeviceGap("agent_stopped", this.#watermark, "the agent was not running");
    }
  }

  #resumeGap(gap: Gap): void {
    const tag = gap.tag === null ? -1 : this.#tags.indexOf(gap.tag);
    if (gap.reason === "overflow") this.#close(gap, this.#watermark ?? gap.from);
    else if (gap.tag === null) this.#deviceGap = gap;
    else if (tag >= 0) this.#tagGaps.set(tag, gap);
    else this.#close({ ...gap, detail: "the tag was removed from the device map" }, this.#watermark ?? gap.from);
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
      this.#lastGapEnd = this.#close(this.#deviceGap, arrival);
      this.#deviceGap = undefined;
    }
    if (this.#overflows.size > 0) this.#closeOverflows(arrival - overflowWindow);
    const whole = Math.max(arrival - Math.ceil(quiet), Math.min(latest ?? 0, arrival));
    // Never ahead of the clock, which may have been put back.
    this.#watermark = Math.min(Math.max(this.#watermark ?? 0, whole), arrival);
  }

  /** The device as a whole is lost. */
  lost(time: Micros, detail: string): void {
    if (this.#deviceGap?.reason === "device_down") return;
    this.#closeOverflows(time);
    let from = Math.min(Math.max(this.#watermark ?? time, this.#lastGapEnd), time);
    if (this.#deviceGap !== undefined) from = this.#close(this.#deviceGap, time);
    this.#openDeviceGap("device_down", from, detail);
  }

  /**
   * A tag's reading arrived.
   * @param tag the tag's index within the device
   */
  reading(tag: number, { time, quality }: Reading, arrival: Micros): void {
    const whole = this.#wholeTags[tag]!;
    const gap = this.#tagGaps.get(tag);
    if (!isBad(quality)) {
      if (gap === undefined) {
        this.#wholeTags[tag] = Math.max(whole, Math.min(time, arrival));
      } else {
        this.#tagGaps.delete(tag);
        this.#wholeTags[tag] = this.#close(gap, arrival);
      }
    } else if (gap === undefined) {
      const reason = linkQualities.has(quality) ? "device_down" : "tag_bad";
      // A device that reports changes alone says nothing of a tag that stays as it is: the watermark covers it.
      const from = Math.max(whole, this.#watermark ?? 0) || arrival;
      const opened = this.#gap(this.#tags[tag]!, reason, Math.min(from, arrival), `quality 0x${hex(quality)}`);
      this.#tagGaps.set(tag, opened);
      this.#report(opened);
    }
  }

  /** Values of a tag, or of unknown tags, were lost on their way from the device. */
  overflowed(tag: string | null, time: Micros, detail: string): void {
    const open = this.#overflows.get(tag);
    if (open !== undefined) {
      open.last = time;
      return;
    }
    const index = tag === null ? -1 : this.#tags.indexOf(tag);
    const whole = Math.max(this.#watermark ?? 0, index >= 0 ? this.#wholeTags[index]! : 0) || time;
    const gap = this.#gap(tag, "overflow", Math.min(whole, time), detail);
    this.#overflows.set(tag, { gap, last: time });
    this.#report(gap);
  }

  /** Ends the overflows that were last heard of at or before `until`. */
  #closeOverflows(until: Micros): void {
    for (const [tag, { gap, last }] of this.#overflows) {
      if (last > until) continue;
      this.#overflows.delete(tag);
      this.#close(gap, last);
    }
  }

  /** The buffer took nothing from then to now. */
  blocked(from: Micros, to: Micros): void {
    this.#close(this.#gap(null, "buffer_full", from, "the buffer was full: nothing was collected"), to);
  }

  /** The agent itself did nothing from then to now: its process was stopped, or starved. */
  stoodStill(from: Micros, to: Micros): void {
    if (this.#deviceGap !== undefined) return; // that gap goes on
    this.#close(this.#gap(null, "agent_stopped", from, "the agent stood still"), to);
  }

  #openDeviceGap(reason: GapReason, from: Micros, detail: string): void {
    this.#deviceGap = this.#gap(null, reason, from, detail);
    this.#report(this.#deviceGap);
  }

  /** @returns the gap's end, which is never before its beginning */
  #close(gap: Gap, time: Micros): Micros {
    const to = Math.max(time, gap.from);
    this.#report({ ...gap, to });
    return to;
  }

  #gap(tag: string | null, reason: GapReason, from: Micros, detail: string): Gap {
    return { device: this.#device, tag, reason, from, to: null, detail: detail.slice(0, maxDetailLength) };
  }
}

function hex(quality: number): string {
  return quality.toString(16).toUpperCase().padStart(8, "0");
}
