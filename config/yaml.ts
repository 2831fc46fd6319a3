import {
  type Alias,
  type Document,
  type ErrorCode,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Pair,
  type ParsedNode,
  parseAllDocuments,
  Scalar,
  visit,
} from "yaml";
import type { Place, Problems } from "./problem.ts";
import type { Entry, MapNode, Node } from "./tree.ts";

/** Anchors can be nested so that a small file says billions of values; no honest file comes near this many. */
const maxAliasedValues = 500_000;
const maxDepth = 100;
/** One wrong bracket makes dozens of errors; the first few tell all. */
const maxSyntaxErrors = 10;

/**
 * Reads one YAML 1.2 document (core schema). Anchors, aliases and merge keys (`<<`) are followed; a value behind an
 * alias keeps the place of its anchor, and where it is used.
 * @returns undefined when the file has no content or is not YAML, which is added to `problems`
 */
export function readYaml(text: string, file: string, problems: Problems): Node | undefined {
  const lines = new LineCounter();
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  // Duplicate keys are found in `map` below: the library compares each key with every other.
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: false,
    version: "1.2",
  });
  const documents: Document.Parsed[] = "empty" in parsed ? [] : parsed;

  const [document, second] = documents;
  if (!document || (document.contents as unknown) === null) {
    const start = placeOf(0);
    problems.add(start, "", "the file says nothing; write at least what a configuration needs (see config/examples)");
    return undefined;
  }
  if (syntaxErrors(documents, text, placeOf, problems)) return undefined;
  if (second) {
    const at = placeOf(second.range[0]);
    problems.add(at, "", 'a second document begins here ("---"); write one document per file');
  }
  if (document.directives?.yaml.explicit && document.directives.yaml.version !== "1.2") {
    problems.add(placeOf(0), "", "YAML 1.1 is asked for; remove the %YAML line (values are read as YAML 1.2)");
  }
  const converter = new Converter(placeOf, problems);
  const root = converter.node(document.contents as ParsedNode, [], undefined);
  if (!converter.overgrown) return root;
  const message = `aliases (*) multiply to more than ${maxAliasedValues} values; write fewer of them`;
  problems.add(converter.overgrown, "", message);
  return undefined;
}

function syntaxErrors(
  documents: readonly Document.Parsed[],
  text: string,
  placeOf: (offset: number) => Place,
  problems: Problems,
): boolean {
  const lines = new Set<number>();
  for (const document of documents) {
    for (const { code, message, pos } of [...document.errors, ...document.warnings]) {
      // `{ port: ${env:PORT} }`: braces inside braces.
      const bareInterpolation = text[pos[0]] === "{" && text[pos[0] - 1] === "$";
      const at = placeOf(
        code === "MISSING_CHAR" ? openingQuote(document, pos[0]) : pos[0] - (bareInterpolation ? 1 : 0),
      );
      if (lines.has(at.line) || lines.size >= maxSyntaxErrors) continue;
      lines.add(at.line);
      const plain = `not YAML: ${message.replaceAll(/\s+/g, " ").trim()}`;
      const remedy = bareInterpolation
        ? 'inside { } and [ ] an interpolation needs quotes; write "${…}"'
        : remedies[code];
      problems.add(at, "", remedy ?? plain);
    }
  }
  return lines.size > 0;
}

const remedies: Partial<Record<ErrorCode, string>> = {
  BAD_INDENT:
    "wrong indentation, or a bracket that is not closed above; align this line with its neighbours, or close the bracket",
  BAD_SCALAR_START: "a plain value cannot begin with this character; put the value in quotes",
  BLOCK_AS_IMPLICIT_KEY:
    "a second colon in one value, or wrong indentation below; put the value in quotes, or align the lines",
  MISSING_CHAR: "a quote opens here and never closes; close it",
  RESOURCE_EXHAUSTION: "nested too deep to be read; write it flatter",
  TAB_AS_INDENT: "a tab as indentation; indent with spaces",
  TAG_RESOLVE_FAILED: "an unknown tag (!); remove it, or put a text that begins with ! in quotes",
};

/** Where the quoted text begins that has no end at an offset. */
function openingQuote(document: Document.Parsed, end: number): number {
  let start = end;
  visit(document, {
    Scalar(_, node) {
      const quoted = node.type === Scalar.QUOTE_DOUBLE || node.type === Scalar.QUOTE_SINGLE;
      if (quoted && node.range && node.range[0] < end && node.range[1] >= end) start = node.range[0];
    },
  });
  return start;
}

/** Turns the library's tree into ours. */
class Converter {
  readonly #placeOf: (offset: number) => Place;
  readonly #problems: Problems;
  readonly #anchors = new Map<string, ParsedNode>();
  /** What each alias stood for when it was first met: an anchor may be set anew further down. */
  readonly #targets = new Map<ParsedNode, ParsedNode | undefined>();
  #aliased = 0;
  /** Where the aliases became too many, if they did. */
  overgrown: Place | undefined;

  constructor(placeOf: (offset: number) => Place, problems: Problems) {
    this.#placeOf = placeOf;
    this.#problems = problems;
  }

  /**
   * @param above the nodes around this one, outermost first
   * @param usedAt the place of the alias that leads here
   */
  node(node: ParsedNode, above: readonly ParsedNode[], usedAt: Place | undefined): Node {
    const at = this.#place(node.range[0], usedAt);
    if (usedAt && ++this.#aliased > maxAliasedValues) {
      this.overgrown ??= at;
      return { kind: "unknown", at, messages: [] };
    }
    if (above.length > maxDepth) {
      return { kind: "unknown", at, messages: [`nested more than ${maxDepth} levels deep; write it flatter`] };
    }
    if (isAlias(node)) return this.#alias(node, above, usedAt);
    if (node.anchor && !usedAt) this.#anchors.set(node.anchor, node);
    if (isMap<ParsedNode, ParsedNode | null>(node)) return this.#map(node.items, at, [...above, node], usedAt);
    if (isSeq<ParsedNode>(node)) {
      const inside = [...above, node];
      return { kind: "list", at, items: node.items.map((item) => this.node(item, inside, usedAt)) };
    }
    const quoted = node.type !== undefined && node.type !== Scalar.PLAIN;
    return { kind: "scalar", at, value: node.value, text: quoted ? String(node.value) : (node.source ?? ""), quoted };
  }

  #place(offset: number, usedAt: Place | undefined): Place {
    const at = this.#placeOf(offset);
    return usedAt ? { ...at, usedAt } : at;
  }

  #alias(alias: Alias.Parsed, above: readonly ParsedNode[], usedAt: Place | undefined): Node {
    const at = this.#place(alias.range[0], usedAt);
    if (!this.#targets.has(alias)) this.#targets.set(alias, this.#anchors.get(alias.source));
    const target = this.#targets.get(alias);
    if (!target || above.includes(target)) {
      const what = target ? "contains itself" : "has no anchor before it";
      const message = `*${alias.source} ${what}; write the value out, or set &${alias.source} on one above`;
      return { kind: "unknown", at, messages: [message] };
    }
    return this.node(target, [...above, alias], at);
  }

  #map(
    pairs: readonly Pair<ParsedNode, ParsedNode | null>[],
    at: Place,
    above: readonly ParsedNode[],
    usedAt: Place | undefined,
  ): MapNode {
    const entries = new Map<string, Entry>();
    const merged: Node[] = [];
    for (const { key, value } of pairs) {
      const keyAt = this.#place(key.range[0], usedAt);
      if (!isScalar(key)) {
        this.#problems.add(keyAt, "", "a key that is no plain name; write a word before the colon");
        continue;
      }
      const name = key.type === Scalar.PLAIN ? (key.source ?? "") : String(key.value);
      const node: Node = value
        ? this.node(value, above, usedAt)
        : { kind: "scalar", at: keyAt, value: null, text: "", quoted: false };
      const before = entries.get(name);
      if (name === "<<") merged.push(node);
      else if (before)
        this.#problems.add(
          keyAt,
          "",
          `duplicate key "${name}"; it is on line ${before.keyAt.line} already, remove one`,
        );
      else entries.set(name, { keyAt, value: node });
    }
    for (const node of merged) this.#merge(node, entries);
    return { kind: "map", at, entries };
  }

  /** The keys of `<<: *anchor` or `<<: [*a, *b]` that the mapping does not have itself; the earlier one wins. */
  #merge(node: Node, entries: Map<string, Entry>): void {
    for (const source of node.kind === "list" ? node.items : [node]) {
      if (source.kind === "map") {
        for (const [key, entry] of source.entries) if (!entries.has(key)) entries.set(key, entry);
      } else if (source.kind === "unknown") {
        for (const message of source.messages) this.#problems.add(source.at, "", message);
      } else {
        this.#problems.add(source.at, "", '"<<" merges mappings; write an alias of one, such as "<<: *defaults"');
      }
    }
  }
}

/** What a plain scalar of YAML 1.2's core schema means (YAML 1.2.2, 10.3.2). */
export function coreValue(text: string): string | number | boolean | null {
  if (/^(~|null|Null|NULL|)$/.test(text)) return null;
  if (/^(true|True|TRUE)$/.test(text)) return true;
  if (/^(false|False|FALSE)$/.test(text)) return false;
  if (/^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$/.test(text)) return Number(text);
  if (/^(0o[0-7]+|0x[0-9a-fA-F]+)$/.test(text)) return Number(text);
  if (/^[-+]?\.(inf|Inf|INF)$/.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  if (/^\.(nan|NaN|NAN)$/.test(text)) return Number.NaN;
  return text;
}
