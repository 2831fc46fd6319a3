import type { FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import type { Store } from "../store/store.ts";
import { encodeCursor, nextLink } from "./cursor.ts";
import { ProblemError, problem } from "./problem.ts";

/** What the plugins with the API's routes are given. */
export interface RouteOptions {
  readonly store: Store;
}

/** A documented JSON answer. */
export function json<T extends z.ZodType>(description: string, schema: T) {
  return { description, content: { "application/json": { schema } } };
}

function problemAnswer(description: string) {
  return { description, content: { "application/problem+json": { schema: problem } } };
}

/** The answers any route that asks the database may give instead of its own. */
export const problems = {
  400: problemAnswer("A parameter is wrong; `errors` names each one and says what to write instead."),
  500: problemAnswer("A fault of the service; its log has the cause under the request's id."),
  503: problemAnswer("The database does not answer, or not in time; ask again after `Retry-After` seconds."),
};

/** The answer for a tag that does not exist. */
export const unknownTag = { 404: problemAnswer("There is no such tag.") };

/** A page as it is answered; with the `Link` header to the next one when there is a next. */
export function page<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  items: T[],
  position: readonly (string | number | null)[] | null,
): { items: T[]; next: string | null } {
  if (position === null) return { items, next: null };
  const next = encodeCursor(request.url, position);
  reply.header("link", nextLink(request.url, next));
  return { items, next };
}

/** What is answered for a tag that the store does not know. */
export function noSuchTag(name: string): ProblemError {
  return new ProblemError("unknown_tag", `There is no tag ${name}; /api/v1/tags lists those there are.`);
}
