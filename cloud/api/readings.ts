import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { now } from "../../protocols/reading.ts";
import type { ReadingRange, StoredReading } from "../store/store.ts";
import { decodeCursor } from "./cursor.ts";
import { invalidRequest } from "./problem.ts";
import { severityOf, statusName } from "./quality.ts";
import { json, noSuchTag, page, problems, type RouteOptions, unknownTag } from "./routes.ts";
import { cursorParameter, limitParameter, type ReadingBody, readingPage, spanParameters, tagPath } from "./schemas.ts";
import { formatTime } from "./time.ts";

const hour = 3_600_000_000;

/** The bounds stand in the cursor, so that all pages of a query with `now` or `-1 h` cover the same time. */
const position = z.tuple([z.int(), z.int(), z.int(), z.int().min(0), z.int().min(0)]);

/** `GET /api/v1/tags/{tag}/readings` */
export const readingRoutes: FastifyPluginAsyncZod<RouteOptions> = async (app, { store }) => {
  app.get(
    "/api/v1/tags/:tag/readings",
    {
      schema: {
        operationId: "listReadings",
        tags: ["plant"],
        summary: "A tag's readings in a span of time",
        description:
          "In order of their time; readings of equal time in the order in which they arrived. Following `next` to its end gives each reading once. A reading that arrives later than the page it belongs to is not in the pages after it.",
        params: tagPath,
        querystring: z.strictObject({
          ...spanParameters,
          limit: limitParameter,
          cursor: cursorParameter,
        }),
        response: { 200: json("A page of readings.", readingPage), ...problems, ...unknownTag },
      },
    },
    async (request, reply) => {
      const { tag } = request.params;
      const range = rangeOf(request.url, request.query);
      const { readings, next } = await store.readings(tag, range);
      // Only an empty answer leaves it open whether there is such a tag at all.
      if (readings.length === 0 && !(await store.tag(tag))) throw noSuchTag(tag);
      const nextPosition = next && [range.from, range.to, next.time, next.frameId, next.skip];
      return page(request, reply, readings.map(readingBody), nextPosition);
    },
  );
};

function rangeOf(url: string, query: { from?: number; to?: number; limit: number; cursor?: string }): ReadingRange {
  const { limit } = query;
  if (query.cursor !== undefined) {
    const [from, to, time, frameId, skip] = decodeCursor(url, query.cursor, position);
    return { from, to, limit, after: { time, frameId, skip } };
  }
  const to = query.to ?? now();
  const from = query.from ?? to - hour;
  checkOrder(from, to);
  return { from, to, limit };
}

/** @throws ProblemError when the span ends before it starts */
export function checkOrder(from: number, to: number): void {
  if (from <= to) return;
  const detail = `expected a time not after to, which is ${formatTime(to)}; this is ${formatTime(from)}`;
  throw invalidRequest([{ in: "query", parameter: "from", detail }]);
}

/** A reading as the API shows it. */
export function readingBody({ time, value, quality }: StoredReading): ReadingBody {
  return {
    time: formatTime(time),
    value,
    quality: { severity: severityOf(quality), code: quality, name: statusName(quality) },
  };
}
