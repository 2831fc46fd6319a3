import type { EdgeBody } from "../../api/schemas.ts";
import { element } from "./dom.ts";
import { formatAge } from "./format.ts";
import { silenceOf, silentAfterSeconds } from "./state.ts";

/** Shows each edge: how long ago it last delivered, and whether what it delivered is whole. */
export function showEdges(list: HTMLElement, edges: readonly EdgeBody[], nowMs: number): void {
  list.replaceChildren(...edges.map((edge) => card(edge, nowMs)));
}

function card(edge: EdgeBody, nowMs: number): HTMLElement {
  const silence = silenceOf(edge, nowMs);
  const silent = silence === null || silence > silentAfterSeconds;
  const state = silent || !edge.whole ? "trouble" : "well";
  return element(
    "li",
    `edge ${state}`,
    element("strong", "", edge.edge),
    element("span", "muted", edge.site ?? ""),
    element("span", silent ? "alarm" : "", silence === null ? "no frame yet" : `last frame ${formatAge(silence)} ago`),
    element("span", edge.whole ? "" : "alarm", account(edge)),
  );
}

/** Whether all streams are whole; if not, how many frames are missing. */
function account({ streams, whole, frames }: EdgeBody): string {
  const stored = `${frames.toLocaleString("en")} frames stored`;
  if (whole) return streams.length === 0 ? stored : `${stored}, none missing`;
  let missing = 0;
  for (const stream of streams) for (const [from, to] of stream.missing) missing += to! - from! + 1;
  const incomplete = streams.filter((stream) => !stream.whole).length;
  const place = incomplete === 1 ? "1 stream" : `${incomplete} streams`;
  return `${stored}, ${missing.toLocaleString("en")} missing in ${place}`;
}
