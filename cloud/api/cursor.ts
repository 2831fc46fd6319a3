import { createHash } from "node:crypto";
import type { z } from "zod";
import { invalidRequest, type ProblemError } from "./problem.ts";

/**
 * A cursor says where the next page of a query starts: base64url of a JSON array that opens with the digest of the
 * query it belongs to. Clients treat it as opaque; the digest is there to catch mistakes, not attacks.
 */
export function encodeCursor(url: string, position: readonly (string | number | null)[]): string {
  return Buffer.from(JSON.stringify([queryDigest(url), ...position])).toString("base64url");
}

/** @throws ProblemError when the text is no cursor, or one of another query */
export function decodeCursor<T>(url: string, cursor: string, schema: z.ZodType<T>): T {
  const [digest, ...position] = parseCursor(cursor);
  if (digest !== queryDigest(url)) {
    throw cursorProblem(
      "expected a cursor of this very query; this one was given for another path or other parameters",
    );
  }
  const parsed = schema.safeParse(position);
  if (!parsed.success) throw cursorProblem();
  return parsed.data;
}

function parseCursor(cursor: string): unknown[] {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    if (Array.isArray(parsed)) return parsed;
  } catch {
    // Not JSON: said below.
  }
  throw cursorProblem();
}

function cursorProblem(detail = "expected the text of `next` from the page before, unchanged"): ProblemError {
  return invalidRequest([{ in: "query", parameter: "cursor", detail }]);
}

/** Equal for all pages of one query: its path and its parameters as written, but for the page's position and size. */
function queryDigest(url: string): string {
  const { pathname, searchParams } = new URL(url, "http://localhost");
  searchParams.delete("cursor");
  searchParams.delete("limit");
  searchParams.sort();
  return createHash("sha256")
    .update(`${decodeURIComponent(pathname)}?${searchParams}`)
    .digest("base64url")
    .slice(0, 12);
}

/** The value of a `Link` header that leads to the next page. */
export function nextLink(url: string, cursor: string): string {
  const next = new URL(url, "http://localhost");
  next.searchParams.set("cursor", cursor);
  return `<${next.pathname}${next.search}>; rel="next"`;
}
