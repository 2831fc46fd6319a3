import { readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { CsvError, parse } from "csv-parse/sync";
import { unreadable, utf8 } from "./file.ts";
import type { Place, Problems } from "./problem.ts";
import { child, type Entry, type MapNode, type Node, type ScalarNode } from "./tree.ts";
import { coreValue } from "./yaml.ts";

/**
 * A device with the tags of its CSV file (`tags_from: drives.csv`) after those in its `tags`.
 *
 * The first line names the fields of a tag; an empty cell is a field that is not given; a range is written `0..100`.
 * Cells are separated by the one of `,` `;` and tab that the first line has most of, and may be quoted. A cell is read
 * as YAML would read it, or as text where the schema takes only that. The column of a problem counts characters.
 * @param folder what the file's path is relative to
 */
export function withTagsFrom(device: MapNode, folder: string, problems: Problems): MapNode {
  const from = device.entries.get("tags_from");
  if (!from) return device;
  const entries = new Map([...device.entries].filter(([key]) => key !== "tags_from"));
  const listed = child(device, "tags");
  const read = tagsFrom(from.value, folder, problems);
  // `tags` that are no list stay, for the schema to complain about.
  const tags =
    listed && listed.kind !== "list" ? listed : (read.unknown ?? listOf(from.value.at, listed?.items, read.tags));
  entries.set("tags", { keyAt: from.keyAt, value: tags });
  return { ...device, entries };
}

function listOf(at: Place, listed: readonly Node[] = [], read: readonly Node[] = []): Node {
  return { kind: "list", at, items: [...listed, ...read] };
}

interface Read {
  readonly tags?: readonly MapNode[];
  /** In the tags' stead when there are none to be had. */
  readonly unknown?: Node;
}

function tagsFrom(node: Node, folder: string, problems: Problems): Read {
  if (node.kind === "unknown") return { unknown: node };
  const unknown = (message: string): Read => ({ unknown: { kind: "unknown", at: node.at, messages: [message] } });
  if (node.kind !== "scalar" || typeof node.value !== "string" || node.value === "") {
    return unknown("tags_from names no file; write the path of a CSV file, such as drives.csv");
  }
  const file = isAbsolute(node.value) ? node.value : join(folder, node.value);
  try {
    const rows = new CsvFile(file, utf8(readFileSync(file))).rows();
    return rows.length > 0
      ? { tags: tagsOf(rows, problems) }
      : unknown(`${file} says nothing; write a first line that names the fields`);
  } catch (error) {
    if (!(error instanceof CsvProblem)) return unknown(`${file}: ${unreadable(error)}`);
    problems.add(error.at, "", error.message);
    return { unknown: { kind: "unknown", at: node.at, messages: [] } };
  }
}

interface Cell {
  readonly text: string;
  readonly at: Place;
}

class CsvProblem extends Error {
  readonly at: Place;

  constructor(at: Place, message: string) {
    super(message);
    this.at = at;
  }
}

/** The cells of a CSV file with their places. */
class CsvFile {
  readonly #file: string;
  readonly #bytes: Buffer;
  #line = 1;
  #lineStart = 0;
  #offset = 0;

  constructor(file: string, text: string) {
    this.#file = file;
    this.#bytes = Buffer.from(text);
  }

  /** The rows with any content, header first. @throws CsvProblem */
  rows(): Cell[][] {
    // Where the next cell begins: the parser tells only where each one ends.
    let start = 0;
    try {
      const rows = parse(this.#bytes, {
        delimiter: this.#delimiter(),
        relax_column_count: true,
        skip_empty_lines: true,
        trim: true,
        cast: (text, context): unknown => {
          const at = this.#place(start, context.index === 0);
          start = context.bytes + 1;
          return { text, at } satisfies Cell;
        },
      }) as unknown as Cell[][];
      return rows.filter((row) => row.some(({ text }) => text !== ""));
    } catch (error) {
      if (!(error instanceof CsvError)) throw error;
      throw new CsvProblem(this.#place(start, false), remedies[error.code] ?? error.message);
    }
  }

  #delimiter(): string {
    const firstLine = /^[^\r\n]*/.exec(this.#bytes.toString())?.[0] ?? "";
    const count = (delimiter: string) => firstLine.split(delimiter).length;
    return [",", ";", "\t"].reduce((best, delimiter) => (count(delimiter) > count(best) ? delimiter : best));
  }

  /** The place of the cell that begins at or after an offset. Called for cells in their order. */
  #place(from: number, firstOfRow: boolean): Place {
    let start = from;
    const skipped = firstOfRow ? " \t\r\n" : " ";
    while (start < this.#bytes.length && skipped.includes(String.fromCharCode(this.#bytes[start]!))) start++;
    for (; this.#offset < start; this.#offset++) {
      if (this.#bytes[this.#offset] !== 0x0a) continue;
      this.#line++;
      this.#lineStart = this.#offset + 1;
    }
    const column = this.#bytes.toString("utf8", this.#lineStart, start).length + 1;
    return { file: this.#file, line: this.#line, column };
  }
}

const remedies: Partial<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: 'a quote (") opens here and never closes; close it, or double it ("") within a quoted cell',
  INVALID_OPENING_QUOTE: 'a quote (") within a cell; put the whole cell in quotes and double the one inside ("")',
  CSV_INVALID_CLOSING_QUOTE:
    'text after a closing quote ("); put the whole cell in quotes and double the one inside ("")',
  CSV_NON_TRIMABLE_CHAR_AFTER_CLOSING_QUOTE:
    'text after a closing quote ("); put the whole cell in quotes and double the one inside ("")',
};

function tagsOf([header, ...rows]: readonly Cell[][], problems: Problems): MapNode[] {
  const columns = new Map<string, Place>();
  for (const { text, at } of header!) {
    const first = columns.get(text);
    if (first && text !== "") problems.add(at, "", `a second column "${text}"; remove one`);
    else columns.set(text, at);
  }
  return rows.map((row) => {
    const entries = new Map<string, Entry>();
    row.forEach((cell, index) => {
      const name = header![index]?.text ?? "";
      if (cell.text === "") return;
      if (name === "")
        problems.add(cell.at, "", `"${cell.text}" stands in a column without a name; name it in the first line`);
      else entries.set(name, { keyAt: header![index]!.at, value: cellValue(cell) });
    });
    return { kind: "map", at: row[0]!.at, entries };
  });
}

/** Quotes say nothing of a cell's type, because spreadsheets set them as they please: the schema chooses. */
function cellValue({ text, at }: Cell): ScalarNode {
  const range = /^([-+]?[\d.]+?)\s*\.\.\s*([-+]?\d[\d.]*)$/.exec(text);
  const bounds = range ? [[coreValue(range[1]!), coreValue(range[2]!)]] : [];
  const candidates = [coreValue(text), ...bounds, text];
  return { kind: "scalar", at, value: candidates[0], text, quoted: false, candidates };
}
