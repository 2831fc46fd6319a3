import { PassThrough } from "node:stream";
import type { FastifyInstance } from "fastify";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ReadyReport } from "../../cloud/api/health.ts";
import { createApi } from "../../cloud/api/server.ts";
import type { Store } from "../../cloud/store/store.ts";
import { DataError, LinkError } from "../../protocols/errors.ts";
import { Quality } from "../../protocols/reading.ts";
import { Feeder, openTestApi, type TestApi } from "./api-plant.ts";

let api: TestApi;

beforeAll(async () => {
  api = await openTestApi();
  const map = {
    edge: "line-3",
    devices: [{ name: "drives", protocol: "modbus-tcp" }],
    tags: [{ device: "drives", name: "speed", kind: "number" as const }],
  };
  const feeder = new Feeder(api.store, map);
  await feeder.saveMap();
  const time = Date.now() * 1000 - 1_000_000;
  const gap = { device: "drives", tag: null, reason: "overflow" as const, from: time, to: null, detail: "full" };
  await feeder.write([{ tag: 0, time, value: 1480, quality: Quality.Good }], [gap]);
});

afterAll(() => api.close());

/** The real store, but for what `over` does instead; with the lines that the API logs. */
async function apiWith(
  over: Partial<Store>,
  ready: () => Promise<ReadyReport> = async () => ({ ok: true, checks: {} }),
): Promise<{ app: FastifyInstance; logged: Record<string, unknown>[] }> {
  const store = Object.assign(Object.create(api.store) as Store, bound(api.store), over);
  const sink = new PassThrough();
  const log = pino({ level: "debug" }, sink);
  const app = createApi({ store, log, metrics: new Registry(), ready, version: "1.2.3" });
  await app.ready();
  const logged: Record<string, unknown>[] = [];
  sink.on("data", (line) => logged.push(JSON.parse(String(line))));
  return { app, logged };
}

/** The store's methods, to be called on another object. */
function bound(store: Store): Partial<Store> {
  return {
    edges: () => store.edges(),
    tags: (filter) => store.tags(filter),
    tag: (name) => store.tag(name),
    readings: (name, range) => store.readings(name, range),
    gaps: (filter) => store.gaps(filter),
  };
}

const asked = [
  "/api/v1/edges",
  "/api/v1/tags",
  "/api/v1/tags/line-3.drives.speed",
  "/api/v1/tags/line-3.drives.speed/readings",
  "/api/v1/gaps",
];

describe("while the database is out of reach", () => {
  const lost = async () => {
    throw new LinkError("10.0.0.9:5432 does not answer");
  };

  test("every question gets 503 and when to ask again, and the log says it once", async () => {
    let down = true;
    const edges = () => (down ? lost() : api.store.edges());
    const { app, logged } = await apiWith({ edges, tags: lost, tag: lost, readings: lost, gaps: lost });
    try {
      for (const url of asked) {
        const response = await app.inject({ url });
        expect(response.statusCode).toBe(503);
        expect(response.headers["retry-after"]).toBe("5");
        expect(response.headers["content-type"]).toMatch(/^application\/problem\+json/);
        expect(response.json()).toMatchObject({ type: "urn:millrace:problem:database_unreachable", instance: url });
        expect(response.body).not.toContain("10.0.0.9");
      }
      await expect.poll(() => logged.filter(({ msg }) => msg === "answered")).toHaveLength(asked.length);
      expect(logged.filter(({ level }) => (level as number) >= 40)).toMatchObject([
        { reason: "10.0.0.9:5432 does not answer" },
      ]);
      down = false;
      expect((await app.inject("/api/v1/edges")).statusCode).toBe(200);
      await expect.poll(() => logged.some(({ msg }) => msg === "the database answers again")).toBe(true);
    } finally {
      await app.close();
    }
  });
});

describe("a fault of the service", () => {
  test.each([new Error("secret detail"), new DataError("secret detail")])(
    "is a 500 that tells nothing but the log's key",
    async (error) => {
      const { app, logged } = await apiWith({
        edges: async () => {
          throw error;
        },
      });
      try {
        const response = await app.inject({ url: "/api/v1/edges", headers: { "x-request-id": "shift-3" } });
        expect(response.statusCode).toBe(500);
        expect(response.json()).toMatchObject({ type: "urn:millrace:problem:internal", status: 500 });
        expect(response.json().detail).toContain("shift-3");
        expect(response.body).not.toContain("secret");
        expect(logged.find(({ level }) => level === 50)).toMatchObject({
          request: "shift-3",
          err: { message: "secret detail" },
        });
      } finally {
        await app.close();
      }
    },
  );
});

describe("every answer", () => {
  test("carries a request id: the client's own if it can stand in a log", async () => {
    const id = async (given?: string) =>
      (await api.app.inject({ url: "/health/live", headers: given === undefined ? {} : { "x-request-id": given } }))
        .headers["x-request-id"];
    expect(await id("order-17:a.b")).toBe("order-17:a.b");
    expect(await id()).toMatch(/^[0-9a-f-]{36}$/);
    expect(await id("no spaces, please")).toMatch(/^[0-9a-f-]{36}$/);
    expect(await id("x".repeat(200))).toMatch(/^[0-9a-f-]{36}$/);
  });

  test("of the API is not to be kept; what does not exist is a problem", async () => {
    expect((await api.app.inject("/api/v1/tags")).headers["cache-control"]).toBe("no-store");
    for (const [method, url] of [
      ["GET", "/api/v1/nothing"],
      ["POST", "/api/v1/tags"],
      ["DELETE", "/api/v1/edges"],
    ] as const) {
      const response = await api.app.inject({ method, url });
      expect(response.statusCode).toBe(404);
      expect(response.headers["content-type"]).toMatch(/^application\/problem\+json/);
      expect(response.json()).toMatchObject({ type: "urn:millrace:problem:unknown_route", instance: url });
      expect(response.headers["x-request-id"]).toBeTruthy();
    }
  });
});

describe("health", () => {
  test("live names the version", async () => {
    const response = await api.app.inject("/health/live");
    expect(response.json()).toEqual({ status: "ok", version: "1.2.3" });
  });

  test.each<[string, () => Promise<ReadyReport>, number, ReadyReport]>([
    [
      "ready",
      async () => ({ ok: true, checks: { database: { ok: true } } }),
      200,
      { ok: true, checks: { database: { ok: true } } },
    ],
    [
      "a part is not",
      async () => ({ ok: false, checks: { broker: { ok: false, detail: "not connected" } } }),
      503,
      { ok: false, checks: { broker: { ok: false, detail: "not connected" } } },
    ],
    [
      "the checks fail",
      () => Promise.reject(new LinkError("no way")),
      503,
      { ok: false, checks: { service: { ok: false, detail: "no way" } } },
    ],
    [
      "the checks hang",
      () => new Promise(() => undefined),
      503,
      { ok: false, checks: { service: { ok: false, detail: "no answer within 2 s" } } },
    ],
  ])("ready: %s", async (_case, ready, status, report) => {
    const { app } = await apiWith({}, ready);
    try {
      const response = await app.inject("/health/ready");
      expect(response.statusCode).toBe(status);
      expect(response.json()).toEqual(report);
    } finally {
      await app.close();
    }
  });
});

test("metrics are Prometheus text and time the requests by route, not by address", async () => {
  for (const url of [...asked, "/api/v1/tags/a.b.c", "/api/v1/tags/d.e.f", "/no/such/page"]) await api.app.inject(url);
  for (const url of ["/", "/console/main.ts"]) expect((await api.app.inject(url)).statusCode).toBe(200);
  const response = await api.app.inject("/metrics");
  expect(response.statusCode).toBe(200);
  expect(response.headers["content-type"]).toMatch(/^text\/plain; version=0\.0\.4/);
  const lines = response.body.split("\n").filter(Boolean);
  for (const line of lines) {
    expect(line).toMatch(
      /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.e]+|.*\+Inf.*)$/i,
    );
  }
  const counts = lines.filter((line) => line.startsWith("millrace_api_request_duration_seconds_count"));
  expect(counts).toContain(
    'millrace_api_request_duration_seconds_count{method="GET",route="/api/v1/tags/:tag",status="404"} 2',
  );
  expect(counts.some((line) => line.includes('route="none",status="404"'))).toBe(true);
  expect(response.body).not.toContain("a.b.c");
  expect(response.body).not.toMatch(/route="\/(console|")/);
});

describe("the OpenAPI document", () => {
  interface Operation {
    operationId: string;
    summary: string;
    tags: string[];
    parameters?: { name: string; description?: string; schema: object }[];
    responses: Record<string, { description: string; content?: Record<string, { schema: { $ref?: string } }> }>;
  }
  interface OpenApi {
    openapi: string;
    info: { version: string };
    paths: Record<string, Record<string, Operation>>;
    components: { schemas: Record<string, { examples?: unknown[] }> };
  }
  const load = async () => (await api.app.inject("/api/v1/openapi.json")).json<OpenApi>();

  test("describes every route of the service but the console's", async () => {
    const { openapi, info, paths } = await load();
    expect(openapi).toBe("3.1.0");
    expect(info.version).toBe("1.2.3");
    expect(Object.keys(paths).sort()).toEqual([
      "/api/v1/edges",
      "/api/v1/gaps",
      "/api/v1/openapi.json",
      "/api/v1/tags",
      "/api/v1/tags/{tag}",
      "/api/v1/tags/{tag}/readings",
      "/health/live",
      "/health/ready",
      "/metrics",
    ]);
  });

  test("each operation, parameter and answer is named and explained", async () => {
    const { paths, components } = await load();
    const operations = Object.values(paths).flatMap((path) => Object.values(path));
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
    for (const { operationId, summary, tags, parameters = [], responses } of operations) {
      expect(summary, operationId).toBeTruthy();
      expect(tags, operationId).toHaveLength(1);
      for (const { name, description } of parameters) expect(description, `${operationId} ${name}`).toBeTruthy();
      for (const [status, { description, content }] of Object.entries(responses)) {
        expect(description, `${operationId} ${status}`).not.toBe("Default Response");
        expect(Object.values(content ?? {}), `${operationId} ${status}`).toHaveLength(1);
      }
    }
    for (const path of asked.slice(0, 2))
      expect(Object.keys(paths[path]!.get!.responses)).toEqual(["200", "400", "500", "503"]);
    for (const [name, { examples }] of Object.entries(components.schemas)) {
      if (!name.endsWith("Page") && name !== "Stream" && name !== "ParameterError") expect(examples, name).toBeTruthy();
    }
  });

  test("every reference leads somewhere, and every schema is used", async () => {
    const document = await load();
    const text = JSON.stringify(document);
    const referred = new Set([...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name));
    expect([...referred].sort()).toEqual(Object.keys(document.components.schemas).sort());
    expect(text).not.toContain("__SCHEMA__");
  });

  test("each path answers as it says", async () => {
    const { paths } = await load();
    for (const [path, { get }] of Object.entries(paths)) {
      const response = await api.app.inject(path.replace("{tag}", "line-3.drives.speed"));
      expect(response.statusCode, path).toBe(200);
      const [type] = Object.keys(get!.responses["200"]!.content!);
      expect(response.headers["content-type"], path).toContain(type);
    }
  });
});

test("an API that listens closes with requests under way answered", async () => {
  const held = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  const { app } = await apiWith({
    edges: async () => {
      reached.resolve();
      await held.promise;
      return [];
    },
  });
  const address = await app.listen({ port: 0, host: "127.0.0.1" });
  const answer = fetch(`${address}/api/v1/edges`);
  await reached.promise;
  const closed = app.close();
  held.resolve();
  expect(await (await answer).json()).toEqual({ items: [], next: null });
  await closed;
  await expect(fetch(`${address}/api/v1/edges`)).rejects.toThrow();
});
