import type { TagBody } from "../../api/schemas.ts";
import { element, setText } from "./dom.ts";
import { formatAge, formatValue } from "./format.ts";
import { isTrouble, type TagState } from "./state.ts";

interface Row {
  readonly line: HTMLTableRowElement;
  readonly choose: HTMLButtonElement;
  readonly value: HTMLElement;
  readonly age: HTMLElement;
  readonly quality: HTMLElement;
  /** What the filter looks into, in lower case. */
  readonly search: string;
  troubled: boolean;
}

interface Group {
  readonly body: HTMLTableSectionElement;
  readonly names: string[];
}

/** What is shown: tags whose name, equipment, unit or state holds each word of `text`; or only those with trouble. */
export interface TagFilter {
  readonly text: string;
  readonly troubled: boolean;
}

/** The table of tags, grouped by equipment. Rows stay; only texts that changed are written. */
export class TagTable {
  readonly #table: HTMLTableElement;
  readonly #choose: (tag: string) => void;
  readonly #rows = new Map<string, Row>();
  #groups: Group[] = [];
  #known = "";
  #filter: TagFilter = { text: "", troubled: false };

  constructor(table: HTMLTableElement, choose: (tag: string) => void) {
    this.#table = table;
    this.#choose = choose;
    table.addEventListener("keydown", (event) => this.#moveBetweenRows(event));
  }

  /** Shows the tags with their states as of `nowMs`. */
  show(tags: readonly TagBody[], stateOf: (tag: TagBody) => TagState, nowMs: number): void {
    this.#layOut(tags);
    for (const tag of tags) this.#fill(this.#rows.get(tag.tag)!, tag, stateOf(tag), nowMs);
    this.#applyFilter();
  }

  /** Marks the row of the tag whose trend is shown. */
  mark(chosen: string | null): void {
    for (const [tag, { line, choose }] of this.#rows) {
      line.classList.toggle("chosen", tag === chosen);
      choose.setAttribute("aria-pressed", String(tag === chosen));
    }
  }

  /** Shows what the filter lets through; returns how many rows that is. */
  filter(filter: TagFilter): number {
    this.#filter = filter;
    return this.#applyFilter();
  }

  #layOut(tags: readonly TagBody[]): void {
    const known = JSON.stringify(
      tags.map(({ tag, equipment, unit, description }) => [tag, equipment, unit, description]),
    );
    if (known === this.#known) return;
    this.#known = known;
    this.#rows.clear();
    const byPlace = Map.groupBy(tags, (tag) => tag.equipment ?? `${tag.edge}/${tag.device}`);
    const places = [...byPlace.keys()].sort();
    this.#groups = places.map((place) => this.#group(place, byPlace.get(place)!));
    for (const old of this.#table.querySelectorAll("tbody")) old.remove();
    this.#table.append(...this.#groups.map(({ body }) => body));
  }

  #group(place: string, tags: readonly TagBody[]): Group {
    const parts = place.split("/");
    const sources = new Set(tags.map(({ edge, device }) => `${edge}.${device}`));
    const title = element(
      "th",
      "",
      ...parts.slice(0, -1).map((part) => element("span", "above", `${part} / `)),
      parts.at(-1)!,
    );
    title.append(element("span", "source", [...sources].join(", ")));
    title.colSpan = 5;
    title.scope = "rowgroup";
    const body = element("tbody", "", element("tr", "place", title));
    for (const tag of tags) {
      const row = this.#row(tag);
      this.#rows.set(tag.tag, row);
      body.append(row.line);
    }
    return { body, names: tags.map(({ tag }) => tag) };
  }

  #row(tag: TagBody): Row {
    const choose = element("button", "", tag.name);
    choose.type = "button";
    choose.title = tag.description ? `${tag.tag}: ${tag.description}` : tag.tag;
    const [name, value, age] = [element("th", "", choose), element("td", "number value"), element("td", "number age")];
    name.scope = "row";
    const quality = element("span", "badge");
    const line = element("tr", "", name, value, element("td", "unit", tag.unit ?? ""), age, element("td", "", quality));
    line.addEventListener("click", () => this.#choose(tag.tag));
    const search = [tag.tag, tag.equipment, tag.unit, tag.description].join(" ").toLowerCase();
    return { line, choose, value, age, quality, search, troubled: false };
  }

  #fill(row: Row, { latest, range }: TagBody, state: TagState, nowMs: number): void {
    // Where the last good value may no longer hold, no value is shown as if it did.
    const current = state.kind === "good" || state.kind === "uncertain";
    setText(row.value, current && latest ? formatValue(latest.value, range) : "—");
    row.value.title = latest === null ? "" : `${latest.value ?? "no value"} at ${latest.time}`;
    setText(row.age, latest === null ? "" : formatAge((nowMs - Date.parse(latest.time)) / 1000));
    setText(row.quality, state.label);
    row.quality.className = `badge ${state.kind}`;
    row.line.classList.toggle("out", !current);
    row.troubled = isTrouble(state);
  }

  #applyFilter(): number {
    const words = this.#filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { body, names } of this.#groups) {
      let here = 0;
      for (const name of names) {
        const row = this.#rows.get(name)!;
        const text = `${row.search} ${row.quality.textContent!.toLowerCase()}`;
        const hit = words.every((word) => text.includes(word)) && (!this.#filter.troubled || row.troubled);
        row.line.hidden = !hit;
        if (hit) here++;
      }
      body.hidden = here === 0;
      shown += here;
    }
    return shown;
  }

  /** Arrow keys go from tag to tag. */
  #moveBetweenRows(event: KeyboardEvent): void {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0) return;
    const buttons = [...this.#table.querySelectorAll<HTMLButtonElement>("tbody:not([hidden]) tr:not([hidden]) button")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (at === -1) return;
    event.preventDefault();
    buttons[at + step]?.focus();
  }
}
