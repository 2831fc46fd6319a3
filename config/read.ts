import { readFileSync } from "node:fs";
import type { Environment } from "./load.ts";
import type { Problems } from "./problem.ts";
import type { Node } from "./tree.ts";
import { readYaml } from "./yaml.ts";

/**
 * Reads a configuration file to the tree that its schema is held against.
 * @returns undefined when there is none, which is added to `problems`
 */
export function readTree(file: string, _env: Environment, problems: Problems): Node | undefined {
  const text = readText(file, problems);
  return text === undefined ? undefined : readYaml(text, file, problems);
}

/** Reads a file of UTF-8 text, without its byte order mark. */
export function readText(file: string, problems: Problems): string | undefined {
  const start = { file, line: 1, column: 1 };
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    problems.add(start, "", unreadable(error));
    return undefined;
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    problems.add(start, "", "not UTF-8 text; save the file in the encoding UTF-8");
    return undefined;
  }
}

/** Why a file cannot be read, and what to do about it. */
export function unreadable(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return "no such file; create it, or correct the path";
  if (code === "EISDIR") return "a folder, not a file; name the file in it";
  if (code === "EACCES" || code === "EPERM") return "may not be read by this user; change the file's owner or mode";
  return `cannot be read (${code ?? String(error)})`;
}
