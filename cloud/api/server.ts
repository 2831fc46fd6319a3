import { randomUUID } from "node:crypto";
import swagger from "@fastify/swagger";
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyRequest, LogController } from "fastify";
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import { z } from "zod";
import { consoleRoutes } from "../console/routes.ts";
import type { Store } from "../store/store.ts";
import { edgeRoutes } from "./edges.ts";
import { gapRoutes } from "./gaps.ts";
import { healthRoutes, type ReadyReport } from "./health.ts";
import { metricsRoute, requestDuration } from "./metrics.ts";
import { openapiOptions } from "./openapi.ts";
import { ProblemError, problemHandler, sendProblem } from "./problem.ts";
import { readingRoutes } from "./readings.ts";
import { json } from "./routes.ts";
import { tagRoutes } from "./tags.ts";

export interface ApiOptions {
  readonly store: Store;
  readonly log: Logger;
  /** Where the API's metrics are registered, and whose metrics `/metrics` shows. */
  readonly metrics: Registry;
  readonly ready: () => Promise<ReadyReport>;
  /** Version of Millrace. */
  readonly version: string;
}

/** Requests carry no bodies yet. */
const bodyLimitBytes = 64 * 1024;
/** For a request to arrive, and for it to be answered. */
const requestTimeoutMs = 30_000;
/** Three names of 64 characters and two dots, with room for the mistake to be named rather than "no such page". */
const maxParamLength = 1000;

/**
 * The HTTP API under `/api/v1`, health, metrics, and the console at `/`. The caller calls `listen` and `close`; `close`
 * answers the requests under way and leaves the store open.
 */
export function createApi({ store, log, metrics, ready, version }: ApiOptions): FastifyInstance {
  const problems = problemHandler(log);
  const app = Fastify({
    loggerInstance: log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: "request" }),
    genReqId: (request) => requestId(request.headers["x-request-id"]),
    bodyLimit: bodyLimitBytes,
    requestTimeout: requestTimeoutMs,
    handlerTimeout: requestTimeoutMs,
    routerOptions: { maxParamLength },
    frameworkErrors: (error, request, reply) => problems.handle(error, request, reply),
  }).withTypeProvider<ZodTypeProvider>();

  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(problems.handle);
  app.setNotFoundHandler((request, reply) => sendProblem(request, reply, noSuchRoute(request)));
  observeRequests(app, metrics);

  app.register(swagger, openapiOptions(version));
  app.register(async (api) => {
    api.addHook("onRequest", async (_request, reply) => void reply.header("cache-control", "no-store"));
    api.addHook("onResponse", async (_request, reply) => {
      if (reply.statusCode === 200) problems.databaseAnswered();
    });
    api.register(edgeRoutes, { store });
    api.register(tagRoutes, { store });
    api.register(readingRoutes, { store });
    api.register(gapRoutes, { store });
  });
  app.register(healthRoutes, { ready, version });
  app.register(metricsRoute, { registry: metrics });
  app.register(openapiRoute);
  app.register(consoleRoutes);
  return app as unknown as FastifyInstance;
}

/** Every answer names its request, and is timed and logged. */
function observeRequests(app: FastifyInstance, metrics: Registry): void {
  const duration = requestDuration(metrics);
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id).header("x-content-type-options", "nosniff");
  });
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "none";
    // The console's files are no questions to the service: a label for each of them would only be in the way.
    const isConsole = route === "/" || route.startsWith("/console/");
    if (!isConsole)
      duration.observe({ method: request.method, route, status: String(reply.statusCode) }, reply.elapsedTime / 1000);
    request.log.debug(
      { method: request.method, url: request.url, status: reply.statusCode, ms: reply.elapsedTime },
      "answered",
    );
  });
}

/** A client's own request id, when it is one that can stand in a log; otherwise a new one. */
function requestId(given: string | string[] | undefined): string {
  return typeof given === "string" && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
}

function noSuchRoute(request: FastifyRequest): ProblemError {
  const path = request.url.split("?", 1)[0];
  return new ProblemError(
    "unknown_route",
    `There is no ${request.method} ${path}; /api/v1/openapi.json lists what there is.`,
  );
}

async function openapiRoute(instance: FastifyInstance): Promise<void> {
  const app = instance.withTypeProvider<ZodTypeProvider>();
  app.get(
    "/api/v1/openapi.json",
    {
      schema: {
        operationId: "getOpenapi",
        tags: ["operation"],
        summary: "This document",
        response: { 200: json("The OpenAPI 3.1 document of this API.", z.record(z.string(), z.unknown())) },
      },
    },
    async () => ({ ...app.swagger() }),
  );
}
