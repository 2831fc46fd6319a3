import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const program = fileURLToPath(new URL("../../../millrace.ts", import.meta.url));

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `millrace …` as a process, what it writes kept. */
export class Cli {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    this.finished = new Promise((resolve) =>
      this.child.once("close", (code, signal) => resolve({ code, signal, stdout: this.stdout, stderr: this.stderr })),
    );
  }

  /** Resolves with the addresses of a service once it is ready. @throws when it ends before */
  async ready(): Promise<Record<string, string>> {
    const message = new Promise<Record<string, string>>((resolve) =>
      this.child.once("message", (told) => resolve((told as { ready: Record<string, string> }).ready)),
    );
    const ended = this.finished.then(({ code, stderr }) => {
      throw new Error(`it ended with exit code ${code}: ${stderr}`);
    });
    return Promise.race([message, ended]);
  }

  async end(signal: NodeJS.Signals): Promise<Finished> {
    this.child.kill(signal);
    return this.finished;
  }
}

/** Runs `millrace …` to its end. */
export function run(args: readonly string[], env?: Record<string, string>): Promise<Finished> {
  return new Cli(args, env).finished;
}

/** Is a process of this number at work? One that has ended but that nobody has waited for is not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !existsSync(`/proc/${pid}/stat`) || !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
