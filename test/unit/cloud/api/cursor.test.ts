import { describe, expect, test } from "vitest";
import { z } from "zod";
import { decodeCursor, encodeCursor, nextLink } from "../../../../cloud/api/cursor.ts";
import { ProblemError } from "../../../../cloud/api/problem.ts";

const position = z.tuple([z.string(), z.int()]);
const url = "/api/v1/tags?edge=line-3&limit=2";
const cursor = encodeCursor(url, ["line-3.a.b", 7]);

function mistake(given: string, ofUrl = url): string {
  try {
    decodeCursor(ofUrl, given, position);
  } catch (error) {
    if (error instanceof ProblemError) return error.message;
    throw error;
  }
  return "none";
}

describe("a cursor", () => {
  test("gives back its position, and is fit for a URL", () => {
    expect(decodeCursor(url, cursor, position)).toEqual(["line-3.a.b", 7]);
    expect(cursor).toMatch(/^[A-Za-z0-9_-]+$/);
  });

  test.each([
    "/api/v1/tags?limit=50&edge=line-3",
    `/api/v1/tags?edge=line-3&cursor=${cursor}`,
    "/api/v1/tags?edge=line%2D3",
  ])("belongs to %s too: the same query", (same) => {
    expect(decodeCursor(same, cursor, position)).toEqual(["line-3.a.b", 7]);
  });

  test.each([
    "/api/v1/tags",
    "/api/v1/tags?edge=line-4",
    "/api/v1/gaps?edge=line-3",
    "/api/v1/tags?edge=line-3&device=a",
  ])("does not belong to %s", (other) => {
    expect(mistake(cursor, other)).toMatch(/^cursor: expected a cursor of this very query/);
  });

  test.each(["", "x", "%%%", "bnVsbA", "e30", "W10", Buffer.from('["",1]').toString("base64url"), cursor.slice(0, -3)])(
    "is not %j",
    (given) => {
      expect(mistake(given)).toMatch(/^cursor: expected/);
    },
  );

  test("whose position has another form is refused", () => {
    expect(mistake(encodeCursor(url, ["a"]))).toMatch(/unchanged/);
    expect(mistake(encodeCursor(url, ["a", 1.5]))).toMatch(/unchanged/);
  });

  test("stands in the link to the next page in place of the one before", () => {
    expect(nextLink("/api/v1/tags?cursor=old&limit=2", "new")).toBe('</api/v1/tags?cursor=new&limit=2>; rel="next"');
  });
});
