import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { Histogram, type Registry } from "prom-client";
import { z } from "zod";
import { problems } from "./routes.ts";

export interface MetricsOptions {
  readonly registry: Registry;
}

/** `GET /metrics`, all metrics of the registry as Prometheus text. */
export const metricsRoute: FastifyPluginAsyncZod<MetricsOptions> = async (app, { registry }) => {
  app.get(
    "/metrics",
    {
      schema: {
        operationId: "getMetrics",
        tags: ["operation"],
        summary: "Metrics for Prometheus",
        response: {
          200: {
            description: "The metrics, in Prometheus' text format.",
            content: {
              "text/plain": {
                schema: z.string().meta({
                  examples: [
                    'millrace_api_request_duration_seconds_count{method="GET",route="/api/v1/tags",status="200"} 42',
                  ],
                }),
              },
            },
          },
          500: problems[500],
        },
      },
      // The text goes out as it is: the serializer would quote it.
      serializerCompiler: () => (body) => (typeof body === "string" ? body : JSON.stringify(body)),
    },
    async (_request, reply) => {
      const text = await registry.metrics();
      return reply.type(registry.contentType).send(text);
    },
  );
};

/** Registers the API's own metric: how long requests took, by route, method and status. */
export function requestDuration(registry: Registry): Histogram<"method" | "route" | "status"> {
  return new Histogram({
    name: "millrace_api_request_duration_seconds",
    help: "Time from the arrival of an HTTP request to its answer, in seconds, by route, method and status",
    labelNames: ["method", "route", "status"],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    registers: [registry],
  });
}
