import type { FastifyDynamicSwaggerOptions } from "@fastify/swagger";
import { jsonSchemaTransform, jsonSchemaTransformObject } from "fastify-type-provider-zod";
import type { OpenAPIV3_1 } from "openapi-types";

/** How the OpenAPI document is made from the routes and their schemas. */
export function openapiOptions(version: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Millrace",
        version,
        description:
          "The plant's data: tags and their readings, the gaps in them with the reason for each, and the account of what every edge has delivered. Times are RFC 3339 in UTC, to the microsecond. Lists come in pages: follow `next`, or the `Link` header, until it is null. Every error is a problem document (RFC 9457).",
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      tags: [
        { name: "plant", description: "Edges, tags, readings and gaps." },
        { name: "operation", description: "Health, metrics and this document." },
      ],
    },
    transform: jsonSchemaTransform,
    transformObject: (document) => finish(jsonSchemaTransformObject(document) as OpenAPIV3_1.Document),
  };
}

const requestIdHeader = {
  description: "Names the request in the service's log; the request's own `x-request-id` where it had a usable one.",
  schema: { type: "string" as const },
};
const retryAfterHeader = {
  description: "Seconds after which to ask again.",
  schema: { type: "integer" as const },
};
const linkHeader = {
  description: 'The address of the next page, as `<…>; rel="next"`; absent on the last page.',
  schema: { type: "string" as const },
};

/** Adds the headers to each answer, and drops the schemas that nothing refers to. */
function finish(document: OpenAPIV3_1.Document): OpenAPIV3_1.Document {
  for (const path of Object.values(document.paths ?? {})) {
    const responses = (path?.get?.responses ?? {}) as Record<string, OpenAPIV3_1.ResponseObject>;
    for (const [status, response] of Object.entries(responses)) {
      const isPage = path?.get?.parameters?.some((parameter) => "name" in parameter && parameter.name === "cursor");
      response.headers = {
        "x-request-id": requestIdHeader,
        ...(isPage && status === "200" && { link: linkHeader }),
        ...(response.content?.["application/problem+json"] && status === "503" && { "retry-after": retryAfterHeader }),
      };
    }
  }
  return { ...document, components: { ...document.components, schemas: referredSchemas(document) } };
}

/** The registry of schemas is one for the program: keep those that the paths need, and those these need in turn. */
function referredSchemas(document: OpenAPIV3_1.Document): Record<string, OpenAPIV3_1.SchemaObject> {
  const all = document.components?.schemas ?? {};
  const kept: Record<string, OpenAPIV3_1.SchemaObject> = {};
  const queue = [JSON.stringify(document.paths)];
  for (let text = queue.pop(); text !== undefined; text = queue.pop()) {
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      const schema = name && all[name];
      if (!schema || kept[name]) continue;
      kept[name] = schema;
      queue.push(JSON.stringify(schema));
    }
  }
  return kept;
}
