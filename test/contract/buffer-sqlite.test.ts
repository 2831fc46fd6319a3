import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import type { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { WhenFull } from "../../edge/buffer/buffer.ts";
import { ThreadedBuffer } from "../../edge/buffer/threaded.ts";
import { ConfigError, LinkError } from "../../protocols/errors.ts";
import { frame, gap, seqsIn, t0 } from "./buffer-frames.ts";

let folder: string;
const opened: ThreadedBuffer[] = [];
const children: ChildProcess[] = [];

const make = (path = folder, whenFull: WhenFull = "drop_oldest") => {
  const buffer = new ThreadedBuffer({ edge: "line-3", path, maxBytes: 2 ** 30, whenFull });
  opened.push(buffer);
  return buffer;
};

/** What a second process, an engineer's tool or a bad disk does to the file while nobody has it open. */
function inFile(work: (database: DatabaseSync) => void): void {
  const database = new DatabaseSync(join(folder, "buffer.sqlite"));
  try {
    work(database);
  } finally {
    database.close();
  }
}

/** A process that appends frames; `line` resolves with its next word. */
function writer(readings: number) {
  const script = join(import.meta.dirname, "buffer-writer.ts");
  const child = spawn(process.execPath, [script, folder, String(readings)], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const kill = async () => {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  };
  /** Reads until a line matches; all lines up to it. */
  const until = async (match: (line: string) => boolean): Promise<string[]> => {
    const seen: string[] = [];
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the writer ended after ${seen.slice(-5)}`);
      seen.push(value);
      if (match(value)) return seen;
    }
  };
  return { pid: child.pid!, until, kill };
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-buffer-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const buffer of opened.splice(0)) await buffer.close();
  rmSync(folder, { recursive: true });
});

describe("a process that is killed", () => {
  it("leaves every frame whose append had resolved, and no half one", async () => {
    let durable = 0;
    for (const last of [1, 20, 47]) {
      const process = writer(500);
      await process.until((line) => line === "open");
      const said = await process.until((line) => Number(line) >= durable + last);
      await process.kill();
      const expected = Number(said.at(-1));

      const buffer = make();
      const { watermarks } = await buffer.open();
      const seqs = await seqsIn(buffer);
      // The killed one may have written one more and not have come to say so.
      expect(seqs.length).toBeGreaterThanOrEqual(expected);
      expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, i) => i + 1));
      expect(watermarks.get("press")).toBe(t0 + seqs.length - durable - 1);
      durable = seqs.length;
      await buffer.close();
      // The next process writes on from here; its watermarks begin again at t0.
    }
  });
});

/** Sets a limit for files of a process that is running: to the process, a disk that is full, and then not any more. */
const prlimit = spawnSync("prlimit", ["--version"]).status === 0;

describe("a disk that refuses (needs prlimit)", () => {
  it.skipIf(!prlimit).each([
    ["at once", 8 * 2 ** 10],
    ["in the middle of a frame", 1_000_003],
    ["when the write-ahead log has come round", 6 * 2 ** 20 + 77],
  ])("rejects with a LinkError and goes on without a loss once there is room: full %s", async (_, limit) => {
    const process = writer(20_000);
    await process.until((line) => line === "open");
    const limited = (bytes: string) => execFileSync("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:`]);
    limited(String(limit));
    const before = await process.until((line) => line.startsWith("refused"));
    expect(before.at(-1)).toBe("refused: LinkError");
    limited("unlimited");
    const after = await process.until((line) => Number(line) > 60);
    await process.kill();

    const numbers = [...before, ...after].map(Number).filter((number) => number > 0);
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_unused, i) => i + 1));
    const buffer = make();
    await buffer.open();
    expect((await seqsIn(buffer)).slice(0, numbers.length)).toEqual(numbers);
  });
});

describe("a damaged file", () => {
  it("a frame with a changed byte is set aside, accounted for, and holds up none behind it", async () => {
    const buffer = make();
    await buffer.open();
    for (let n = 0; n < 5; n++) await buffer.append(frame({ readings: 100 + n, from: t0 + n * 1000 }));
    await buffer.close();
    inFile((database) => {
      const row = database.prepare("SELECT bytes FROM frame WHERE seq = ?");
      const save = database.prepare("UPDATE frame SET bytes = ? WHERE seq = ?");
      for (const seq of [1, 2, 4]) {
        const { bytes } = row.get(seq) as { bytes: Uint8Array };
        bytes[bytes.length >> 1]! ^= 0x10;
        save.run(bytes, seq);
      }
    });
    const again = make();
    await again.open();
    // The first two are damaged, and still the call finds one that can be sent.
    expect((await again.oldest(0, 2)).map(({ seq }) => seq)).toEqual([3, 5]);
    const { losses } = await again.append(frame());
    expect(losses).toEqual([
      gap({
        reason: "frame_refused",
        from: t0,
        to: t0 + 3000 + 102_000,
        detail: `${100 + 101 + 103} readings in frames that were set aside (frames 1 to 4)`,
      }),
    ]);
    await again.close();
    inFile((database) => {
      const aside = database.prepare("SELECT seq, reason FROM frame_set_aside ORDER BY seq").all();
      expect(aside.map((row) => ({ ...row }))).toEqual(
        [1, 2, 4].map((seq) => ({ seq, reason: "it was damaged on the edge's disk" })),
      );
    });
  });

  it("gaps that a damaged frame reported are reported again", async () => {
    const buffer = make();
    await buffer.open();
    const opened = gap({ to: t0 + 5 });
    await buffer.append(frame({ readings: 0, gaps: [opened] }));
    await buffer.close();
    inFile((database) => database.exec("UPDATE frame SET bytes = x'01'"));
    const again = make();
    await again.open();
    expect(await again.oldest(0, 10)).toEqual([]);
    expect((await again.append(frame())).losses).toEqual([opened]);
  });

  it("a damaged account does not stand in the way of the frames", async () => {
    const buffer = make();
    await buffer.open();
    await buffer.append(frame());
    await buffer.append(frame());
    await buffer.close();
    inFile((database) =>
      database.exec(`UPDATE frame SET spans = '[{"device', reports = '{', bytes = x'02' WHERE seq = 1`),
    );
    const again = make();
    await again.open();
    expect(await seqsIn(again)).toEqual([2]);
  });

  it.each([
    [
      "no database",
      (file: string) =>
        writeFileSync(file, "this is no database, but it is long enough to be taken for one".repeat(100)),
    ],
    ["a database cut short", (file: string) => execFileSync("truncate", ["-s", "5000", file])],
  ])("%s is a ConfigError that says what to do", async (_, damage) => {
    const buffer = make();
    await buffer.open();
    await buffer.append(frame());
    await buffer.close();
    damage(join(folder, "buffer.sqlite"));
    const error = await refusal();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toMatch(/buffer\.sqlite/);
    expect(error.message).toContain(folder);
  });
});

describe("a folder that cannot be used", () => {
  it("of a newer format is refused, and left as it is", async () => {
    const buffer = make();
    await buffer.open();
    await buffer.append(frame());
    await buffer.close();
    inFile((database) => database.exec("PRAGMA user_version = 99"));
    const error = await refusal();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toMatch(/newer Millrace \(format 99\)/);
    inFile((database) => {
      expect(database.prepare("SELECT count(*) AS frames FROM frame").get()).toMatchObject({ frames: 1 });
    });
  });

  it("that is a file is refused by name", async () => {
    const path = join(folder, "file");
    writeFileSync(path, "");
    const error = await refusal(join(path, "buffer"));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain(join(path, "buffer"));
    expect(error.message).toContain("check the folder's rights");
  });

  it.skipIf(process.getuid?.() === 0)("that may not be written is refused by name (not as root, who may)", async () => {
    chmodSync(folder, 0o500);
    try {
      const error = await refusal();
      expect(error).toBeInstanceOf(ConfigError);
      expect(error.message).toContain("check the folder's rights");
    } finally {
      chmodSync(folder, 0o700);
    }
  });
});

describe("space on disk", () => {
  it("goes back to the file system when the buffer is drained", async () => {
    const buffer = make();
    await buffer.open();
    for (let n = 0; n < 20; n++) await buffer.append(frame({ readings: 150_000 }));
    const file = join(folder, "buffer.sqlite");
    const seqs = await seqsIn(buffer);
    for (const seq of seqs) await buffer.release([seq]);
    await buffer.close();
    expect(size(file)).toBeLessThan(10 * 2 ** 20);
    expect(size(`${file}-wal`)).toBeLessThanOrEqual(4 * 2 ** 20);
  });
});

describe("the thread", () => {
  it("that dies says so, and every call is rejected, those under way included", async () => {
    const { promise: started, resolve } = Promise.withResolvers<Worker>();
    process.once("worker", resolve);
    const buffer = make();
    await buffer.open();
    const pending = Promise.allSettled(Array.from({ length: 50 }, () => buffer.append(frame({ readings: 5000 }))));
    // As a fault in SQLite or an exhausted heap would end it.
    await (await started).terminate();
    await expect(buffer.failed).rejects.toThrow(LinkError);
    const outcomes = await pending;
    expect(outcomes.at(-1)).toMatchObject({ status: "rejected", reason: expect.any(LinkError) });
    await expect(buffer.append(frame())).rejects.toThrow(LinkError);
    await buffer.close();

    const again = make();
    await again.open();
    const resolved = outcomes.filter(({ status }) => status === "fulfilled");
    expect((await seqsIn(again)).length).toBeGreaterThanOrEqual(resolved.length);
  });

  it("takes a frame of 6 MiB in its small heap", async () => {
    const buffer = make();
    await buffer.open();
    await buffer.append(frame({ readings: 1_000_000 }));
    expect((await buffer.oldest(0, 1))[0]!.bytes.length).toBeGreaterThan(6 * 2 ** 20);
  });
});

async function refusal(path = folder): Promise<Error> {
  const buffer = make(path);
  return buffer.open().then(
    () => {
      throw new Error("it was opened");
    },
    (error: Error) => error,
  );
}

function size(file: string): number {
  return existsSync(file) ? statSync(file).size : 0;
}
