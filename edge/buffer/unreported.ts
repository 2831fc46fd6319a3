import type { StatementSync } from "node:sqlite";
import type { Gap, GapReason, Micros } from "../../protocols/reading.ts";
import type { DeviceSpan } from "./buffer.ts";
import type { statements } from "./schema.ts";

/** Readings of one device that were lost with frames, counted exactly. */
interface Loss {
  readonly device: string;
  readonly reason: GapReason;
  readonly start: Micros;
  readonly stop: Micros;
  readonly readings: number;
  /** The first and the last frame that held them. */
  readonly first: number;
  readonly last: number;
}

/** What a frame says beside its readings. When the frame is lost, it has to be said again by another one. */
interface Reports {
  readonly gaps: readonly Gap[];
  readonly losses: readonly Loss[];
}

/** A frame as far as its account goes, in JSON as it stands in the file. */
export interface FrameAccount {
  readonly seq: number;
  readonly spans: string;
  readonly reports: string;
}

/** So many losses and gaps are handed to one frame; what is above follows in the next. */
const offeredAtOnce = 1000;
/** More lost reports of gaps than this are not kept one by one. */
const maxLostGaps = 10_000;

/**
 * The account of what frames took with them when they were dropped or set aside: their readings, which become gaps, and
 * the reports of gaps they carried. It is kept until another frame carries it, and taken up again when that frame is
 * lost in its turn. Every method is part of a transaction of the caller.
 */
export class UnreportedAccount {
  readonly #statements: Readonly<Record<keyof typeof statements, StatementSync>>;

  constructor(prepared: Readonly<Record<keyof typeof statements, StatementSync>>) {
    this.#statements = prepared;
  }

  /** A frame carries these gaps. @returns what is to be kept with the frame, in JSON */
  carried(gaps: readonly Gap[]): string {
    if (gaps.length === 0) return "";
    const reports = { gaps: [] as Gap[], losses: [] as Loss[] };
    for (const gap of gaps) {
      const { device, tag, reason, from, to } = gap;
      const loss = tag === null && to !== null && this.#statements.reportLoss.get(device, reason, from, to);
      if (loss) {
        reports.losses.push(loss as unknown as Loss);
      } else {
        this.#statements.reportGap.run(device, tag ?? "", reason, from, to);
        reports.gaps.push(gap);
      }
    }
    return JSON.stringify(reports satisfies Reports);
  }

  /**
   * A frame is lost.
   * @param again whether the gaps it reported can be reported again as they are: not when the cloud refused the frame,
   *   for they may be the cause, and would take other readings with them for ever
   */
  lost({ seq, spans, reports }: FrameAccount, reason: GapReason, again: boolean): void {
    const place = { first: seq, last: seq };
    for (const { device, from, to, readings } of parsed<readonly DeviceSpan[]>(spans, [])) {
      this.#lose({ device, reason, start: from, stop: to, readings, ...place });
    }
    const { gaps, losses } = parsed<Reports>(reports, { gaps: [], losses: [] });
    for (const loss of losses) this.#lose(loss);
    for (const { device, tag, reason: why, from, to, detail } of gaps) {
      if (again) this.#statements.loseGap.run(device, tag ?? "", why, from, to, detail);
      else if (to !== null) this.#lose({ device, reason, start: from, stop: to, readings: 0, ...place });
    }
    if (gaps.length > 0) this.#bound(place);
  }

  #lose({ device, reason, start, stop, readings, first, last }: Loss): void {
    const row = { device, reason, start, stop, readings, first, last };
    if (this.#statements.growLoss.run(row).changes === 0) this.#statements.beginLoss.run(row);
  }

  /** Above the bound, the oldest gaps that have ended become part of their device's loss, which then covers them. */
  #bound(place: Pick<Loss, "first" | "last">): void {
    const { gaps } = this.#statements.countLostGaps.get() as { gaps: number };
    if (gaps <= maxLostGaps) return;
    for (const { device, tag, reason, from, to } of this.#lostGaps(gaps - maxLostGaps)) {
      this.#statements.reportGap.run(device, tag ?? "", reason, from, to);
      if (to !== null) {
        this.#lose({ device, reason: "buffer_full", start: from, stop: to, readings: 0, ...place });
      }
    }
  }

  /** What no frame has reported: to be among the gaps of the next one. */
  offer(): Gap[] {
    const losses = this.#statements.losses.all(offeredAtOnce) as unknown as Loss[];
    if (losses.length > 0) this.#statements.offerLosses.run(offeredAtOnce);
    return [...losses.map(gapOf), ...this.#lostGaps(offeredAtOnce)];
  }

  #lostGaps(limit: number): Gap[] {
    const rows = this.#statements.lostGaps.all(limit) as unknown as (Gap & { readonly tag: string })[];
    return rows.map((row) => ({ ...row, tag: row.tag || null }));
  }
}

/** Text of the file; SQLite does not notice a byte that the disk has changed. The hole in the sequence stays visible. */
function parsed<T>(json: string, otherwise: T): T {
  if (json === "") return otherwise;
  try {
    return JSON.parse(json);
  } catch {
    return otherwise;
  }
}

function gapOf({ device, reason, start, stop, readings, first, last }: Loss): Gap {
  const what =
    reason === "buffer_full" ? "dropped to keep the buffer within its bound" : "in frames that were set aside";
  const detail = `${readings} readings ${what} (frames ${first} to ${last})`;
  return { device, tag: null, reason, from: start, to: stop, detail };
}
