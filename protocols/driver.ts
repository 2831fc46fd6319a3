import type { Logger } from "pino";
import type { Reading, Value } from "./reading.ts";

/**
 * One device, as the edge's collector sees it.
 *
 * The collector alone reconnects, backs off and records gaps; a driver never retries a lost link by itself. The life of
 * a driver is `connect → readings → close`, after which the collector asks the protocol for a new one. A constructor
 * does nothing that can fail.
 */
export interface Driver {
  /**
   * Opens the way to the device. Called once.
   * @throws LinkError when the device cannot be reached now (retried with backoff)
   * @throws ConfigError when only a person can mend it (still retried, slowly, because devices get mended too)
   */
  connect(signal: AbortSignal): Promise<void>;

  /**
   * Polls and subscriptions alike. Called once, after `connect`. Each batch is in the order of arrival, and the
   * collector asks for the next one only when it has taken the last: a driver with a queue of its own bounds it and
   * says what it dropped (see `DriverContext.overflow`).
   *
   * An empty batch means "the device answered; nothing is new", and is the sign of life of a quiet device: a driver
   * yields at least one batch in each `quietMs` while its device is well.
   *
   * A tag that the device refuses (illegal register, unknown node, dead unit behind a shared link) is a reading with
   * bad quality and null, given once when the state changes; the other tags go on.
   *
   * Ends when `signal` is aborted. @throws LinkError when the device is lost.
   */
  readings(signal: AbortSignal): AsyncIterable<readonly Reading[]>;

  /** The longest silence, in milliseconds, of a healthy device. */
  readonly quietMs: number;

  /**
   * Writes one value. Absent where the protocol cannot write.
   * @throws LinkError | DataError
   */
  write?(tag: string, value: Value, signal: AbortSignal): Promise<void>;

  /** Frees what `connect` took. Called once, also after a failed `connect`; never throws. */
  close(): Promise<void>;
}

/** What a driver is given besides its configuration. */
export interface DriverContext {
  /** Carries the device's name already. */
  readonly log: Logger;
  /**
   * To be called when values of a tag (null: of an unknown number of tags) were lost between device and collector:
   * a queue overflowed, on either side. The collector records the gap.
   */
  overflow(tag: string | null, detail: string): void;
}

/**
 * A protocol at work in one agent: makes the drivers of its devices and owns what they share (a serial port, a
 * connection with several units behind it). Made once per agent.
 */
export interface Protocol<Device = never> {
  driver(device: Device, context: DriverContext): Driver;
}

/** One line of what would be asked of a device, for `millrace check`. */
export interface PlannedRequest {
  /** What is asked, in the protocol's words: "unit 3, FC3 holding 100..117 (18 registers)". */
  readonly request: string;
  /** How often, in milliseconds; null: the device reports by itself. */
  readonly everyMs: number | null;
  /** How many tags it serves. */
  readonly tags: number;
}
