import { ConfigError } from "../protocols/errors.ts";

/** A place in a file; lines and columns are counted from 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** For a place in a template or an anchor: where that is used. */
  readonly usedAt?: Place;
}

/** One mistake in a file, and what to write instead. */
export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Where in the configuration, such as `devices[drives].tags[speed].register`; "" for the file as a whole. */
  readonly path: string;
  readonly message: string;
}

/** Every mistake of a configuration file; the message has one line for each: `file:line:column path: message`. */
export class ConfigFileError extends ConfigError {
  override name = "ConfigFileError";
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(problems.map(lineOf).join("\n"));
    this.problems = problems;
  }
}

function lineOf({ file, line, column, path, message }: Problem): string {
  return `${file}:${line}:${column} ${path === "" ? "" : `${path}: `}${message}`;
}

/**
 * Gathers the mistakes of one file. The same mistake at the same place is said once, however often the template or
 * anchor around it is used.
 */
export class Problems {
  readonly #file: string;
  readonly #missing: Problems;
  readonly #found = new Map<string, { at: Place; path: string; message: string; uses: number }>();

  /**
   * @param file the configuration file, whose problems come before those of the files that it names
   * @param missing where to note what only this machine lacks, if that is no mistake
   */
  constructor(file: string, missing?: Problems) {
    this.#file = file;
    this.#missing = missing ?? this;
  }

  /** Adds that this machine lacks what the file refers to: a variable, a file. */
  addMissing(at: Place, path: string, message: string): void {
    this.#missing.add(at, path, message);
  }

  add(at: Place, path: string, message: string): void {
    const key = `${at.file}:${at.line}:${at.column} ${message}`;
    const known = this.#found.get(key);
    if (known) known.uses++;
    else this.#found.set(key, { at, path, message, uses: 1 });
  }

  /** In the order of file, line and column. */
  list(): Problem[] {
    const files = [...new Set([this.#file, ...[...this.#found.values()].map(({ at }) => at.file)])];
    return [...this.#found.values()]
      .sort(
        ({ at: a }, { at: b }) =>
          files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line || a.column - b.column,
      )
      .map(({ at, path, message, uses }) => ({
        file: at.file,
        line: at.line,
        column: at.column,
        path,
        message: message + usesOf(at, uses),
      }));
  }

  get empty(): boolean {
    return this.#found.size === 0;
  }

  /** @throws ConfigFileError when there is any */
  throwIfAny(): void {
    if (!this.empty) throw new ConfigFileError(this.list());
  }
}

function usesOf(at: Place, uses: number): string {
  const chain: string[] = [];
  for (let place = at.usedAt; place; place = place.usedAt) chain.push(`${place.file}:${place.line}:${place.column}`);
  if (chain.length === 0) return "";
  return ` (used at ${chain.join(", from ")}${uses > 1 ? `, and ${uses - 1} more` : ""})`;
}
