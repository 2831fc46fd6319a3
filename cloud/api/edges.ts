import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { EdgeRow } from "../store/store.ts";
import { json, page, problems, type RouteOptions } from "./routes.ts";
import { type EdgeBody, edgePage } from "./schemas.ts";
import { formatTime } from "./time.ts";

/** `GET /api/v1/edges` */
export const edgeRoutes: FastifyPluginAsyncZod<RouteOptions> = async (app, { store }) => {
  app.get(
    "/api/v1/edges",
    {
      schema: {
        operationId: "listEdges",
        tags: ["plant"],
        summary: "Edges, and whether their data is whole",
        description:
          "All edge agents that were ever heard of, with the account of each stream: which frames arrived, and which are missing. There is always one page.",
        querystring: z.strictObject({}),
        response: { 200: json("All edges, in order of their names.", edgePage), ...problems },
      },
    },
    async (request, reply) => page(request, reply, (await store.edges()).map(edgeBody), null),
  );
};

function edgeBody(row: EdgeRow): EdgeBody {
  return {
    edge: row.edge,
    site: row.site,
    first_seen: formatTime(row.firstSeen),
    last_frame_at: row.lastFrameAt === null ? null : formatTime(row.lastFrameAt),
    frames: row.frames,
    whole: row.streams.every(({ missing }) => missing.length === 0),
    streams: row.streams.map(({ stream, frames, lastSeq, missing }) => ({
      stream,
      frames,
      last_seq: lastSeq,
      whole: missing.length === 0,
      missing: missing.map(([from, to]) => [from, to]),
    })),
  };
}
