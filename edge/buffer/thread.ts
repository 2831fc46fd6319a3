import { parentPort, workerData } from "node:worker_threads";
import { ConfigError } from "../../protocols/errors.ts";
import type { FrameRecord } from "./buffer.ts";
import { SqliteBuffer } from "./sqlite.ts";

/** A call as it comes from `ThreadedBuffer`: a method's name and its arguments. */
export interface BufferCall {
  readonly id: number;
  readonly method: keyof SqliteBuffer;
  readonly args: readonly unknown[];
}

/** The answer to a call. */
export interface BufferAnswer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: { readonly message: string; readonly config: boolean; readonly cause: unknown };
}

const port = parentPort!;
const buffer = new SqliteBuffer(workerData);
let waiting: BufferCall[] = [];

// Calls that arrived while the disk was busy are taken together, and neighbouring appends become one transaction.
port.on("message", (call: BufferCall) => {
  if (waiting.push(call) === 1) setImmediate(takeWaiting);
});

function takeWaiting(): void {
  const calls = waiting;
  waiting = [];
  for (let i = 0; i < calls.length; ) {
    const group = [calls[i++]!];
    if (group[0]!.method === "append") while (calls[i]?.method === "append") group.push(calls[i++]!);
    answer(group);
  }
}

function answer(group: readonly BufferCall[]): void {
  try {
    if (group[0]!.method === "append") {
      const results = buffer.append(group.map((call) => call.args[0] as FrameRecord));
      for (const [index, call] of group.entries()) post({ id: call.id, result: results[index] });
      return;
    }
    const { id, method, args } = group[0]!;
    const result = (buffer[method] as (...args: readonly unknown[]) => unknown).apply(buffer, [...args]);
    post({ id, result });
  } catch (error) {
    const { message, cause } = error instanceof Error ? error : new Error(String(error));
    for (const { id } of group) post({ id, error: { message, config: error instanceof ConfigError, cause } });
  }
}

function post(answer: BufferAnswer): void {
  port.postMessage(answer);
}
