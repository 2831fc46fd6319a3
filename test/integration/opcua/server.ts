import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** A new value of a variable. */
export interface Update {
  name: string;
  /** OPC UA's name of the type, such as `Double`. */
  dataType: string;
  value: unknown;
  /** The name of a status code; Good without. */
  status?: string;
  /** Source timestamp, ISO; null: none; now without. */
  time?: string | null;
  picoseconds?: number;
}

/** A variable of a namespace, by its URI; its node id is `s=<name>`. */
export interface Variable extends Update {
  namespace: string;
}

/** What the server is made of. */
export interface ServerOptions {
  port?: number;
  /** Namespace URIs in the order in which they get their indices. */
  namespaces: string[];
  variables?: Variable[];
  /** This many Double variables `counter0` … in the first namespace, raised by `burst`. */
  counters?: number;
  /** Raises the counters by one ten times a second. */
  ticking?: boolean;
  limits?: { maxMonitoredItemsPerCall?: number; maxNodesPerRead?: number };
  /** Without: anonymous. */
  users?: Record<string, string>;
  security?: "none" | "sign";
}

/** The test's end of an OPC UA server that runs in a process of its own. */
export class Server {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  #last = 0;
  /** How many connections the server has at this moment. */
  connections = 0;

  private constructor(child: ChildProcess, port: number, gone: Promise<void>) {
    this.#child = child;
    this.#gone = gone;
    this.port = port;
    child.on("message", (message: { connections?: number }) => {
      this.connections = message.connections ?? this.connections;
    });
    child.once("exit", () => {
      this.connections = 0;
    });
  }

  static async start(options: ServerOptions): Promise<Server> {
    const home = await mkdtemp(join(tmpdir(), "millrace-opcua-"));
    const child = fork(fileURLToPath(new URL("./server-process.ts", import.meta.url)), [JSON.stringify(options)], {
      env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_DATA_HOME: home },
      stdio: ["ignore", process.env.SERVER_OUTPUT ? "inherit" : "ignore", "inherit", "ipc"],
    });
    const gone = once(child, "exit").then(() => rm(home, { recursive: true, force: true }));
    const port = await new Promise<number>((resolve, reject) => {
      child.once("message", (message: { ready: number }) => resolve(message.ready));
      child.once("exit", (code) => reject(new Error(`the OPC UA server ended with ${code} before it was ready`)));
    });
    return new Server(child, port, gone);
  }

  get endpoint(): string {
    return `opc.tcp://127.0.0.1:${this.port}`;
  }

  async #ask<T>(what: string, argument?: unknown): Promise<T> {
    const id = ++this.#last;
    return await new Promise<T>((resolve) => {
      const listener = (message: { id: number; result: T }) => {
        if (message.id !== id) return;
        this.#child.off("message", listener);
        resolve(message.result);
      };
      this.#child.on("message", listener);
      this.#child.send({ id, do: what, with: argument });
    });
  }

  update(...updates: Update[]): Promise<void> {
    return this.#ask("update", updates);
  }

  add(variable: Variable): Promise<void> {
    return this.#ask("add", variable);
  }

  burst(times: number): Promise<void> {
    return this.#ask("burst", times);
  }

  /** The value that every counter has. */
  counter(): Promise<number> {
    return this.#ask("counter");
  }

  /** How many values the server has sent, once it sends no more. */
  async published(): Promise<number> {
    let before = -1;
    let count = await this.#ask<number>("published");
    while (count > before) {
      // Longer than the publishing interval of the tests.
      await setTimeout(150);
      before = count;
      count = await this.#ask<number>("published");
    }
    return count;
  }

  sessions(): Promise<{ sessions: number; subscriptions: number }> {
    return this.#ask("sessions");
  }

  /** Sends the process a signal; SIGSTOP makes it vanish without closing anything. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends it as an operator would. */
  async shutdown(): Promise<void> {
    this.#child.send({ id: 0, do: "shutdown" });
    await this.#gone;
  }

  /** Ends it whatever its state. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#gone;
  }
}
