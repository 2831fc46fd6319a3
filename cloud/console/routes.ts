import type { FastifyInstance } from "fastify";
import { loadAssets } from "./assets.ts";

/** The page may load and ask only what this service serves, and runs no script that stands in the page itself. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** The console: the page at `/` and its parts under `/console/`. */
export async function consoleRoutes(app: FastifyInstance): Promise<void> {
  for (const { url, type, etag, body } of await loadAssets()) {
    app.get(url, { schema: { hide: true } }, async (request, reply) => {
      reply
        .header("content-security-policy", contentSecurityPolicy)
        .header("referrer-policy", "no-referrer")
        .header("cache-control", "no-cache")
        .header("etag", etag);
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      return reply.type(type).send(body);
    });
  }
}
