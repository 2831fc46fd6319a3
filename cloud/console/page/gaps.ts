import type { GapBody } from "../../api/schemas.ts";
import { element } from "./dom.ts";
import { formatAge, formatMoment, formatReason } from "./format.ts";

const mostShown = 50;

/** Lists the open gaps: where no data arrives now, since when and why. */
export function showGaps(list: HTMLElement, gaps: readonly GapBody[], nowMs: number): void {
  if (gaps.length === 0) {
    list.replaceChildren(element("li", "empty", "No gap is open."));
    return;
  }
  const items = gaps.slice(0, mostShown).map((gap) => item(gap, nowMs));
  if (gaps.length > mostShown) items.push(element("li", "empty", `… and ${gaps.length - mostShown} more`));
  list.replaceChildren(...items);
}

function item(gap: GapBody, nowMs: number): HTMLElement {
  const fromMs = Date.parse(gap.from);
  const place = gap.tag === null ? `${gap.edge}.${gap.device}` : `${gap.edge}.${gap.device}.${gap.tag}`;
  const since = `since ${formatMoment(fromMs, nowMs)}, for ${formatAge((nowMs - fromMs) / 1000)}`;
  return element(
    "li",
    "gap",
    element("strong", "", place),
    element("span", "", formatReason(gap.reason)),
    element("span", "muted", since),
    element("span", "detail", gap.detail),
  );
}
