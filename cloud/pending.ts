import type { OpenedEnvelope } from "../protocols/uplink/envelope.ts";
import type { FrameId } from "../protocols/uplink/frame.ts";

/** A frame that is whole and its edge's own, its content still packed. */
export interface PendingFrame {
  readonly envelope: OpenedEnvelope;
  readonly raw: Buffer;
}

interface EdgeQueue {
  readonly frames: Map<string, PendingFrame>;
  bytes: number;
}

/** What a frame takes in memory beside its bytes, roughly: its envelope and its place in the queue. */
const overheadBytes = 1024;

/** Names a frame in this process. */
export function frameKey({ edge, stream, seq }: FrameId): string {
  return `${edge} ${stream} ${seq}`;
}

/**
 * The frames that wait for the database: bounded in bytes, and fair. An edge takes at most half of the room, and edges
 * take turns, so that one that sends without end (a day's backlog, a fault) delays the others by no more than a frame.
 */
export class PendingFrames {
  readonly #maxBytes: number;
  /** In the order of their turns. */
  readonly #edges = new Map<string, EdgeQueue>();
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What the frames take in memory. */
  get bytes(): number {
    return this.#bytes;
  }

  has(frame: FrameId): boolean {
    return this.#edges.get(frame.edge)?.frames.has(frameKey(frame)) ?? false;
  }

  /** Adds a frame that is not there yet. @returns false when there is no room for it */
  add(frame: PendingFrame): boolean {
    const { edge } = frame.envelope;
    const bytes = bytesOf(frame);
    const queue = this.#edges.get(edge) ?? { frames: new Map(), bytes: 0 };
    // A single frame always has room, however small the bound.
    const fits = queue.bytes + bytes <= this.#maxBytes / 2 && this.#bytes + bytes <= this.#maxBytes;
    if (!fits && this.#bytes > 0) return false;
    queue.frames.set(frameKey(frame.envelope), frame);
    queue.bytes += bytes;
    this.#bytes += bytes;
    this.#edges.set(edge, queue);
    return true;
  }

  /**
   * Takes the oldest frame of the edge whose turn it is. An edge whose oldest frame is not `ready` is passed over.
   * @returns undefined when no frame is ready
   */
  take(ready: (frame: PendingFrame) => boolean): PendingFrame | undefined {
    for (const [edge, queue] of this.#edges) {
      const [key, frame] = queue.frames.entries().next().value!;
      if (!ready(frame)) continue;
      const bytes = bytesOf(frame);
      queue.frames.delete(key);
      queue.bytes -= bytes;
      this.#bytes -= bytes;
      this.#edges.delete(edge);
      if (queue.frames.size > 0) this.#edges.set(edge, queue);
      return frame;
    }
    return undefined;
  }
}

function bytesOf({ raw }: PendingFrame): number {
  return raw.byteLength + overheadBytes;
}
