import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { messageOf } from "../protocols/errors.ts";
import type { Gap, Micros, Reading } from "../protocols/reading.ts";
import { timeRange } from "../protocols/uplink/columns.ts";
import { packContent } from "../protocols/uplink/envelope.ts";
import { type ReadingColumns, RowKind } from "../protocols/uplink/frame.ts";
import type { DeviceSpan, FrameBuffer, FrameRecord } from "./buffer/buffer.ts";

export interface FrameLimits {
  /** A frame is closed when it holds this many readings … */
  readonly maxReadings: number;
  /** … or when its first reading is this old, in milliseconds. */
  readonly lingerMs: number;
}

/** A frame is closed when its texts together are this long, in UTF-16 units, or when it holds this many gaps. */
const maxTextsLength = 512 * 1024;
const maxGaps = 4096;
/** How long to wait before a disk that refused is asked again. */
const retryMs = 1000;
/** How many closed frames may wait for the disk before the devices have to wait. */
const maxWaitingFrames = 4;
/** How often watermarks are saved while there is nothing to append. */
const markMs = 10_000;

/**
 * Gathers readings and gaps into frames and appends them to the buffer, in order. What `add` has taken is lost only
 * when the process dies before the frame is on disk; the watermarks in the buffer tell from when.
 */
export class FrameWriter {
  readonly #buffer: FrameBuffer;
  readonly #limits: FrameLimits;
  readonly #mapHash: string;
  /** Device name of each tag of the device map. */
  readonly #deviceOf: readonly string[];
  readonly #log: Logger;
  readonly #appended: () => void;

  #rows: OpenRows;
  #gaps: Gap[] = [];
  #losses: readonly Gap[];
  /** Losses that frames on their way to the disk report; the buffer goes on telling of them until then. */
  readonly #reporting = new Set<string>();
  #watermarks = new Map<string, Micros>();
  #linger: NodeJS.Timeout | undefined;
  #marker: NodeJS.Timeout | undefined;
  #waiting = 0;
  #tail: Promise<void> = Promise.resolve();
  /** Resolves when a frame was appended. */
  #progress = Promise.withResolvers<void>();
  #closed = false;
  /** Aborted at the end: no waiting before the last attempt. */
  readonly #retry = new AbortController();
  /** A frame was given up at the end: none after it may reach the disk, for its watermark would cover the loss. */
  #gaveUp = false;
  /** The linger ended while the disk took nothing. */
  #overdue = false;
  #trouble: string | undefined;

  constructor(options: {
    buffer: FrameBuffer;
    limits: FrameLimits;
    mapHash: string;
    deviceOf: readonly string[];
    /** What the last run lost and no frame has reported yet. */
    losses: readonly Gap[];
    log: Logger;
    /** Called whenever frames were appended. */
    appended: () => void;
  }) {
    this.#buffer = options.buffer;
    this.#limits = options.limits;
    this.#mapHash = options.mapHash;
    this.#deviceOf = options.deviceOf;
    this.#losses = options.losses;
    this.#log = options.log;
    this.#appended = options.appended;
    this.#rows = new OpenRows(options.limits.maxReadings);
  }

  start(): void {
    if (this.#losses.length > 0) this.#startLinger();
    this.#marker = setInterval(() => this.#mark(), markMs);
  }

  /** True while the disk takes no more: the caller then has to wait for `ready`. */
  get blocked(): boolean {
    return this.#waiting >= maxWaitingFrames;
  }

  /** What keeps frames from the disk now, for a person; undefined while all is well. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Resolves when frames can be taken again, or when `signal` is aborted. */
  async ready(signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<void>();
    const abort = () => aborted.resolve();
    signal.addEventListener("abort", abort, { once: true });
    while (this.blocked && !signal.aborted) await Promise.race([this.#progress.promise, aborted.promise]);
    signal.removeEventListener("abort", abort);
  }

  /**
   * @param tag the tag's index in the device map
   * @param reading as `accept` gives it
   */
  add(tag: number, reading: Reading): void {
    if (this.#rows.count === 0) this.#startLinger();
    this.#rows.push(tag, reading);
    if (this.#rows.count >= this.#limits.maxReadings || this.#rows.textsLength >= maxTextsLength) this.#closeFrame();
  }

  addGap(gap: Gap): void {
    this.#gaps.push(gap);
    if (this.#gaps.length >= maxGaps) this.#closeFrame();
    else this.#startLinger();
  }

  /** Says that the device's data is whole until `time`: saved with the frame that holds its readings. */
  whole(device: string, time: Micros): void {
    this.#watermarks.set(device, time);
  }

  /** Puts everything on disk. Resolves when it is there, or when the disk has refused it once more. */
  async close(): Promise<void> {
    clearInterval(this.#marker);
    this.#closed = true;
    this.#retry.abort();
    this.#closeFrame();
    await this.#tail;
    if (this.#waiting === 0) await this.#mark();
    else this.#log.error({ frames: this.#waiting }, "what was collected last could not be put on disk");
  }

  #startLinger(): void {
    if (!this.#closed) this.#linger ??= setTimeout(() => this.#lingered(), this.#limits.lingerMs);
  }

  /** While the disk takes nothing the frame is left open, so that what waits stays bounded. */
  #lingered(): void {
    this.#linger = undefined;
    if (this.blocked) this.#overdue = true;
    else this.#closeFrame();
  }

  #closeFrame(): void {
    clearTimeout(this.#linger);
    this.#linger = undefined;
    this.#overdue = false;
    if (this.#rows.count === 0 && this.#gaps.length === 0 && this.#losses.length === 0) return;
    const rows = this.#rows.grouped();
    const record: FrameRecord = {
      content: packContent(this.#mapHash, rows, [...this.#losses, ...this.#gaps]),
      spans: spansOf(rows, this.#deviceOf),
      gaps: this.#gaps,
      losses: this.#losses,
      watermarks: this.#watermarks,
    };
    for (const loss of this.#losses) this.#reporting.add(keyOf(loss));
    this.#rows.clear();
    this.#gaps = [];
    this.#losses = [];
    this.#watermarks = new Map();
    this.#waiting++;
    this.#tail = this.#tail.then(() => this.#append(record));
  }

  /** Tries until the frame is on disk: a full disk or buffer delays a frame and loses none. */
  async #append(record: FrameRecord): Promise<void> {
    while (!this.#gaveUp) {
      try {
        const { seq, losses } = await this.#buffer.append(record);
        if (seq > 0) {
          for (const loss of record.losses) this.#reporting.delete(keyOf(loss));
          this.#appendedOne(losses.filter((loss) => !this.#reporting.has(keyOf(loss))));
          return;
        }
        this.#tell(
          "the buffer is full and its policy is stop_collecting: nothing is collected until frames are acknowledged",
        );
      } catch (error) {
        this.#tell(`a frame cannot be put on disk; collecting waits: ${messageOf(error)}`);
      }
      if (this.#closed) this.#gaveUp = true;
      else await delay(retryMs, undefined, { signal: this.#retry.signal }).catch(() => undefined);
    }
  }

  #appendedOne(losses: readonly Gap[]): void {
    this.#waiting--;
    this.#progress.resolve();
    this.#progress = Promise.withResolvers();
    this.#well();
    if (losses.length > 0) {
      this.#losses = losses;
      this.#startLinger();
    }
    if (this.#overdue) this.#closeFrame();
    this.#appended();
  }

  /** Says it once, and again when the cause changes. */
  #tell(trouble: string): void {
    if (trouble !== this.#trouble) this.#log.error(trouble);
    this.#trouble = trouble;
  }

  #well(): void {
    if (this.#trouble !== undefined) this.#log.info("frames are put on disk again");
    this.#trouble = undefined;
  }

  async #mark(): Promise<void> {
    if (this.#watermarks.size === 0 || this.#rows.count + this.#gaps.length + this.#waiting > 0) return;
    const watermarks = this.#watermarks;
    this.#watermarks = new Map();
    try {
      await this.#buffer.mark(watermarks);
      this.#well();
    } catch (error) {
      this.#tell(`the buffer cannot be written: ${messageOf(error)}`);
    }
  }
}

/** The rows of the frame that is being gathered, in order of arrival. */
class OpenRows {
  count = 0;
  textsLength = 0;
  readonly #tag: Uint32Array;
  readonly #time: Float64Array;
  readonly #quality: Uint32Array;
  readonly #kind: Uint8Array;
  readonly #number: Float64Array;
  #texts: (string | undefined)[] = [];

  constructor(capacity: number) {
    this.#tag = new Uint32Array(capacity);
    this.#time = new Float64Array(capacity);
    this.#quality = new Uint32Array(capacity);
    this.#kind = new Uint8Array(capacity);
    this.#number = new Float64Array(capacity);
  }

  push(tag: number, { time, value, quality }: Reading): void {
    const row = this.count++;
    this.#tag[row] = tag;
    // The agent's own readings of a lost device carry its clock, which may not be set yet.
    this.#time[row] = Math.max(time, timeRange.from);
    this.#quality[row] = quality;
    this.#kind[row] = RowKind.Null;
    if (typeof value === "number") {
      this.#kind[row] = RowKind.Number;
      this.#number[row] = value;
    } else if (typeof value === "boolean") {
      this.#kind[row] = RowKind.Boolean;
      this.#number[row] = value ? 1 : 0;
    } else if (typeof value === "string") {
      this.#kind[row] = RowKind.Text;
      this.#texts[row] = value;
      this.textsLength += value.length;
    }
  }

  clear(): void {
    this.count = 0;
    this.textsLength = 0;
    this.#texts = [];
  }

  /** The rows grouped by tag, in order of arrival within each: a counting sort. */
  grouped(): ReadingColumns {
    const { count } = this;
    const order = this.#order();
    const grouped = {
      count,
      tag: new Uint32Array(count),
      time: new Float64Array(count),
      quality: new Uint32Array(count),
      kind: new Uint8Array(count),
      number: new Float64Array(count),
      texts: [] as string[],
    };
    for (let to = 0; to < count; to++) {
      const from = order[to]!;
      const kind = this.#kind[from]!;
      grouped.tag[to] = this.#tag[from]!;
      grouped.time[to] = this.#time[from]!;
      grouped.quality[to] = this.#quality[from]!;
      grouped.kind[to] = kind;
      if (kind === RowKind.Text) grouped.texts.push(this.#texts[from]!);
      else if (kind !== RowKind.Null) grouped.number[to] = this.#number[from]!;
    }
    return grouped;
  }

  #order(): Uint32Array {
    let highest = 0;
    for (let row = 0; row < this.count; row++) highest = Math.max(highest, this.#tag[row]!);
    const next = new Uint32Array(highest + 2);
    for (let row = 0; row < this.count; row++) next[this.#tag[row]! + 1]!++;
    for (let tag = 1; tag <= highest; tag++) next[tag]! += next[tag - 1]!;
    const order = new Uint32Array(this.count);
    for (let row = 0; row < this.count; row++) order[next[this.#tag[row]!]!++] = row;
    return order;
  }
}

function keyOf({ device, tag, reason, from, to }: Gap): string {
  return `${device} ${tag} ${reason} ${from} ${to}`;
}

function spansOf(rows: ReadingColumns, deviceOf: readonly string[]): DeviceSpan[] {
  const spans = new Map<string, { device: string; from: Micros; to: Micros; readings: number }>();
  let span: { device: string; from: Micros; to: Micros; readings: number } | undefined;
  for (let row = 0; row < rows.count; row++) {
    const device = deviceOf[rows.tag[row]!]!;
    const time = rows.time[row]!;
    if (span?.device !== device) span = spans.get(device) ?? { device, from: time, to: time, readings: 0 };
    spans.set(device, span);
    span.from = Math.min(span.from, time);
    span.to = Math.max(span.to, time);
    span.readings++;
  }
  return [...spans.values()];
}
