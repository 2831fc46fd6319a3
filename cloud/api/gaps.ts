import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { Micros } from "../../protocols/reading.ts";
import type { GapRow } from "../store/store.ts";
import { decodeCursor } from "./cursor.ts";
import { checkOrder } from "./readings.ts";
import { json, page, problems, type RouteOptions } from "./routes.ts";
import {
  cursorParameter,
  deviceParameter,
  edgeParameter,
  type GapBody,
  gapPage,
  limitParameter,
  overlapParameters,
  reasonParameter,
  tagNameParameter,
} from "./schemas.ts";
import { formatTime } from "./time.ts";

/** The query's `from` (it may have been relative to now), the start of the last gap shown, how many of that start were. */
const position = z.tuple([z.int().nullable(), z.int(), z.int().min(0).max(1_000_000)]);

/** `GET /api/v1/gaps` */
export const gapRoutes: FastifyPluginAsyncZod<RouteOptions> = async (app, { store }) => {
  app.get(
    "/api/v1/gaps",
    {
      schema: {
        operationId: "listGaps",
        tags: ["plant"],
        summary: "From when to when, and why, there is no data",
        description: "With `from=now` only the gaps that are open.",
        querystring: z.strictObject({
          edge: edgeParameter.optional(),
          device: deviceParameter.optional(),
          tag: tagNameParameter.optional(),
          reason: reasonParameter.optional(),
          ...overlapParameters,
          limit: limitParameter,
          cursor: cursorParameter,
        }),
        response: { 200: json("A page of gaps, the latest first.", gapPage), ...problems },
      },
    },
    async (request, reply) => {
      const { limit, cursor, ...filter } = request.query;
      const start = cursor === undefined ? null : decodeCursor(request.url, cursor, position);
      if (start) {
        filter.from = start[0] ?? undefined;
        filter.to = start[1] + 1;
      } else if (filter.from !== undefined && filter.to !== undefined) {
        checkOrder(filter.from, filter.to);
      }
      const skip = start?.[2] ?? 0;
      // One more than asked for tells whether there is a next page.
      const rows = await store.gaps({ ...filter, limit: skip + limit + 1 });
      const items = rows.slice(skip, skip + limit);
      const more = rows.length > skip + limit;
      return page(
        request,
        reply,
        items.map(gapBody),
        more ? positionAfter(rows.slice(0, skip + limit), filter.from) : null,
      );
    },
  );
};

/** The store gives the gaps in order of their start, latest first. */
function positionAfter(shown: readonly GapRow[], from: Micros | undefined): z.infer<typeof position> {
  const last = shown.at(-1)!.from;
  return [from ?? null, last, shown.filter((gap) => gap.from === last).length];
}

function gapBody({ edge, device, tag, reason, from, to, detail }: GapRow): GapBody {
  return { edge, device, tag, reason, from: formatTime(from), to: to === null ? null : formatTime(to), detail };
}
