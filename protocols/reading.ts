/**
 * The vocabulary of the whole program.
 *
 * - **Tag**: one named signal of one device, with unit, type and the equipment it belongs to.
 * - **Reading**: tag, time, value, quality. A scan of a barcode is a reading too.
 * - **Quality**: an OPC UA status code (OPC 10000-4, 7.39): 32 bits, of which the top two say good, uncertain or bad.
 *   A bad reading carries `null`, never the last good value.
 * - **Gap**: from when to when, and why, nothing was collected for a device or a tag.
 */

/** Whole microseconds since 1970-01-01T00:00:00 UTC: a safe integer, and PostgreSQL's own resolution. */
export type Micros = number;

/** What a reading says. `null` when the quality is bad. */
export type Value = number | boolean | string | null;

/** An OPC UA status code as an unsigned 32-bit integer. */
export type Quality = number;

/** One value of one tag at one time. `tag` is the tag's name within its device. */
export interface Reading {
  readonly tag: string;
  readonly time: Micros;
  readonly value: Value;
  readonly quality: Quality;
}

/** Why nothing was collected. */
export const gapReasons = [
  /** The device, or one unit behind a shared link, does not answer. */
  "device_down",
  /** The device answers, but this tag has no usable value: refused address, unknown node, failed sensor. */
  "tag_bad",
  /** The agent was not running. */
  "agent_stopped",
  /** The buffer reached its bound: what was dropped or not collected is named in the gap's detail. */
  "buffer_full",
  /** More values arrived than could be taken; the device's or the driver's queue overflowed. */
  "overflow",
  /** A frame on disk or on the wire turned out damaged and was set aside. */
  "frame_refused",
] as const;
export type GapReason = (typeof gapReasons)[number];

/**
 * An interval without data. A gap is reported when it opens (`to` null) and again, with the same device, tag, reason and
 * `from`, when it ends: those four identify it.
 */
export interface Gap {
  readonly device: string;
  /** null: every tag of the device. */
  readonly tag: string | null;
  readonly reason: GapReason;
  /** The last moment at which data is known to have been whole. */
  readonly from: Micros;
  /** The first moment at which data is whole again; null while the gap is open. */
  readonly to: Micros | null;
  /** What was seen, for a person: the error's message, how much was dropped. */
  readonly detail: string;
}

/** The status codes that Millrace itself gives (names and numbers: OPC Foundation, StatusCode.csv). */
export const Quality = {
  Good: 0x00000000,
  Uncertain: 0x40000000,
  UncertainLastUsableValue: 0x40900000,
  Bad: 0x80000000,
  BadDecodingError: 0x80070000,
  BadTimeout: 0x800a0000,
  BadNoCommunication: 0x80310000,
  BadWaitingForInitialData: 0x80320000,
  BadNodeIdUnknown: 0x80340000,
  BadOutOfRange: 0x803c0000,
  BadNotSupported: 0x803d0000,
  BadConfigurationError: 0x80890000,
  BadNotConnected: 0x808a0000,
  BadDeviceFailure: 0x808b0000,
  BadSensorFailure: 0x808c0000,
} as const;

/** True for the status codes whose severity is good (top bits 00). */
export function isGood(quality: Quality): boolean {
  return quality >>> 30 === 0;
}

/** True for the status codes whose severity is bad (top bit set: 10, and the reserved 11). */
export function isBad(quality: Quality): boolean {
  return quality >>> 31 === 1;
}

/** The system's clock, in whole microseconds. Its true resolution is a millisecond. */
export function now(): Micros {
  return Date.now() * 1000;
}
