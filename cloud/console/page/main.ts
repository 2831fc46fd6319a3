import type { EdgeBody, GapBody, TagBody } from "../../api/schemas.ts";
import { byId, element, setText } from "./dom.ts";
import { showEdges } from "./edges.ts";
import { formatAge, formatMoment } from "./format.ts";
import { showGaps } from "./gaps.ts";
import { Service } from "./service.ts";
import { isTrouble, stateOf } from "./state.ts";
import { TagTable } from "./tags.ts";
import { spans, Trend } from "./trend.ts";

const refreshMs = 1000;
/** Edges and gaps change rarely: they are asked in each cycle of this many. */
const slowEvery = 3;
/** The longest pause between two cycles, however slow the service is. */
const longestPauseMs = 4000;
/** Without an answer for this long the page says that it is not live: more than a question's timeout and a pause. */
const lostAfterMs = 10_000;

const service = new Service();
const table = new TagTable(byId<HTMLTableElement>("tags"), (tag) => choose(tag, span));
const trend = new Trend(byId("trend"), service);
const [filter, troubled] = [byId<HTMLInputElement>("filter"), byId<HTMLInputElement>("troubled")];

let tags: TagBody[] = [];
let edges: EdgeBody[] = [];
let gaps: GapBody[] = [];
let chosen: string | null = null;
let span = "15 min";
let cycle = 0;
/** The service's time when the tags shown were asked; null before the first answer. */
let asOfMs: number | null = null;
let failure: string | null = null;

async function refresh(): Promise<void> {
  const slow = cycle++ % slowEvery === 0;
  [tags] = await Promise.all([service.askAll<TagBody>("/api/v1/tags?limit=1000"), slow ? refreshSlow() : undefined]);
  asOfMs = service.nowMs();
  show();
  if (chosen === null) chooseFirst();
  if (slow) trend.noteOpenGaps(gaps);
  // Goes on beside the cycle: many readings may take their time, and the table need not wait.
  void trend.update();
}

async function refreshSlow(): Promise<void> {
  [edges, gaps] = await Promise.all([
    service.askAll<EdgeBody>("/api/v1/edges?"),
    service.askAll<GapBody>("/api/v1/gaps?from=now"),
  ]);
}

/** Asks again and again, never faster than the service can bear, and not while nobody looks. */
async function run(): Promise<void> {
  for (;;) {
    const started = performance.now();
    if (!document.hidden) {
      try {
        await refresh();
        failure = null;
      } catch (error) {
        failure = error instanceof Error ? error.message : String(error);
      }
      showLiveness();
    }
    const tookMs = performance.now() - started;
    await wait(Math.min(longestPauseMs, Math.max(refreshMs - tookMs, tookMs)));
  }
}

/** Resolves after the time, or when the page comes back into view. */
function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    document.addEventListener("visibilitychange", done);
  });
}

function show(): void {
  const now = service.nowMs();
  const edgesByName = new Map(edges.map((edge) => [edge.edge, edge]));
  const gapsByDevice = Map.groupBy(gaps, ({ edge, device }) => `${edge}.${device}`);
  const state = (tag: TagBody) =>
    stateOf(tag, gapsByDevice.get(`${tag.edge}.${tag.device}`) ?? [], edgesByName.get(tag.edge), now);
  table.show(tags, state, now);
  const trouble = tags.filter((tag) => isTrouble(state(tag))).length;
  setText(byId("count"), summary(trouble));
  showFilter();
  showEdges(byId("edges"), edges, now);
  showGaps(byId("gaps"), gaps, now);
  showWaiting();
  document.title = trouble === 0 ? "Millrace" : `(${trouble}) Millrace`;
}

function summary(trouble: number): string {
  const count = tags.length === 1 ? "1 tag" : `${tags.length} tags`;
  if (trouble > 0) return `${count}, ${trouble} with trouble`;
  const without = tags.filter(({ latest }) => latest === null).length;
  return without > 0 ? `${count}, ${without} without a reading yet` : `${count}, all well`;
}

function showFilter(): void {
  const shown = table.filter({ text: filter.value, troubled: troubled.checked });
  byId("nomatch").hidden = shown > 0 || tags.length === 0;
}

/** Before the first reading: what has happened so far and what is being waited for. */
function showWaiting(): void {
  const panel = byId("waiting");
  panel.hidden = tags.some(({ latest }) => latest !== null);
  document.body.classList.toggle("idle", tags.length === 0);
  if (panel.hidden) return;
  const names = edges.map(({ edge }) => edge).join(", ");
  const steps: [done: boolean, text: string][] = [
    [true, "The cloud service answers."],
    [
      edges.length > 0,
      edges.length > 0 ? `Heard of ${names}.` : "An edge agent connects to the broker and makes itself known.",
    ],
    [tags.length > 0, tags.length > 0 ? `${tags.length} tags are in the device maps.` : "It sends its device map."],
    [false, "A device answers, and its first reading arrives."],
  ];
  const list = element("ol", "", ...steps.map(([done, text]) => element("li", done ? "done" : "", text)));
  panel.replaceChildren(element("h2", "", "Waiting for the first reading"), list);
}

/** Says whether what stands on the page is live. Runs by its own timer: a question that hangs must not hide that. */
function showLiveness(): void {
  const silentMs = performance.now() - (service.answeredAt ?? 0);
  const lost = (failure !== null || silentMs > lostAfterMs) && !document.hidden;
  byId("banner").hidden = !lost;
  document.body.classList.toggle("lost", lost);
  const now = service.nowMs();
  const asOf = asOfMs === null ? null : formatMoment(asOfMs, now);
  if (asOf !== null) setText(byId("asof"), `as of ${asOf}`);
  if (!lost) return;
  const old =
    asOfMs === null ? "" : `What stands here is as it was at ${asOf}, ${formatAge((now - asOfMs) / 1000)} ago. `;
  setText(byId("banner"), `${failure ?? "The service does not answer."} ${old}Trying again.`);
}

/** A fault of the page itself must not leave it looking alive either. */
function showFault(): void {
  document.body.classList.add("lost");
  const fault = element("div", "banner", "This page has failed, and may show old values. Reload it.");
  fault.role = "alert";
  document.querySelector(".banner.fault")?.remove();
  fault.classList.add("fault");
  byId("banner").before(fault);
}

function choose(tag: string, newSpan: string): void {
  const found = tags.find((one) => one.tag === tag);
  if (!found) return;
  [chosen, span] = [tag, newSpan];
  history.replaceState(null, "", `#${new URLSearchParams({ tag, span })}`);
  table.mark(tag);
  trend.choose(found, spans[span]!);
  void trend.update();
}

/** The tag of the address, or the first number that moves. */
function chooseFirst(): void {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("tag");
  const first = tags.find(({ latest }) => typeof latest?.value === "number");
  const tag = tags.find((one) => one.tag === wanted) ?? first;
  if (tag) choose(tag.tag, span);
}

function startSpans(): void {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("span") ?? "";
  if (Object.hasOwn(spans, wanted)) span = wanted;
  for (const input of document.querySelectorAll<HTMLInputElement>("#spans input")) {
    input.checked = input.value === span;
    input.addEventListener("change", () => {
      if (chosen === null) span = input.value;
      else choose(chosen, input.value);
    });
  }
}

filter.addEventListener("input", showFilter);
troubled.addEventListener("change", showFilter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && document.activeElement === filter) {
    filter.value = "";
    showFilter();
  }
});
addEventListener("error", showFault);
addEventListener("unhandledrejection", showFault);
startSpans();
setInterval(showLiveness, 1000);
void run();
