import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";

/** The project's folder. */
export const root = fileURLToPath(new URL("../../../", import.meta.url));

/** A service of the compose file, in the notation that ours is written in. */
export interface ComposeService {
  readonly image: string;
  readonly build?: string;
  readonly user?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** `source:target` or `source:target:ro` */
  readonly volumes?: readonly string[];
  readonly tmpfs?: readonly string[];
  readonly networks: readonly string[];
  /** `address:port:container port` */
  readonly ports?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly restart?: string;
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
}

export interface ComposeFile {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly networks: Readonly<Record<string, unknown>>;
}

/** Reads docker-compose.yml as it stands: its `${…}` are not resolved. */
export function readCompose(): ComposeFile {
  return parse(readFileSync(`${root}docker-compose.yml`, "utf8"), { merge: true }) as ComposeFile;
}

/** `${NAME}`, `${NAME:-default}` and `${NAME:?message}` */
const reference = /(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}/g;

/** A variable that the compose file takes from .env. */
export interface ComposeVariable {
  readonly name: string;
  /** Compose refuses to start when it is empty. */
  readonly required: boolean;
}

/** The variables in a text of the compose file. */
export function variablesIn(text: string): ComposeVariable[] {
  return [...text.matchAll(reference)].map(([, name, kind]) => ({ name: name!, required: kind === "?" }));
}

/** Resolves the `${…}` of a text as Compose does. */
export function resolved(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(reference, (_, name: string, kind: string | undefined, rest: string | undefined) => {
    const value = env[name] ?? "";
    if (value === "" && kind === "?") throw new Error(`${name}: ${rest}`);
    return value === "" && kind === "-" ? rest! : value;
  });
}

/** What a service's environment is, with the given .env. */
export function environmentOf(service: ComposeService, env: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(service.environment ?? {}).map(([name, value]) => [name, resolved(value, env)]),
  );
}

/** The file of this project that a service sees at a path. */
export function mountedAt({ volumes = [] }: ComposeService, path: string): string {
  const mount = volumes.map((volume) => volume.split(":")).find(([, target]) => target === path);
  if (mount === undefined) throw new Error(`nothing is mounted at ${path}`);
  return `${root}${mount[0]!.replace(/^\.\//, "")}`;
}

/** The instructions of the Dockerfile's last stage, continued lines joined: `["COPY", "config config"]`. */
export function readDockerfile(): { base: string; instructions: readonly (readonly [string, string])[] }[] {
  const text = readFileSync(`${root}Dockerfile`, "utf8")
    .replaceAll(/^#.*\n/gm, "")
    .replaceAll(/\\\n\s*/g, "");
  const stages: { base: string; instructions: [string, string][] }[] = [];
  for (const line of text.split("\n").filter((each) => each.trim() !== "")) {
    const [, instruction, rest] = /^([A-Z]+)\s+(.*)$/.exec(line.trim()) ?? [];
    if (instruction === "FROM") stages.push({ base: rest!.split(" ")[0]!, instructions: [] });
    else stages.at(-1)!.instructions.push([instruction!, rest!]);
  }
  return stages;
}

/** The variables that the image sets. */
export function imageEnvironment(): Record<string, string> {
  const settings = readDockerfile()
    .at(-1)!
    .instructions.filter(([instruction]) => instruction === "ENV");
  return Object.fromEntries(settings.map(([, setting]) => setting.split("=", 2) as [string, string]));
}

/** The command by which the image says whether it is healthy. */
export function healthCommand(): string[] {
  const check = readDockerfile()
    .at(-1)!
    .instructions.find(([instruction]) => instruction === "HEALTHCHECK");
  const [, command] = /CMD (\[.*\])$/.exec(check?.[1] ?? "") ?? [];
  if (command === undefined) throw new Error("the Dockerfile has no HEALTHCHECK … CMD [ … ]");
  return JSON.parse(command) as string[];
}
