import type { FrameBuffer, FrameRecord } from "../../edge/buffer/buffer.ts";
import type { Gap, Micros } from "../../protocols/reading.ts";
import { openEnvelope, packContent, unpackContent } from "../../protocols/uplink/envelope.ts";
import { RowKind } from "../../protocols/uplink/frame.ts";

/** 2026-06-01T00:00:00Z */
export const t0: Micros = 1_780_272_000_000_000;
export const mapHash = "0f0e0d0c0b0a09080706050403020100";

export interface FrameWish {
  /** Random numbers, which no compression makes smaller: 8 bytes each. */
  readonly readings?: number;
  readonly device?: string;
  /** Time of the first reading; the others follow, a millisecond apart. */
  readonly from?: Micros;
  readonly gaps?: readonly Gap[];
  readonly losses?: readonly Gap[];
  readonly watermarks?: Readonly<Record<string, Micros>>;
  readonly mapHash?: string;
}

/** A frame as the edge's writer makes them. */
export function frame(wish: FrameWish = {}): FrameRecord {
  const { readings = 1, device = "press", from = t0, gaps = [], losses = [], watermarks = {} } = wish;
  const columns = {
    count: readings,
    tag: new Uint32Array(readings),
    time: Float64Array.from({ length: readings }, (_, row) => from + row * 1000),
    quality: new Uint32Array(readings),
    kind: new Uint8Array(readings).fill(RowKind.Number),
    number: Float64Array.from({ length: readings }, () => Math.random()),
    texts: [],
  };
  return {
    content: packContent(wish.mapHash ?? mapHash, columns, [...losses, ...gaps]),
    spans: readings === 0 ? [] : [{ device, from, to: from + (readings - 1) * 1000, readings }],
    gaps,
    losses,
    watermarks: new Map(Object.entries(watermarks)),
  };
}

export function gap(wish: Partial<Gap> = {}): Gap {
  return { device: "press", tag: null, reason: "device_down", from: t0, to: null, detail: "cut", ...wish };
}

/** The numbers of all frames in the buffer. */
export async function seqsIn(buffer: FrameBuffer): Promise<number[]> {
  return (await buffer.oldest(0, 100_000)).map(({ seq }) => seq);
}

/** The gaps that the frames in the buffer report, in order. */
export async function gapsIn(buffer: FrameBuffer): Promise<Gap[]> {
  const frames = await buffer.oldest(0, 100_000);
  return frames.flatMap(({ bytes }) => unpackContent(openEnvelope(bytes)).gaps);
}
