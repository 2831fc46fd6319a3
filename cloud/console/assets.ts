import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire, stripTypeScriptTypes } from "node:module";

/** A file of the console as it is served. */
export interface Asset {
  readonly url: string;
  readonly type: string;
  readonly etag: string;
  readonly body: Buffer;
}

const script = "text/javascript; charset=utf-8";
const style = "text/css; charset=utf-8";

const pages = new URL("./page/", import.meta.url);
const resolve = createRequire(import.meta.url).resolve;

/** Every file of the console: where it is served, where it stands, what it is. Nothing comes from another host. */
const files: readonly (readonly [url: string, path: string | URL, type: string])[] = [
  ["/", new URL("index.html", pages), "text/html; charset=utf-8"],
  ["/console/icon.svg", new URL("icon.svg", pages), "image/svg+xml"],
  ["/console/style.css", new URL("style.css", pages), style],
  ...["main", "service", "dom", "edges", "tags", "gaps", "trend", "series", "state", "format"].map(
    (name) => [`/console/${name}.ts`, new URL(`${name}.ts`, pages), script] as const,
  ),
  ["/console/uplot.js", resolve("uplot/dist/uPlot.esm.js"), script],
  ["/console/uplot.css", resolve("uplot/dist/uPlot.min.css"), style],
];

/** Reads the console's files; scripts in TypeScript lose their types on the way, and are JavaScript then. */
export function loadAssets(): Promise<Asset[]> {
  return Promise.all(
    files.map(async ([url, path, type]) => {
      const source = await readFile(path);
      const body = url.endsWith(".ts") ? Buffer.from(stripTypeScriptTypes(source.toString())) : source;
      const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 16)}"`;
      return { url, type, etag, body };
    }),
  );
}
