import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import type { DeviceConfig } from "../protocols/device.ts";
import type { Driver, DriverContext, Protocol } from "../protocols/driver.ts";
import { LinkError, messageOf } from "../protocols/errors.ts";
import { type Gap, type Micros, now, Quality, type Reading } from "../protocols/reading.ts";
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
}

/** Silence of this many `quietMs` means that the device is lost, whatever its driver believes. */
const silenceFactor = 3;
const connectTimeoutMs = 60_000;

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
  #lastTrouble = "";

  constructor(options: CollectorOptions) {
    this.#options = options;
    this.device = options.device;
    this.#log = options.log.child({ device: options.device.name });
    const tags = options.device.tags.map((tag) => tag.name);
    this.#index = new Map(tags.map((tag, index) => [tag, index]));
    this.#reporter = new Reporter(options.device.tags);
    this.#gaps = new GapLedger(options.device.name, tags, (gap) => options.writer.addGap(gap));
  }

  /** Collects until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    this.#gaps.resume(this.#options.watermark, this.#options.openGaps);
    while (!signal.aborted) {
      const error = await this.#session(signal);
      if (signal.aborted) return;
      this.#lost(error);
      const { firstMs, longestMs } = this.#options.backoff;
      const waitMs = Math.min(firstMs * 2 ** Math.min(this.#failures++, 20), longestMs);
      // Jitter, so that devices that fell together do not all knock together.
      await delay(waitMs * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
    }
  }

  /** One life of a driver. Resolves with what ended it. */
  async #session(signal: AbortSignal): Promise<unknown> {
    const ending = new AbortController();
    const either = AbortSignal.any([signal, ending.signal]);
    let driver: Driver | undefined;
    let watchdog: NodeJS.Timeout | undefined;
    try {
      driver = this.#options.protocol.driver(this.device as never, this.#context());
      await driver.connect(AbortSignal.any([either, AbortSignal.timeout(connectTimeoutMs)]));
      this.#lastBatchAt = performance.now();
      watchdog = this.#watch(driver.quietMs, ending);
      for await (const batch of driver.readings(either)) {
        this.#take(batch, driver.quietMs);
        if (this.#options.writer.blocked) await this.#waitForBuffer(driver.quietMs);
      }
      return ending.signal.reason ?? new LinkError("the driver has ended by itself");
    } catch (error) {
      return ending.signal.reason ?? error;
    } finally {
      clearInterval(watchdog);
      await driver?.close();
    }
  }

  #context(): DriverContext {
    return {
      log: this.#log,
      overflow: (tag, detail) => this.#gaps.overflowed(tag, now(), detail),
    };
  }

  /** A link may look open while nothing comes through it any more: then this ends the session. */
  #watch(quietMs: number, ending: AbortController): NodeJS.Timeout {
    return setInterval(() => {
      const silentMs = performance.now() - this.#lastBatchAt;
      if (silentMs > quietMs * silenceFactor) {
        ending.abort(new LinkError(`the device has been silent for ${Math.round(silentMs / 1000)} s`));
      }
    }, quietMs);
  }

  #take(batch: readonly Reading[], quietMs: number): void {
    const { writer, firstTag, device } = this.#options;
    const arrival = now();
    this.#lastBatchAt = performance.now();
    if (this.state !== "up") this.#found();
    let latest: Micros | undefined;
    for (const reading of batch) {
      const tag = this.#index.get(reading.tag);
      if (tag === undefined) throw new Error(`the driver gave a reading of the unknown tag ${reading.tag}`);
      this.#gaps.reading(tag, reading);
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

  async #waitForBuffer(quietMs: number): Promise<void> {
    const from = this.#gaps.watermark ?? now();
    const since = performance.now();
    await this.#options.writer.ready();
    this.#lastBatchAt = performance.now();
    if (this.#lastBatchAt - since > quietMs) this.#gaps.blocked(from, now());
  }

  #found(): void {
    this.#log.info(this.#lastTrouble === "" ? "the device answers" : "the device answers again");
    this.state = "up";
    this.#failures = 0;
    this.#lastTrouble = "";
  }

  /** Gives every tag a bad reading and opens a gap, once; says so once, and again only when the cause changes. */
  #lost(error: unknown): void {
    const trouble = messageOf(error);
    if (trouble !== this.#lastTrouble) {
      this.#log.warn({ err: error }, `the device is lost and will be tried again: ${trouble}`);
    }
    this.#lastTrouble = trouble;
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
