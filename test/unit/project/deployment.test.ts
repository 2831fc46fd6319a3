import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { check } from "../../../config/check.ts";
import { loadCloud, loadEdge } from "../../../config/load.ts";
import {
  environmentOf,
  mountedAt,
  readCompose,
  readDockerfile,
  resolved,
  root,
  variablesIn,
} from "../../integration/rig/compose.ts";

const compose = readCompose();
const services = Object.entries(compose.services);
const ours = services.filter(([, { build }]) => build !== undefined);
const stages = readDockerfile();
const image = stages.at(-1)!.instructions;
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  dependencies: Record<string, string>;
};
const example = readFileSync(join(root, "deploy/.env.example"), "utf8");
const composeText = readFileSync(join(root, "docker-compose.yml"), "utf8");
const required = new Set(variablesIn(composeText).flatMap(({ name, required }) => (required ? [name] : [])));
/** An .env that is filled in. */
const filled = Object.fromEntries([...required].map((name) => [name, "secret"]));

/** Services with the configuration file of ours that they are started with. */
const configured = ours.flatMap(([name, service]) => {
  const path = service.command?.find((argument) => argument.endsWith(".yaml"));
  return path ? [{ name, service, file: mountedAt(service, path) }] : [];
});

describe("docker-compose.yml", () => {
  it("runs the database, the broker, the cloud service, an edge and the simulators", () => {
    expect(services.map(([name]) => name).sort()).toEqual(["cloud", "edge", "mosquitto", "simulators", "timescaledb"]);
    expect(ours.map(([name]) => name).sort()).toEqual(["cloud", "edge", "simulators"]);
    expect(configured.map(({ name }) => name).sort()).toEqual(["cloud", "edge"]);
  });

  it.each(services)("mounts for %s only what there is", (_, { volumes = [], networks }) => {
    for (const [source] of volumes.map((volume) => volume.split(":"))) {
      if (source!.startsWith("./")) expect(existsSync(join(root, source!)), source).toBe(true);
      else expect(compose.volumes).toHaveProperty(source!);
    }
    for (const network of networks) expect(compose.networks).toHaveProperty(network);
  });

  it.each(services)("mounts the files of %s to be read only", (_, { volumes = [] }) => {
    for (const volume of volumes.filter((each) => each.startsWith("./"))) expect(volume).toMatch(/:ro$/);
  });

  it.each(configured)("gives $name each variable that its file names, and no other", ({ file, service }) => {
    const named = [...readFileSync(file, "utf8").matchAll(/\$\{env:(\w+)\}/g)].map(([, name]) => name!);
    const given = Object.keys(service.environment ?? {}).filter((name) => name !== "MILLRACE_HEALTH_URL");
    expect(given.sort()).toEqual([...new Set(named)].sort());
  });

  it.each(configured)("gives $name a file that loads with them", async ({ file, service }) => {
    const { text, ok } = await check([file], environmentOf(service, filled));
    expect(ok, text).toBe(true);
  });

  it("lets the broker know the cloud service and each edge, and the cloud service each edge", () => {
    const cloudService = configured.find(({ name }) => name === "cloud")!;
    const edgeService = configured.find(({ name }) => name === "edge")!;
    const cloud = loadCloud(cloudService.file, environmentOf(cloudService.service, filled));
    const edge = loadEdge(edgeService.file, environmentOf(edgeService.service, filled));
    const users = compose.services.mosquitto!.environment!.MOSQUITTO_USERS!.trim().split("\n");
    const names = users.map((line) => line.split(":")[0]);
    expect(cloud.edges.map(({ name }) => name)).toEqual([edge.edge]);
    expect(names).toEqual([cloud.broker.user, edge.edge]);
    expect(readFileSync(mountedAt(compose.services.mosquitto!, "/mosquitto/config/mosquitto.acl"), "utf8")).toContain(
      `\nuser ${cloud.broker.user}\n`,
    );
    // Who logs in with a password is who the broker knows by it.
    const passwordOf = (user: string) => users.find((line) => line.startsWith(`${user}:`))!.slice(user.length + 1);
    expect(passwordOf("cloud")).toBe(cloudService.service.environment!.MILLRACE_CLOUD_PASSWORD);
    expect(passwordOf(edge.edge)).toBe(edgeService.service.environment!.MILLRACE_EDGE_PASSWORD);
  });

  it("holds no password, and does not start without one", () => {
    const asked = /^\$\{MILLRACE_\w+_PASSWORD:\?copy deploy\/\.env\.example to \.env and fill it in\}$/;
    for (const [service, { environment = {} }] of services) {
      for (const [name, value] of Object.entries(environment)) {
        if (/PASSWORD|SECRET|TOKEN/.test(name)) expect(value, `${name} of ${service}`).toMatch(asked);
        if (URL.canParse(value)) expect(new URL(value).password, `${name} of ${service}`).toBe("");
      }
    }
    for (const line of compose.services.mosquitto!.environment!.MOSQUITTO_USERS!.trim().split("\n"))
      expect(line.replace(/^[\w-]+:/, "")).toMatch(asked);
    for (const name of required) expect(() => resolved(composeText, { ...filled, [name]: "" })).toThrow(name);
  });

  it("takes from .env what deploy/.env.example shows, where passwords are empty", () => {
    const settings = [...example.matchAll(/^(# )?([A-Z_]+)=(.*)$/gm)];
    const shown = (optional: boolean) => settings.filter(([, mark]) => (mark !== undefined) === optional);
    expect(shown(false).map(([, , name]) => name)).toEqual([...required]);
    for (const [, , name, value] of shown(false)) expect(value, name).toBe("");
    const optional = new Set(variablesIn(composeText).flatMap(({ name, required }) => (required ? [] : [name])));
    expect(new Set(shown(true).map(([, , name]) => name))).toEqual(optional);
    expect(readFileSync(join(root, ".gitignore"), "utf8").split("\n")).toContain(".env");
  });

  it.each(services)("pins the image of %s", (_, service) => {
    expect(service.image).toMatch(/^[\w/-]+:\d+\.\d+\.\d+(-pg\d+)?$/);
    if (service.build) expect(service.image).toBe(`millrace:${manifest.version}`);
  });

  it.each(ours)("runs %s with no right that it does not need", (_, service) => {
    expect(service.user).toBeUndefined(); // the image's
    expect(service.read_only).toBe(true);
    expect(service.cap_drop).toEqual(["ALL"]);
    expect(service.restart).toBe("unless-stopped");
    const writable = [...(service.tmpfs ?? []), ...(service.volumes ?? []).map((volume) => volume.split(":")[1])];
    expect(writable, "a place for what is kept, and one for what is not").toEqual(
      expect.arrayContaining(["/data", "/tmp"]),
    );
  });

  it("shows this machine alone what it publishes, unless .env says otherwise", () => {
    const published = services.flatMap(([, { ports = [] }]) => ports);
    expect(published).toHaveLength(2);
    for (const port of published) expect(resolved(port, {})).toMatch(/^127\.0\.0\.1:/);
  });

  it("waits only for services that say whether they are healthy", () => {
    for (const [, { depends_on = {} }] of services) {
      for (const [name, { condition }] of Object.entries(depends_on)) {
        const service = compose.services[name]!;
        expect(condition).toBe("service_healthy");
        expect(service.healthcheck !== undefined || service.build !== undefined, name).toBe(true);
      }
    }
  });

  it("has health checks that ask where something listens", () => {
    for (const [name, { command = [], environment = {} }] of ours) {
      const settings = Object.values(environment).concat(command);
      const { port } = new URL(environment.MILLRACE_HEALTH_URL ?? "http://127.0.0.1:8080");
      expect(settings, `the port of ${name}`).toContain(port);
    }
  });
});

describe("the Dockerfile", () => {
  it("uses the Node that package.json names, for each stage", () => {
    expect(stages).toHaveLength(2);
    for (const { base } of stages) expect(base).toBe(`node:${manifest.dependencies.node}-trixie-slim`);
  });

  it("does not run as root", () => {
    const users = image.filter(([instruction]) => instruction === "USER").map(([, user]) => user);
    expect(users).toEqual([expect.stringMatching(/^[1-9]\d*:[1-9]\d*$/)]);
    expect(image.at(-1)![0]).not.toBe("USER");
  });

  it("names the version of package.json", () => {
    const labels = image.find(([instruction]) => instruction === "LABEL")![1];
    expect(labels).toContain(`org.opencontainers.image.version="${manifest.version}"`);
  });

  it("installs what package-lock.json says, without what only developers need", () => {
    const [install] = stages[0]!.instructions.filter(([instruction]) => instruction === "RUN");
    expect(install![1]).toMatch(/^npm ci --omit=dev --ignore-scripts\b/);
  });
});

describe("deploy/cloud.yaml", () => {
  it("is of the kind that the compose file deploys: broker and database elsewhere, MQTT 5", () => {
    const { broker, store } = parse(readFileSync(join(root, "deploy/cloud.yaml"), "utf8")) as Record<string, object>;
    expect(broker).toMatchObject({ url: "${env:MILLRACE_BROKER_URL}", mqtt_version: 5 });
    expect(store).toMatchObject({ url: "${env:MILLRACE_DATABASE_URL}" });
  });
});
