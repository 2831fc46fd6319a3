import type { ValueKind } from "../device.ts";
import type { Gap, Micros } from "../reading.ts";

/** Which value a row of a frame holds. Numbers on the wire: never renumber. */
export const RowKind = { Null: 0, Number: 1, Boolean: 2, Text: 3 } as const;
export type RowKind = (typeof RowKind)[keyof typeof RowKind];

/**
 * Readings in columns. Row i is the reading of tag `tag[i]` (its index in the device map) at `time[i]` with
 * `quality[i]`; `kind[i]` tells where its value stands: `number[i]` (booleans as 0 and 1), or, for texts, the next of
 * `texts` in row order. The arrays may be longer than `count`.
 */
export interface ReadingColumns {
  readonly count: number;
  readonly tag: Uint32Array;
  /** Microseconds since 1970 UTC, whole numbers. */
  readonly time: Float64Array;
  readonly quality: Uint32Array;
  readonly kind: Uint8Array;
  readonly number: Float64Array;
  readonly texts: readonly string[];
}

/** What a frame carries: readings sorted by tag, then time; and the gaps that became known. */
export interface FrameContent {
  readonly readings: ReadingColumns;
  readonly gaps: readonly Gap[];
}

/** Names one frame in the whole world: `seq` counts 1, 2, 3 … without a hole within one stream of one edge. */
export interface FrameId {
  readonly edge: string;
  /** The stream's UUID, as 32 lower-case hex digits. */
  readonly stream: string;
  readonly seq: number;
}

/** What the cloud needs to know of a tag before the first frame that holds its readings. */
export interface MappedTag {
  /** Name of the device within the edge. */
  readonly device: string;
  /** Name of the tag within the device. */
  readonly name: string;
  readonly kind: ValueKind;
  readonly description?: string;
  readonly unit?: string;
  /** ISA-95 path of the equipment. */
  readonly equipment?: string;
  readonly range?: readonly [number, number];
}

/** The tags of an edge at one state of its configuration. A frame names it by its hash; its tags are indices into it. */
export interface DeviceMap {
  readonly edge: string;
  readonly site?: string;
  readonly devices: readonly { readonly name: string; readonly protocol: string; readonly description?: string }[];
  readonly tags: readonly MappedTag[];
}

/** The time span of a frame's readings; null when it holds none. */
export interface TimeSpan {
  readonly from: Micros;
  readonly to: Micros;
}
