import { spawn } from "node:child_process";
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readDockerfile, root } from "./rig/compose.ts";

/**
 * What the Dockerfile copies, in a folder of its own with the production dependencies alone, as the image holds it: is it
 * enough to run, and does it write only where the image lets it?
 */
let folder: string;
let app: string;
let before: string[];

/** The sources of the COPY instructions that copy from the project. */
const copied = readDockerfile()
  .flatMap(({ instructions }) => instructions)
  .filter(([instruction, rest]) => instruction === "COPY" && !rest.startsWith("--from"))
  .flatMap(([, rest]) => rest.split(" ").slice(0, -1));

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-image-"));
  app = join(folder, "app");
  for (const source of copied) cpSync(join(root, source), join(app, source), { recursive: true });
  for (const name of ["home", "tmp", "data"]) mkdirSync(join(folder, name));
  installProduction();
  before = contents();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** As `npm ci --omit=dev`, by links to what is installed already. */
function installProduction(): void {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  const production = Object.entries(lock.packages).filter(
    ([path, { dev, optional }]) => /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) && !dev && !optional,
  );
  for (const [path] of production) {
    mkdirSync(dirname(join(app, path)), { recursive: true });
    symlinkSync(join(root, path), join(app, path));
  }
}

/** What is in the places that the image does not let be written. */
function contents(): string[] {
  return globSync(["app/**/*", "home/**/*", "home/.*"], { cwd: folder, exclude: ["app/node_modules/*/**"] }).sort();
}

function run(args: readonly string[]) {
  return spawn(process.execPath, ["millrace.ts", ...args], {
    cwd: app,
    env: { PATH: process.env.PATH, HOME: join(folder, "home"), TMPDIR: join(folder, "tmp") },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Runs a command to its end, or until it has printed something; then asks it to stop. */
async function output(args: readonly string[], until?: RegExp, then?: (found: RegExpExecArray) => Promise<void>) {
  const child = run(args);
  let text = "";
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const printed = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        if (until?.test(text)) resolve();
      });
    }
  });
  try {
    await Promise.race([ended, printed]);
    const found = until?.exec(text);
    if (found) await then?.(found);
  } finally {
    child.kill("SIGTERM");
  }
  return { code: await ended, text };
}

describe("what the Dockerfile copies", () => {
  it("is let in by .dockerignore, which lets in nothing else", () => {
    const lines = readFileSync(join(root, ".dockerignore"), "utf8").split("\n");
    const rules = lines.filter((line) => line !== "" && !line.startsWith("#"));
    expect(rules[0]).toBe("*");
    expect(rules.slice(1).sort()).toEqual([...new Set(copied)].map((path) => `!${path}`).sort());
  });

  it("is enough for the commands that end by themselves", async () => {
    const { code, text } = await output(["--help"]);
    expect(text).toContain("Usage: millrace");
    expect(code).toBe(0);
    expect(await output(["schema", "edge"])).toMatchObject({ code: 0 });
  });

  it("is enough to run plant, broker, cloud and edge, which write nothing but to /data and /tmp", async () => {
    const ready = /Console {3}(\S+)\n/;
    const { code, text } = await output(
      ["demo", "--port", "0", "--data", join(folder, "data")],
      ready,
      async (found) => {
        const page = await (await fetch(found[1]!)).text();
        const parts = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, path]) => new URL(path!, found[1]).href);
        expect(parts.length).toBeGreaterThan(1);
        for (const part of parts) expect((await fetch(part)).status, part).toBe(200);
      },
    );
    expect(text).toMatch(ready);
    expect(code).toBe(0);
    expect(contents()).toEqual(before);
  });
});
