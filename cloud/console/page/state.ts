import type { EdgeBody, GapBody, TagBody } from "../../api/schemas.ts";
import { formatReason } from "./format.ts";

/** What is known of a tag now. Only with `good` and `uncertain` its latest value is shown as its value now. */
export interface TagState {
  readonly kind: "good" | "uncertain" | "bad" | "gap" | "silent" | "none";
  /** The state in words. */
  readonly label: string;
}

/** An edge that has committed no frame for this long is called silent. */
export const silentAfterSeconds = 60;

/** Seconds since an edge's last frame; null before the first one. */
export function silenceOf(edge: EdgeBody, nowMs: number): number | null {
  return edge.last_frame_at === null ? null : (nowMs - Date.parse(edge.last_frame_at)) / 1000;
}

/** While a gap for one of these reasons is open, nothing arrives; for the others some values were lost and others arrive. */
const silencing: ReadonlySet<GapBody["reason"]> = new Set(["device_down", "tag_bad", "agent_stopped"]);

/**
 * What is known of a tag now. A bad reading, an open gap and a silent edge all mean that the last good value may no
 * longer hold. Times of readings and gaps are not compared: they may come from different clocks.
 */
export function stateOf(tag: TagBody, gaps: readonly GapBody[], edge: EdgeBody | undefined, nowMs: number): TagState {
  const { latest } = tag;
  if (latest?.quality.severity === "bad") return { kind: "bad", label: latest.quality.name };
  const gap = gaps.find((one) => silencing.has(one.reason) && covers(one, tag));
  if (gap) return { kind: "gap", label: formatReason(gap.reason) };
  if (latest === null) return { kind: "none", label: "No reading yet" };
  const silence = edge ? silenceOf(edge, nowMs) : null;
  const age = (nowMs - Date.parse(latest.time)) / 1000;
  if (silence !== null && silence > silentAfterSeconds && age > silentAfterSeconds) {
    return { kind: "silent", label: "Edge is silent" };
  }
  return { kind: latest.quality.severity, label: latest.quality.name };
}

/** True when the gap, still open, is one of this tag. */
export function covers(gap: GapBody, tag: TagBody): boolean {
  return (
    gap.to === null && gap.edge === tag.edge && gap.device === tag.device && (gap.tag === null || gap.tag === tag.name)
  );
}

/** True for the states someone should look at. */
export function isTrouble({ kind }: TagState): boolean {
  return kind !== "good" && kind !== "none";
}
