import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import type { DeviceConfig } from "../protocols/device.ts";
import type { Driver, DriverContext, Protocol } from "../protocols/driver.ts";
import { ConfigError, LinkError, messageOf } from "../protocols/errors.ts";
import { type Gap, type Micros, now, Quality, type Reading } from "../protocols/reading.ts";
import { accept } from "./accept.ts";
import type { FrameWriter } from "./frames.ts";
import { GapLedger } from "./gaps.ts";
import { Reporter } from "./report.ts";

export interface Backoff {
  /** Wait after the first failure, in milliseconds; it doubles with each further one … */
  readonly firstMs: number;
  /** … up to this. */
  readonly longestMs: number;
}

export interface CollectorOptions {
  readonly device: DeviceConfig;
  readonly protocol: Protocol<never>;
  /** Index in the device map of the device's first tag; the others follow in the order of its configuration. */
  readonly firstTag: number;
  readonly writer: FrameWriter;
  readonly backoff: Backoff;
  readonly watermark: Micros | undefined;
  readonly openGaps: readonly Gap[];
  readonly log: Logger;
  /** How long connecting may take; a minute by default. */
  readonly connectTimeoutMs?: number;
  /** How long a driver may take to end after it was asked to, and again to close; then it is left to itself. */
  readonly letGoMs?: number;
}

/** Silence of this many `quietMs` means that the device is lost, whatever its driver believes. */
const silenceFactor = 3;
const maxDoublings = 20;
/** A device that had to wait so long for the buffer has missed something. */
const noticedMs = 1000;
/** So many causes of one loss are said. */
const maxTroubles = 20;
const defaultConnectTimeoutMs = 60_000;
const defaultLetGoMs = 5000;
/** So many unknown tags of a faulty driver are named in the log. */
const maxUnknownTags = 20;

/** What is known of a device's link, for health reports. */
export type DeviceState = "connecting" | "up" | "down";

/**
 * Supervises one device: connects its driver, takes what it yields, and when it fails tries again with backoff. The one
 * place where reconnecting is decided and gaps are recorded.
 */
export class DeviceCollector {
  readonly device: DeviceConfig;
  state: DeviceState = "connecting";
  /** How many readings the device has given, before report by exception. */
  readings = 0;
  /** How many readings went into frames. */
  reported = 0;
  readonly #options: CollectorOptions;
  readonly #log: Logger;
  readonly #index: ReadonlyMap<string, number>;
  readonly #reporter: Reporter;
  readonly #gaps: GapLedger;
  #failures = 0;
  #lastBatchAt = 0;
  /** What was said of the present loss. */
  readonly #troubles = new Set<string>();
  /** Counts the drivers: what one that was left to itself still says is ignored. */
  #session = 0;
  /** True while the buffer takes nothing: the silence is then ours, not the device's. */
  #held = false;
  readonly #unknownTags = new Set<string>();
  /** By tag: 1 when it has had a reading in this session. */
  readonly #seen: Uint8Array;
  /** By tag: the time that the device gave its last reading; before the first, until when the last run's data was whole. */
  readonly #lastTimes: Float64Array;

  constructor(options: CollectorOptions) {
    this.#options = options;
    this.device = options.device;
    this.#log = options.log.child({ device: options.device.name });
    const tags = options.device.tags.map((tag) => tag.name);
    this.#index = new Map(tags.map((tag, index) => [tag, index]));
    this.#reporter = new Reporter(options.device.tags);
    this.#gaps = new GapLedger(options.device.name, tags, (gap) => options.writer.addGap(gap));
    this.#seen = new Uint8Array(tags.length);
    this.#lastTimes = new Float64Array(tags.length).fill(options.watermark ?? 0);
  }

  /** Collects until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    this.#gaps.resume(this.#options.watermark, this.#options.openGaps, now());
    while (!signal.aborted) {
      const error = await this.#live(signal);
      if (signal.aborted) return;
      this.#lost(error);
      const { firstMs, longestMs } = this.#options.backoff;
      // What a person has to mend is not tried often, but it is: devices get mended, too.
      const doublings = error instanceof ConfigError ? maxDoublings : Math.min(this.#failures++, maxDoublings);
      const waitMs = Math.min(firstMs * 2 ** doublings, longestMs);
      // Jitter, so that devices that fell together do not all knock together.
      await delay(waitMs * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    }
  }

  /** One life of a driver. Resolves with what ended it. */
  async #live(signal: AbortSignal): Promise<unknown> {
    const { letGoMs = defaultLetGoMs, protocol } = this.#options;
    const session = ++this.#session;
    this.#seen.fill(0);
    const ending = new AbortController();
    const either = AbortSignal.any([signal, ending.signal]);
    let driver: Driver | undefined;
    let watchdog: NodeJS.Timeout | undefined;
    try {
      driver = protocol.driver(this.device as never, this.#context(session));
      await this.#connect(driver, either);
      this.#lastBatchAt = performance.now();
      watchdog = this.#watch(driver.quietMs, ending);
      await lettingGo(this.#readAll(driver, session, either), either, letGoMs);
      return ending.signal.reason ?? new LinkError("the driver has ended by itself");
    } catch (error) {
      return ending.signal.reason ?? error;
    } finally {
      clearInterval(watchdog);
      this.#session++;
      if (driver !== undefined) await this.#close(driver);
    }
  }

  async #connect(driver: Driver, signal: AbortSignal): Promise<void> {
    const { connectTimeoutMs = defaultConnectTimeoutMs, letGoMs = defaultLetGoMs } = this.#options;
    const limit = new AbortController();
    const late = new LinkError(`no connection within ${connectTimeoutMs / 1000} s`);
    const timer = setTimeout(() => limit.abort(late), connectTimeoutMs);
    const either = AbortSignal.any([signal, limit.signal]);
    try {
      await lettingGo(driver.connect(either), either, letGoMs);
    } catch (error) {
      throw limit.signal.aborted ? late : error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #readAll(driver: Driver, session: number, signal: AbortSignal): Promise<void> {
    for await (const batch of driver.readings(signal)) {
      if (session !== this.#session) return;
      this.#take(batch, driver.quietMs);
      if (this.#options.writer.blocked) await this.#waitForBuffer(driver.quietMs, signal);
    }
  }

  /** A driver that does not close must not keep its device from being tried again. */
  async #close(driver: Driver): Promise<void> {
    const { letGoMs = defaultLetGoMs } = this.#options;
    try {
      await lettingGo(driver.close(), AbortSignal.abort(), letGoMs);
    } catch (error) {
      this.#log.error({ err: error }, `the driver cannot be closed and is left to itself: ${messageOf(error)}`);
    }
  }

  #context(session: number): DriverContext {
    return {
      log: this.#log,
      overflow: (tag, detail) => {
        if (session !== this.#session) return;
        if (tag !== null && !this.#index.has(tag)) this.#unknown(tag);
        else this.#gaps.overflowed(tag, now(), detail);
      },
    };
  }

  /** A link may look open while nothing comes through it any more: then this ends the session. */
  #watch(quietMs: number, ending: AbortController): NodeJS.Timeout {
    return setInterval(() => {
      const silentMs = performance.now() - this.#lastBatchAt;
      if (!this.#held && silentMs > quietMs * silenceFactor) {
        ending.abort(new LinkError(`the device has been silent for ${Math.round(silentMs / 1000)} s`));
      }
    }, quietMs);
  }

  /** The agent did nothing from then to now. */
  stoodStill(from: Micros, to: Micros): void {
    if (this.state === "up") this.#gaps.stoodStill(from, to);
  }

  #take(batch: readonly Reading[], quietMs: number): void {
    const { writer, firstTag, device } = this.#options;
    const arrival = now();
    this.#lastBatchAt = performance.now();
    if (this.state !== "up") this.#found();
    let latest: Micros | undefined;
    for (const given of batch) {
      const tag = this.#index.get(given.tag);
      if (tag === undefined) {
        this.#unknown(given.tag);
        continue;
      }
      const reading = this.#confirm(tag, accept(given, arrival), arrival);
      this.#gaps.reading(tag, reading, arrival);
      if (latest === undefined || reading.time > latest) latest = reading.time;
      if (this.#reporter.passes(tag, reading)) {
        writer.add(firstTag + tag, reading);
        this.reported++;
      }
    }
    this.readings += batch.length;
    this.#gaps.answered(arrival, latest, quietMs * 1000);
    writer.whole(device.name, this.#gaps.watermark!);
  }

  /**
   * After an interruption a device gives each tag's present value first, and if that has not changed since, under its
   * old time. Stored so it would stand behind the interruption, or be there twice. What it says is that the value holds
   * now: it gets the time of its arrival.
   */
  #confirm(tag: number, reading: Reading, arrival: Micros): Reading {
    const repeats = this.#seen[tag] === 0 && reading.time <= this.#lastTimes[tag]!;
    this.#seen[tag] = 1;
    this.#lastTimes[tag] = Math.max(this.#lastTimes[tag]!, reading.time);
    return repeats ? { ...reading, time: arrival } : reading;
  }

  /** A fault of the driver. The reading has no place to go; the others do. */
  #unknown(tag: string): void {
    if (this.#unknownTags.has(tag) || this.#unknownTags.size >= maxUnknownTags) return;
    this.#unknownTags.add(tag);
    this.#log.error(
      { tag },
      "the driver gave a reading of a tag that the device does not have; such readings are dropped",
    );
  }

  async #waitForBuffer(quietMs: number, signal: AbortSignal): Promise<void> {
    const from = this.#gaps.watermark ?? now();
    const since = performance.now();
    this.#held = true;
    await this.#options.writer.ready(signal);
    this.#held = false;
    this.#lastBatchAt = performance.now();
    if (!signal.aborted && this.#lastBatchAt - since > Math.min(quietMs, noticedMs)) this.#gaps.blocked(from, now());
  }

  #found(): void {
    this.#log.info(this.#troubles.size === 0 ? "the device answers" : "the device answers again");
    this.state = "up";
    this.#failures = 0;
    this.#troubles.clear();
  }

  /** Gives every tag a bad reading and opens a gap, once; says each cause once. */
  #lost(error: unknown): void {
    const trouble = messageOf(error);
    if (!this.#troubles.has(trouble) && this.#troubles.size < maxTroubles) {
      this.#troubles.add(trouble);
      this.#log.warn({ err: error }, `the device is lost and will be tried again: ${trouble}`);
    }
    if (this.state === "down") return;
    this.state = "down";
    const time = now();
    this.#gaps.lost(time, trouble);
    for (const [name, tag] of this.#index) {
      const reading = { tag: name, time, value: null, quality: Quality.BadNoCommunication };
      if (this.#reporter.passes(tag, reading)) this.#options.writer.add(this.#options.firstTag + tag, reading);
    }
  }
}

/** The outcome of `work`, unless it takes longer than `graceMs` after `signal` was aborted: then it is not waited for. */
async function lettingGo<T>(work: Promise<T>, signal: AbortSignal, graceMs: number): Promise<T> {
  const left = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const leave = () => {
    timer = setTimeout(() => left.reject(new LinkError(`the driver has not ended within ${graceMs} ms`)), graceMs);
  };
  if (signal.aborted) leave();
  else signal.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([work, left.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
    clearTimeout(timer);
  }
}
