import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { TagRow } from "../store/store.ts";
import { decodeCursor } from "./cursor.ts";
import { readingBody } from "./readings.ts";
import { json, noSuchTag, page, problems, type RouteOptions, unknownTag } from "./routes.ts";
import {
  cursorParameter,
  deviceParameter,
  edgeParameter,
  equipmentParameter,
  limitParameter,
  type TagBody,
  tag,
  tagPage,
  tagPath,
} from "./schemas.ts";

const position = z.tuple([z.string()]);

/** `GET /api/v1/tags` and `GET /api/v1/tags/{tag}` */
export const tagRoutes: FastifyPluginAsyncZod<RouteOptions> = async (app, { store }) => {
  app.get(
    "/api/v1/tags",
    {
      schema: {
        operationId: "listTags",
        tags: ["plant"],
        summary: "Tags with their latest reading",
        querystring: z.strictObject({
          edge: edgeParameter.optional(),
          device: deviceParameter.optional(),
          equipment: equipmentParameter.optional(),
          limit: limitParameter,
          cursor: cursorParameter,
        }),
        response: { 200: json("A page of tags, in order of their names.", tagPage), ...problems },
      },
    },
    async (request, reply) => {
      const { edge, device, equipment, limit, cursor } = request.query;
      const after = cursor === undefined ? undefined : decodeCursor(request.url, cursor, position)[0];
      // One more than asked for tells whether there is a next page.
      const rows = await store.tags({ edge, device, equipment, after, limit: limit + 1 });
      const items = rows.slice(0, limit);
      return page(request, reply, items.map(tagBody), rows.length > limit ? [items.at(-1)!.tag] : null);
    },
  );

  app.get(
    "/api/v1/tags/:tag",
    {
      schema: {
        operationId: "getTag",
        tags: ["plant"],
        summary: "One tag with its latest reading",
        params: tagPath,
        querystring: z.strictObject({}),
        response: { 200: json("The tag.", tag), ...problems, ...unknownTag },
      },
    },
    async (request) => {
      const row = await store.tag(request.params.tag);
      if (!row) throw noSuchTag(request.params.tag);
      return tagBody(row);
    },
  );
};

function tagBody(row: TagRow): TagBody {
  const { tag, edge, device, name, kind, description, unit, equipment, range, latest } = row;
  return {
    tag,
    edge,
    device,
    name,
    kind,
    description,
    unit,
    equipment,
    range: range && [...range],
    latest: latest && readingBody(latest),
  };
}
