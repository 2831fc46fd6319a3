import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type ComposeService, mountedAt } from "./compose.ts";

/** Debian keeps the broker where only an administrator's PATH leads. */
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
const startTimeoutMs = 10_000;

/** Is there a mosquitto on this machine? */
export function mosquittoIsHere(): boolean {
  return ["mosquitto", "mosquitto_passwd"].every((name) => spawnSync(name, ["--help"], { env }).error === undefined);
}

/**
 * The machine's own mosquitto, as the compose file runs the container's: by the same script, configuration and ACL, with
 * the port and the paths alone put in place of the container's.
 */
export class Mosquitto {
  readonly #script: string;
  readonly #configuration: string;
  readonly #log: string;
  readonly #port: number;
  readonly #users: string;
  #child: ChildProcess | undefined;

  /** @param users one `name:password` a line */
  constructor(service: ComposeService, { port, users, folder }: { port: number; users: string; folder: string }) {
    const [, script, configuration] = service.command!;
    this.#script = mountedAt(service, script!);
    this.#configuration = join(folder, "mosquitto.conf");
    this.#log = join(folder, "mosquitto.log");
    this.#port = port;
    this.#users = users;
    const substitutions: [string, string][] = [
      ["\nlistener 1883\n", `\nlistener ${port} 127.0.0.1\n`],
      ["/tmp/", `${folder}/`],
      ["/mosquitto/config/mosquitto.acl", mountedAt(service, "/mosquitto/config/mosquitto.acl")],
    ];
    let text = readFileSync(mountedAt(service, configuration!), "utf8");
    for (const [theirs, ours] of substitutions) {
      if (text.split(theirs).length !== 2) throw new Error(`${theirs} is not once in ${configuration}`);
      text = text.replace(theirs, ours);
    }
    // The container begins as mosquitto's own user. A root's process would turn into that user, who sees no temporary file.
    if (process.getuid?.() === 0) text += "user root\n";
    writeFileSync(this.#configuration, text);
  }

  get log(): string {
    return readFileSync(this.#log, "utf8");
  }

  /** Resolves when it takes connections. */
  async start(): Promise<void> {
    const log = openSync(this.#log, "a");
    this.#child = spawn("sh", [this.#script, this.#configuration], {
      env: { ...env, MOSQUITTO_USERS: this.#users },
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    const deadline = Date.now() + startTimeoutMs;
    while (!(await accepts(this.#port))) {
      if (this.#child.exitCode !== null || Date.now() > deadline) throw new Error(`no mosquitto:\n${this.log}`);
      await delay(20);
    }
  }

  /** Ends it by a signal; the shell that started it has become the broker. */
  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
