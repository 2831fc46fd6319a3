import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { accessSync, closeSync, constants, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, relative, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ConfigError, messageOf } from "./protocols/errors.ts";
import type { ReadyMessage } from "./service.ts";

export interface DemoOptions {
  /** Port of the API and the console. */
  readonly port: number;
  /** Folder of the database, the edge's buffer and the logs. */
  readonly data: string;
  /** Seconds of the plant's time in a second. */
  readonly speed: number;
}

const startTimeoutMs = 60_000;
const stopTimeoutMs = 10_000;
const program = fileURLToPath(new URL("./millrace.ts", import.meta.url));
const examples = fileURLToPath(new URL("./config/examples/demo/", import.meta.url));

/**
 * Runs the system as it would run in a plant, each part a process of its own, and tells how the start goes on. Ends on
 * SIGINT or SIGTERM, or when a part fails. @returns the exit code: 2 where the person has to mend something
 */
export async function runDemo({ port, data, speed }: DemoOptions): Promise<number> {
  const parts: Part[] = [];
  const stopping = new AbortController();
  const folder = resolve(data);
  const asked = Promise.withResolvers<"asked">();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => asked.resolve("asked"));
  process.once("disconnect", () => asked.resolve("asked"));
  const begun = performance.now();
  try {
    const started = startAll({ port, folder, speed, parts, begun, stopping: stopping.signal });
    const failed = started.then(() => Promise.race(parts.map((part) => part.ended)));
    await Promise.race([asked.promise, failed]);
    return 0;
  } catch (error) {
    process.stderr.write(`\n${messageOf(error)}\n`);
    return error instanceof ConfigError ? 2 : 1;
  } finally {
    stopping.abort();
    await stopAll(parts);
    if (process.connected) process.disconnect?.(); // or this process would wait for the one that started it
  }
}

interface Start {
  readonly port: number;
  readonly folder: string;
  readonly speed: number;
  readonly parts: Part[];
  readonly begun: number;
  /** Aborted when the demo ends: nothing is started any more. */
  readonly stopping: AbortSignal;
}

async function startAll({ port, folder, speed, parts, begun, stopping }: Start): Promise<void> {
  const startedAt = Date.now();
  makeFolders(folder);
  await expectFree(port);
  say(`Millrace demo; everything is kept in ${relative(process.cwd(), folder) || "."}\n`);
  const secrets = { MILLRACE_EDGE_PASSWORD: newPassword(), MILLRACE_CLOUD_PASSWORD: newPassword() };
  const environment: Record<string, string> = {
    ...secrets,
    MILLRACE_BROKER_PORT: "0",
    MILLRACE_HTTP_PORT: String(port),
    MILLRACE_CLOUD_DATA: join(folder, "database"),
    MILLRACE_EDGE_DATA: join(folder, "edge"),
    MILLRACE_EDGE_HTTP_PORT: "0",
  };
  const start = async (name: string, what: string, args: readonly string[]) => {
    stopping.throwIfAborted();
    const part = new Part(name, args, environment, join(folder, "logs"));
    parts.push(part);
    const addresses = await part.ready;
    step(begun, what, Object.values(addresses).filter(Boolean).join(", "));
    return addresses;
  };
  const cloudFile = join(examples, "cloud.yaml");
  // The plant and the broker need nothing of each other; the broker's port is then known to the others.
  const [plant, broker] = await Promise.all([
    start("simulator", "plant", ["simulate", "--speed", String(speed), "--first-batch", String(minuteOfYear())]),
    start("broker", "broker", ["broker", cloudFile]),
  ]);
  environment.MILLRACE_BROKER_URL = broker.broker!;
  environment.MILLRACE_BROKER_PORT = new URL(broker.broker!).port;
  environment.MILLRACE_SIM_OPCUA = plant.opcua!;
  const [host, modbusPort] = plant.modbus!.split(":");
  environment.MILLRACE_SIM_MODBUS_HOST = host!;
  environment.MILLRACE_SIM_MODBUS_PORT = modbusPort!;
  const [cloud] = await Promise.all([
    start("cloud", "cloud", ["cloud", "--broker-elsewhere", cloudFile]),
    start("edge", "edge", ["edge", join(examples, "edge.yaml")]),
  ]);
  const { tags } = await firstReadings(cloud.http!, parts, startedAt);
  step(begun, "data", `${tags} tags have live readings`);
  say(`\n  Console   ${cloud.http}/`);
  say(`  API       ${cloud.http}/api/v1/openapi.json`);
  say(
    `  Faults    curl -X POST ${plant.control}/faults -H 'content-type: application/json' -d '{"fault":"bearing-wear:pump-1"}'`,
  );
  say("\nCtrl-C ends it.");
}

function makeFolders(folder: string): void {
  try {
    const logs = join(folder, "logs");
    mkdirSync(logs, { recursive: true });
    for (const each of [folder, logs]) accessSync(each, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new ConfigError(`${folder} cannot be used: choose another --data`, { cause });
  }
}

/** Says before anything is started that a port is taken; the cloud service would find out as the last of all. */
async function expectFree(port: number): Promise<void> {
  const server = createServer();
  try {
    await once(server.listen(port, "127.0.0.1"), "listening");
  } catch (cause) {
    throw new ConfigError(`the console cannot listen on 127.0.0.1:${port}: choose another --port`, { cause });
  }
  await new Promise((closed) => server.close(closed));
}

/** Waits until readings are in the database that are newer than the demo's start. */
async function firstReadings(http: string, parts: readonly Part[], startedAt: number): Promise<{ tags: number }> {
  const since = Date.now();
  const ended = Promise.race(parts.map((part) => part.ended));
  ended.catch(() => undefined); // told by whoever waits for it
  for (;;) {
    const response = await fetch(`${http}/api/v1/tags?limit=1000`);
    if (response.ok) {
      const { items } = (await response.json()) as { items: { latest: { time: string } | null }[] };
      const live = items.filter(({ latest }) => latest !== null && Date.parse(latest.time) > startedAt);
      if (live.length > 0) return { tags: items.filter(({ latest }) => latest !== null).length };
    }
    if (Date.now() - since > startTimeoutMs)
      throw new Error(`no reading has arrived within ${startTimeoutMs / 1000} s`);
    await Promise.race([delay(200), ended]);
  }
}

/** One process of the demo. Its log goes to a file. */
class Part {
  readonly name: string;
  /** Resolves with its addresses; rejects when it fails to start. */
  readonly ready: Promise<Record<string, string | undefined>>;
  /** Rejects when it ends by itself. */
  readonly ended: Promise<never>;
  readonly #child: ChildProcess;
  #stopping = false;

  constructor(name: string, args: readonly string[], environment: Record<string, string>, logs: string) {
    this.name = name;
    const logFile = join(logs, `${name}.log`);
    const log = openSync(logFile, "a");
    const logged = fstatSync(log).size; // by earlier starts
    // A group of its own: Ctrl-C in the terminal is for the demo alone, which then stops its parts in order.
    this.#child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...environment },
      stdio: ["ignore", log, "pipe", "ipc"],
      detached: true,
    });
    closeSync(log);
    let errors = "";
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-4000);
    });
    this.ended = new Promise((_, reject) => {
      this.#child.once("close", (code, signal) => {
        if (this.#stopping) return;
        const why = errors.trim() || lastLines(logFile, logged) || `it has said nothing; its log is ${logFile}`;
        const message = `the ${name} process has ended (${signal ?? `exit code ${code}`}):\n${why}`;
        reject(code === 2 ? new ConfigError(message) : new Error(message));
      });
    });
    this.ended.catch(() => undefined);
    const ready = new Promise<Record<string, string | undefined>>((done) => {
      this.#child.once("message", (message) => done((message as ReadyMessage).ready));
    });
    const late = delay(startTimeoutMs, undefined, { ref: false }).then(() => {
      throw new Error(`the ${name} process is not ready after ${startTimeoutMs / 1000} s; its log is ${logFile}`);
    });
    this.ready = Promise.race([ready, this.ended, late]);
  }

  /** Asks it to stop, and ends it when it does not. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = new Promise((done) => this.#child.once("close", done));
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), stopTimeoutMs);
    await closed;
    clearTimeout(timer);
  }
}

/** The edge first, so that its last readings still reach the database. */
async function stopAll(parts: readonly Part[]): Promise<void> {
  if (parts.length > 0) say("\nstopping …");
  for (const name of ["edge", "cloud", "broker", "simulator"]) {
    await Promise.all(parts.filter((part) => part.name === name).map((part) => part.stop()));
  }
  if (parts.length > 0) say("stopped");
}

/** @param from the byte where what counts begins */
function lastLines(file: string, from: number): string {
  return readFileSync(file).subarray(from).toString().trimEnd().split("\n").slice(-5).join("\n");
}

/** Where batches begin to count, so that a demo that goes on does not begin again with the names it gave before. */
function minuteOfYear(): number {
  const now = new Date();
  return Math.floor((now.getTime() - Date.UTC(now.getUTCFullYear(), 0, 1)) / 60_000) + 1;
}

function newPassword(): string {
  return randomBytes(18).toString("base64url");
}

function step(begun: number, what: string, detail: string): void {
  const seconds = ((performance.now() - begun) / 1000).toFixed(1).padStart(5);
  say(`${seconds} s  ${what.padEnd(8)}${detail}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
