import v8 from "node:v8";
import vm from "node:vm";
import { type Logger, pino } from "pino";
import { messageOf } from "./protocols/errors.ts";

/** A part of Millrace at work in this process. */
export interface Service {
  readonly addresses: Readonly<Record<string, string | undefined>>;
  /** Rejects when the service cannot go on. */
  readonly finished?: Promise<void>;
  stop(): Promise<void>;
}

/** What a service tells the process that started it, once it is ready: where it can be reached. */
export interface ReadyMessage {
  readonly ready: Readonly<Record<string, string | undefined>>;
}

/** How long a service may take to stop before the process ends all the same. */
const stopTimeoutMs = 20_000;

/** The log of a service: lines of JSON on standard output. Node's own warnings go there too. */
export function serviceLog(name: string, level: string): Logger {
  const log = pino({ name, level });
  process.removeAllListeners("warning");
  process.on("warning", (warning) => {
    // Experimental parts of Node are used with open eyes: SQLite for the buffer, type stripping for the console.
    if (warning.name !== "ExperimentalWarning") log.warn({ err: warning }, warning.message);
  });
  return log;
}

/**
 * Runs a service until SIGINT or SIGTERM, or until the process that started it is gone. Tells that process, where there
 * is one, when the service is ready.
 */
export async function runService(start: () => Promise<Service>): Promise<void> {
  const asked = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => asked.resolve());
  process.once("disconnect", () => asked.resolve());
  const service = await start();
  releaseStartMemory();
  tell({ ready: service.addresses });
  // A service without `finished` goes on until it is asked to stop.
  await (service.finished ? Promise.race([asked.promise, service.finished]) : asked.promise);
  const late = setTimeout(() => {
    process.stderr.write(`the service did not stop within ${stopTimeoutMs / 1000} s and is ended\n`);
    process.exit(1);
  }, stopTimeoutMs);
  await service.stop();
  clearTimeout(late);
  if (process.connected) process.disconnect?.();
}

/**
 * Gives back what loading and compiling the program took and left behind, about 60 MB: without memory pressure V8 would
 * keep it for as long as the service runs, which on a small gateway is a fifth of all it has.
 */
function releaseStartMemory(): void {
  v8.setFlagsFromString("--expose-gc");
  const collect = vm.runInNewContext("gc") as NodeJS.GCFunction;
  collect({ type: "major", execution: "sync", flavor: "last-resort" });
}

/** Tells the process that started this one, if it is still there. */
function tell(message: ReadyMessage): void {
  // With a callback, as a parent that dies just now would otherwise end this process by an error.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/**
 * Keeps V8 from letting the space for young objects grow with the load: an agent's readings die young, and on a small
 * gateway the 40 MB that it would take at 10,000 tags are better used otherwise. Call it before anything is loaded.
 */
export function keepYoungSpaceSmall(): void {
  v8.setFlagsFromString("--semi-space-growth-factor=1");
}

/** Errors that tell a person what to mend; their stack would tell nothing more. */
const mendable = new Set(["ConfigError", "ConfigFileError", "FaultError"]);

/** A port that is taken, or an address that is not this machine's. */
function cannotListen(error: Error): boolean {
  return (error as NodeJS.ErrnoException).syscall === "listen";
}

/** Ends the process with a message for a person: exit code 2 where the person has to mend something. */
export function fail(error: unknown): never {
  const expected = error instanceof Error && (mendable.has(error.name) || cannotListen(error));
  process.stderr.write(`${expected ? messageOf(error) : error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(expected ? 2 : 1);
}
