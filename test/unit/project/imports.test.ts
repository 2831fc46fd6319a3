import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** Folder → the other folders of ours that it may import from. */
const allowed: Record<string, readonly string[]> = {
  protocols: [],
  config: ["protocols"],
  edge: ["config", "protocols"],
  cloud: ["config", "protocols"],
  simulators: [],
};
/** The registry alone knows the protocol folders; they know what stands beside it, and never each other. */
const registry = "protocols/registry.ts";

interface Import {
  readonly from: string;
  readonly to: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), "utf8");
  const specifiers = [
    ...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g),
    ...text.matchAll(/new URL\("(\.[^"]+\.ts)"/g),
  ];
  return specifiers.map((match) => ({ from: file, to: relative(root, join(root, dirname(file), match[1]!)) }));
}

const files = Object.keys(allowed).flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: root }));
const imports = files.flatMap(importsOf);
const top = (path: string) => path.split("/")[0]!;
const show = ({ from, to }: Import) => `${from} imports ${to}`;

describe("imports", () => {
  it("were found, so that the rules below say something", () => {
    expect(imports.length).toBeGreaterThan(100);
  });

  it("go from folder to folder only where the architecture has a line", () => {
    const wrong = imports.filter(({ from, to }) => top(to) !== top(from) && !allowed[top(from)]!.includes(top(to)));
    expect(wrong.map(show), "see `allowed` in this test, and the map in README.md").toEqual([]);
  });

  it("never lead from one protocol's folder into another's", () => {
    const protocolOf = (path: string) => /^protocols\/([^/]+)\//.exec(path)?.[1];
    const wrong = imports.filter(({ from, to }) => {
      const target = protocolOf(to);
      return from.startsWith("protocols/") && from !== registry && target !== undefined && target !== protocolOf(from);
    });
    expect(wrong.map(show), "what two protocols share belongs beside registry.ts").toEqual([]);
  });

  it("load a protocol's driver and its libraries only when a device uses it", () => {
    const text = readFileSync(join(root, registry), "utf8");
    expect(text).not.toMatch(/^import .* from "\.\/\w+\/(driver|plan)\.ts"/m);
  });
});

describe("the layout", () => {
  it("has no file named for nothing", () => {
    const named = globSync("{protocols,config,edge,cloud,simulators,test}/**/*.{ts,tsx}", { cwd: root });
    expect(named.filter((file) => /(^|\/)(utils?|helpers?|managers?|misc|common)\b/i.test(file))).toEqual([]);
  });

  it("constructs nothing and keeps no state outside of main.ts: no module-level variables that change", () => {
    const changing = files.filter((file) => /^(export )?let /m.test(readFileSync(join(root, file), "utf8")));
    // A worker's own file is a main of its own.
    expect(
      changing.filter((file) => !/(thread|worker)\.ts$/.test(file) && !file.startsWith("cloud/console/page")),
    ).toEqual([]);
  });
});
