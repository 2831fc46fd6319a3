import { parse } from "node:path";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { consoleRoutes } from "../../cloud/console/routes.ts";

let app: FastifyInstance;

beforeAll(async () => {
  app = Fastify();
  app.register(consoleRoutes);
  await app.ready();
});

afterAll(() => app.close());

/** Every address that the page, its styles and its scripts load, found by following them from `/`. */
async function loaded(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const queue = ["/"];
  for (let url = queue.pop(); url !== undefined; url = queue.pop()) {
    if (found.has(url)) continue;
    const { statusCode, body } = await app.inject(url);
    expect(statusCode, url).toBe(200);
    found.set(url, body);
    const links = url === "/" ? body.matchAll(/(?:src|href)="(\/console\/[^"]+)"/g) : importsOf(url, body);
    for (const [, link] of links) queue.push(new URL(link!, `http://localhost${url}`).pathname);
  }
  return found;
}

function importsOf(url: string, body: string): Iterable<RegExpMatchArray> {
  return parse(url).ext === ".ts" ? body.matchAll(/^(?:import|\} from|export) [^"]*"(\.[^"]+)"/gm) : [];
}

describe("the console", () => {
  test("serves the page and all it loads, each as what it is", async () => {
    const files = await loaded();
    expect([...files.keys()].sort()).toEqual([
      "/",
      ...[
        "dom.ts",
        "edges.ts",
        "format.ts",
        "gaps.ts",
        "icon.svg",
        "main.ts",
        "series.ts",
        "service.ts",
        "state.ts",
      ].map((name) => `/console/${name}`),
      ...["style.css", "tags.ts", "trend.ts", "uplot.css", "uplot.js"].map((name) => `/console/${name}`),
    ]);
    const types: Record<string, string> = {
      "": "text/html; charset=utf-8",
      ".ts": "text/javascript; charset=utf-8",
      ".js": "text/javascript; charset=utf-8",
      ".css": "text/css; charset=utf-8",
      ".svg": "image/svg+xml",
    };
    for (const url of files.keys()) {
      const { headers } = await app.inject(url);
      expect(headers["content-type"], url).toBe(types[parse(url).ext]);
    }
  });

  test("scripts are JavaScript, types and all traces of them gone", async () => {
    for (const [url, body] of await loaded()) {
      if (parse(url).ext !== ".ts") continue;
      expect(body, url).not.toMatch(/import type|interface /);
      expect(() => compile(body), url).not.toThrow();
    }
    expect(() => compile("const x: number = 1;")).toThrow(SyntaxError);
  });

  test("allows nothing from elsewhere, no script in the page, no frame around it", async () => {
    for (const [url, body] of await loaded()) {
      const { headers } = await app.inject(url);
      const policy = String(headers["content-security-policy"]);
      expect(policy, url).toContain("default-src 'none'");
      expect(policy, url).toContain("script-src 'self'");
      expect(policy, url).toContain("frame-ancestors 'none'");
      expect(policy, url).not.toContain("unsafe");
      if (url === "/") {
        expect(body).not.toMatch(/<script(?![^>]* src=)/);
        expect(body).not.toMatch(/ style=| on[a-z]+=/);
      }
      if (!url.startsWith("/console/uplot") && !url.endsWith(".svg")) expect(body, url).not.toMatch(/https?:\/\//);
    }
  });

  test("is not sent again when the browser has it", async () => {
    for (const url of (await loaded()).keys()) {
      const first = await app.inject(url);
      const again = await app.inject({ url, headers: { "if-none-match": String(first.headers.etag) } });
      expect(again.statusCode, url).toBe(304);
      expect(again.body).toBe("");
      expect(first.headers["cache-control"]).toBe("no-cache");
    }
  });
});

/** Throws where the text is no JavaScript; what only a module may say is left out first. */
function compile(text: string): void {
  const statements = text.replace(/^import [^;]*;/gm, "").replace(/^export /gm, "");
  new Function(`return async () => { ${statements} }`);
}
