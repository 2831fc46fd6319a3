import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const readyTimeoutMs = 30_000;

/** A process of the system under test, its log in a file. */
export class RigProcess {
  readonly #script: string;
  readonly #args: readonly string[];
  readonly #log: string;
  env: Record<string, string>;
  #child: ChildProcess | undefined;

  /** @param script path within the project, such as millrace.ts */
  constructor(script: string, args: readonly string[], env: Record<string, string>, log: string) {
    this.#script = script;
    this.#args = args;
    this.env = env;
    this.#log = log;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Starts it, and resolves with its addresses once it is ready; rejects with the end of its log when it ends before. */
  async start(): Promise<Record<string, string>> {
    const child = this.spawn();
    const { promise, resolve, reject } = Promise.withResolvers<Record<string, string>>();
    const timer = setTimeout(
      () => reject(new Error(`${this.#args[0]} is not ready:\n${this.logTail()}`)),
      readyTimeoutMs,
    );
    child.once("message", (message) => resolve((message as { ready: Record<string, string> }).ready));
    child.once("exit", (code, signal) =>
      reject(new Error(`${this.#args[0]} ended (${signal ?? code}):\n${this.logTail()}`)),
    );
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Starts it without waiting until it is ready. */
  spawn(): ChildProcess {
    const log = openSync(this.#log, "a");
    this.#child = spawn(process.execPath, [`${root}${this.#script}`, ...this.#args], {
      env: { ...process.env, ...this.env },
      stdio: ["ignore", log, log, "ipc"],
    });
    closeSync(log);
    return this.#child;
  }

  /** Ends it by a signal, and resolves when it is gone. */
  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.running) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  }

  logTail(lines = 15): string {
    return readFileSync(this.#log, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  }
}
