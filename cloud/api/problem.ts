import type { FastifyBaseLogger, FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors, type ZodFastifySchemaValidationError } from "fastify-type-provider-zod";
import { z } from "zod";
import { LinkError, messageOf } from "../../protocols/errors.ts";

/** The kinds of problem this API reports; `type` in the answer is `urn:millrace:problem:<kind>`. */
const kinds = {
  invalid_request: { status: 400, title: "The request has a mistake" },
  unknown_tag: { status: 404, title: "There is no such tag" },
  unknown_route: { status: 404, title: "There is no such page" },
  body_too_large: { status: 413, title: "The request's body is too large" },
  path_too_long: { status: 414, title: "The request's path is too long" },
  internal: { status: 500, title: "The service has failed" },
  database_unreachable: { status: 503, title: "The database is out of reach" },
  too_slow: { status: 503, title: "The answer took too long" },
} as const;
export type ProblemKind = keyof typeof kinds;

/** How long a client does well to wait before it asks again, in seconds. */
const retryAfterSeconds = 5;

export const parameterError = z
  .object({
    in: z.enum(["path", "query", "body"]).describe("Where the parameter stands."),
    parameter: z.string().describe("Its name."),
    detail: z.string().describe("What to write instead."),
  })
  .meta({ id: "ParameterError" });
export type ParameterError = z.infer<typeof parameterError>;

export const problem = z
  .object({
    type: z.string().describe("What kind of problem it is, for programs."),
    title: z.string().describe("The kind in words; always the same for one `type`."),
    status: z.int().describe("The HTTP status code."),
    detail: z.string().describe("What went wrong this time, and what to do."),
    instance: z.string().describe("The request: its path and query."),
    errors: z.array(parameterError).optional().describe("Each mistake in the request, all at once."),
  })
  .meta({
    id: "Problem",
    description: "Every error has this form (RFC 9457).",
    examples: [
      {
        type: "urn:millrace:problem:invalid_request",
        title: "The request has a mistake",
        status: 400,
        detail: "limit: expected a whole number from 1 to 10000",
        instance: "/api/v1/tags?limit=0",
        errors: [{ in: "query", parameter: "limit", detail: "expected a whole number from 1 to 10000" }],
      },
    ],
  });
export type Problem = z.infer<typeof problem>;

/** An error whose answer is decided where it is thrown. */
export class ProblemError extends Error {
  override name = "ProblemError";
  readonly kind: ProblemKind;
  readonly errors: readonly ParameterError[] | undefined;

  constructor(kind: ProblemKind, detail: string, errors?: readonly ParameterError[]) {
    super(detail);
    this.kind = kind;
    this.errors = errors;
  }
}

/** Answers with a problem. Usable where hooks do not run: it sets every header it needs. */
export function sendProblem(request: FastifyRequest, reply: FastifyReply, error: ProblemError): FastifyReply {
  const { status, title } = kinds[error.kind];
  const body: Problem = {
    type: `urn:millrace:problem:${error.kind}`,
    title,
    status,
    detail: error.message,
    instance: request.url,
    ...(error.errors && { errors: [...error.errors] }),
  };
  if (status === 503) reply.header("retry-after", retryAfterSeconds);
  return reply
    .code(status)
    .header("x-request-id", request.id)
    .header("cache-control", "no-store")
    .type("application/problem+json")
    .send(body);
}

/**
 * Turns whatever was thrown into a problem. That the database is out of reach is logged once for each time it goes,
 * not for each request; `databaseAnswered` tells when it is back.
 */
export function problemHandler(log: FastifyBaseLogger) {
  let databaseLost = false;

  function handle(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    if (error instanceof ProblemError) return sendProblem(request, reply, error);
    if (error instanceof LinkError) {
      if (!databaseLost) log.warn({ reason: messageOf(error), request: request.id }, "the database is out of reach");
      databaseLost = true;
      return sendProblem(request, reply, databaseUnreachable());
    }
    if (hasZodFastifySchemaValidationErrors(error)) {
      return sendProblem(request, reply, invalidRequest(mistakesOf(error, request)));
    }
    const { statusCode = 500, code = "", message = "" } = error as Partial<FastifyError>;
    if (code === "FST_ERR_HANDLER_TIMEOUT") return sendProblem(request, reply, tooSlow());
    if (statusCode >= 400 && statusCode < 500) {
      return sendProblem(request, reply, new ProblemError(...(refusals[code] ?? ["invalid_request", message])));
    }
    request.log.error({ err: error }, "the request has failed");
    return sendProblem(request, reply, internal(request));
  }

  return {
    handle,
    databaseAnswered(): void {
      if (databaseLost) log.info("the database answers again");
      databaseLost = false;
    },
  };
}

/** What the server refuses before a route sees it, by its code, in words of ours. */
const refusals: Readonly<Record<string, readonly [ProblemKind, string]>> = {
  FST_ERR_BAD_URL: [
    "invalid_request",
    'The path is not percent-encoded UTF-8; write "%25" for the character % itself.',
  ],
  FST_ERR_MAX_PARAM_LENGTH: ["path_too_long", "No name is as long as a part of this path."],
  FST_ERR_CTP_BODY_TOO_LARGE: ["body_too_large", "Requests to this service carry no body."],
};

function databaseUnreachable(): ProblemError {
  return new ProblemError(
    "database_unreachable",
    "The data is safe; the database does not answer now. Ask again later.",
  );
}

function tooSlow(): ProblemError {
  return new ProblemError("too_slow", "Ask for a shorter time, or with a smaller limit.");
}

function internal(request: FastifyRequest): ProblemError {
  return new ProblemError(
    "internal",
    `This is a fault of the service. Its log has the cause under request ${request.id}.`,
  );
}

/** What the validator throws, as far as it is used here. */
type ValidationFailure = Pick<FastifyError, "validationContext"> & {
  validation: readonly ZodFastifySchemaValidationError[];
};

const places: Record<string, ParameterError["in"]> = { params: "path", querystring: "query", body: "body" };

/** A 400 that names each parameter at fault and what to write instead. */
export function invalidRequest(errors: readonly ParameterError[]): ProblemError {
  const detail = errors.map((error) => `${error.parameter}: ${error.detail}`).join("; ");
  return new ProblemError("invalid_request", detail, errors);
}

function mistakesOf(error: ValidationFailure, request: FastifyRequest): ParameterError[] {
  const place = places[error.validationContext ?? ""] ?? "query";
  return error.validation.flatMap(({ keyword, instancePath, message, params }): ParameterError[] =>
    keyword === "unrecognized_keys"
      ? (params.keys as string[]).map((parameter) => ({ in: place, parameter, detail: knownParameters(request) }))
      : [{ in: place, parameter: instancePath.slice(1), detail: `expected ${message}` }],
  );
}

function knownParameters(request: FastifyRequest): string {
  const schema = request.routeOptions.schema?.querystring;
  const names = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
  return names.length > 0 ? `no such parameter here; there are ${names.join(", ")}` : "no parameter is taken here";
}
