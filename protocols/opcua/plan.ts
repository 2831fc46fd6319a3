import type { PlannedRequest } from "../driver.ts";
import type { OpcuaDevice, OpcuaTag } from "./config.ts";

/** How one node is watched, its tag's settings and its device's taken together. */
export interface Monitoring {
  readonly samplingMs: number;
  /** How many values the server is to keep. */
  readonly queue: number;
  readonly discardOldest: boolean;
  /** The absolute deadband that the server is asked to apply; null: none. */
  readonly deadband: number | null;
}

/** Servers revise a sampling of 0, "as fast as you can", to some milliseconds; queues are sized for this. */
const fastestSamplingMs = 10;
const largestOwnQueue = 10_000;

/**
 * How a tag's node is watched. Where no queue is given it holds twice what can be sampled between two publishings, so
 * that a publishing which comes late loses nothing.
 */
export function monitoring(device: OpcuaDevice, tag: OpcuaTag): Monitoring {
  const samplingMs = tag.sampling ?? device.sampling;
  const samples = Math.ceil(device.publishing / Math.max(samplingMs, fastestSamplingMs));
  return {
    samplingMs,
    queue: tag.queue ?? device.queue ?? Math.min(Math.max(2, 2 * samples), largestOwnQueue),
    discardOldest: (tag.discard ?? device.discard) === "oldest",
    deadband: tag.deadband && (tag.type === "number" || tag.type === "any") ? tag.deadband : null,
  };
}

/** What would be asked of the server: one line for the nodes that are watched alike, the fastest first. */
export async function plan(device: OpcuaDevice): Promise<PlannedRequest[]> {
  const groups = new Map<string, PlannedRequest>();
  for (const tag of device.tags) {
    const { samplingMs, queue, discardOldest } = monitoring(device, tag);
    const request =
      `subscription published every ${device.publishing} ms: nodes sampled every ${samplingMs} ms, ` +
      `queue of ${queue}, ${discardOldest ? "oldest" : "newest"} discarded`;
    groups.set(request, { request, everyMs: samplingMs, tags: (groups.get(request)?.tags ?? 0) + 1 });
  }
  return [...groups.values()].sort((a, b) => a.everyMs! - b.everyMs!);
}
