/**
 * PGlite in a thread of its own, so that a large commit does not stop the process's other work. Started by pglite.ts
 * with the folder of the data; answers each request in turn.
 */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { PGlite } from "@electric-sql/pglite";
import { NodeFS } from "@electric-sql/pglite/nodefs";
import { parseTimestamp } from "./timestamp.ts";

export type PgliteRequest =
  | { readonly id: number; readonly do: "query"; readonly text: string; readonly params: readonly unknown[] }
  | { readonly id: number; readonly do: "run"; readonly text: string }
  | { readonly id: number; readonly do: "copy"; readonly text: string; readonly chunks: readonly Uint8Array[] }
  | { readonly id: number; readonly do: "close" };

/** `code` is the SQLSTATE; without one, or when `fatal`, the engine itself is broken. */
export interface PgliteFailure {
  readonly message: string;
  readonly code?: string;
  readonly fatal: boolean;
}

export type PgliteAnswer =
  | { readonly id: number; readonly rows: readonly unknown[] }
  | { readonly id: number; readonly failure: PgliteFailure };

/** The id of the answer that tells that the database is open, or why not. */
export const openAnswer = 0;

/** What of Emscripten's file system is used here; its streams and nodes are opaque to the rest. */
interface NodeFileSystem {
  readonly stream_ops: { fsync?: (stream: { readonly nfd?: number; readonly node: unknown }) => number };
  realPath(node: unknown): string;
}

/**
 * PGlite's file system in a folder, with an fsync that reaches the disk: without it a power cut takes frames that have
 * been acknowledged, and the edges have deleted them by then.
 */
class DurableFolder extends NodeFS {
  override async init(...[engine, options]: Parameters<NodeFS["init"]>) {
    const { emscriptenOpts } = await super.init(engine, options);
    const addFsync = (module: unknown) => {
      const { NODEFS } = module as { NODEFS: NodeFileSystem };
      NODEFS.stream_ops.fsync = ({ nfd, node }) => {
        if (nfd === undefined) syncPath(NODEFS.realPath(node));
        else fsyncSync(nfd);
        return 0;
      };
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...(emscriptenOpts.preRun ?? []), addFsync] } };
  }
}

function syncPath(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** PGlite's own list without `-F`, which turns fsync off; of the methods only plain fsync passes the file system. */
const startParams = [
  ...PGlite.defaultStartParams.filter((param) => param !== "-F"),
  "-c",
  "wal_sync_method=fsync",
  "-c",
  "TimeZone=UTC",
];

const oid = { bytea: 17, int8: 20, timestamptz: 1184 } as const;

if (parentPort !== null) await serve(parentPort, (workerData as { folder: string }).folder);

async function serve(port: NonNullable<typeof parentPort>, folder: string): Promise<void> {
  let asked = openAnswer;
  // PostgreSQL would end its process now. PGlite cannot, and would run in circles for ever.
  const giveUp = (line: string) => {
    port.postMessage({ id: asked, failure: { message: line, fatal: true } } satisfies PgliteAnswer);
    process.exit(1); // ends this thread alone
  };
  let engine: PGlite;
  try {
    engine = await PGlite.create({
      fs: new DurableFolder(folder),
      startParams,
      onStderr: (line) => {
        if (/ (PANIC|FATAL): /.test(line)) giveUp(line);
        return false;
      },
      parsers: {
        [oid.int8]: Number,
        [oid.timestamptz]: parseTimestamp,
        [oid.bytea]: (text: string) => new Uint8Array(Buffer.from(text.slice(2), "hex")),
      },
      serializers: {
        [oid.bytea]: (bytes: Uint8Array) =>
          `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}`,
      },
    });
    port.postMessage({ id: openAnswer, rows: [] } satisfies PgliteAnswer);
  } catch (error) {
    port.postMessage({ id: openAnswer, failure: failureOf(error) } satisfies PgliteAnswer);
    port.close();
    return;
  }

  // The main thread sends the next request only after the answer to the last.
  port.on("message", async (request: PgliteRequest) => {
    asked = request.id;
    try {
      const rows = await carryOut(engine, request);
      port.postMessage({ id: request.id, rows } satisfies PgliteAnswer);
    } catch (error) {
      port.postMessage({ id: request.id, failure: failureOf(error) } satisfies PgliteAnswer);
    }
    if (request.do === "close") port.close();
  });
}

async function carryOut(engine: PGlite, request: PgliteRequest): Promise<unknown[]> {
  switch (request.do) {
    case "query":
      return (await engine.query(request.text, [...request.params])).rows;
    case "run":
      await engine.exec(request.text);
      return [];
    case "copy":
      await engine.query(request.text, [], { blob: new Blob(request.chunks as Uint8Array<ArrayBuffer>[]) });
      return [];
    case "close":
      await engine.close();
      return [];
  }
}

function failureOf(error: unknown): PgliteFailure {
  if (!(error instanceof Error)) return { message: String(error), fatal: true };
  const { code, severity } = error as { code?: string; severity?: string };
  return { message: error.message, code, fatal: code === undefined || severity === "FATAL" || severity === "PANIC" };
}
