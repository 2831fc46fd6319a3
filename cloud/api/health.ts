import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import { messageOf } from "../../protocols/errors.ts";
import { json } from "./routes.ts";

/** Whether the service can do its work now, and what each part it depends on says. */
export interface ReadyReport {
  readonly ok: boolean;
  /** By name of the part: `database`, `broker`. */
  readonly checks: Readonly<Record<string, { readonly ok: boolean; readonly detail?: string }>>;
}

/** After this time without an answer from the checks the service counts as not ready. */
const readyTimeoutMs = 2000;

const live = z
  .object({ status: z.literal("ok"), version: z.string().describe("Version of Millrace.") })
  .meta({ id: "Live", examples: [{ status: "ok", version: "0.1.0" }] });

const readyReport = z
  .object({
    ok: z.boolean(),
    checks: z
      .record(z.string(), z.object({ ok: z.boolean(), detail: z.string().optional() }))
      .describe("Each part the service depends on, by name."),
  })
  .meta({
    id: "ReadyReport",
    examples: [{ ok: false, checks: { database: { ok: true }, broker: { ok: false, detail: "not connected" } } }],
  });

export interface HealthOptions {
  readonly ready: () => Promise<ReadyReport>;
  readonly version: string;
}

/** `GET /health/live` and `GET /health/ready`, for supervisors and load balancers. */
export const healthRoutes: FastifyPluginAsyncZod<HealthOptions> = async (app, { ready, version }) => {
  app.get(
    "/health/live",
    {
      schema: {
        operationId: "getLive",
        tags: ["operation"],
        summary: "The process is alive",
        description: "Answers as long as the process can answer at all; it asks nothing else.",
        response: { 200: json("Alive.", live) },
      },
    },
    async () => ({ status: "ok" as const, version }),
  );

  app.get(
    "/health/ready",
    {
      schema: {
        operationId: "getReady",
        tags: ["operation"],
        summary: "The service can do its work",
        description: `Asks each part the service depends on, for at most ${readyTimeoutMs / 1000} s.`,
        response: { 200: json("Ready.", readyReport), 503: json("Not ready; `checks` says why.", readyReport) },
      },
    },
    async (_request, reply) => {
      const report = await reportOf(ready);
      reply.code(report.ok ? 200 : 503);
      return { ok: report.ok, checks: { ...report.checks } };
    },
  );
};

async function reportOf(ready: () => Promise<ReadyReport>): Promise<ReadyReport> {
  const late = Promise.withResolvers<ReadyReport>();
  const timer = setTimeout(() => late.resolve(failed(`no answer within ${readyTimeoutMs / 1000} s`)), readyTimeoutMs);
  try {
    return await Promise.race([ready(), late.promise]);
  } catch (error) {
    return failed(messageOf(error));
  } finally {
    clearTimeout(timer);
  }
}

function failed(detail: string): ReadyReport {
  return { ok: false, checks: { service: { ok: false, detail } } };
}
