import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, pino } from "pino";
import { onTestFinished } from "vitest";
import type { AppendResult, FrameRecord, WhenFull } from "../../../edge/buffer/buffer.ts";
import { ThreadedBuffer } from "../../../edge/buffer/threaded.ts";
import { LinkError } from "../../../protocols/errors.ts";
import type { Gap, Value } from "../../../protocols/reading.ts";
import { openEnvelope, unpackContent } from "../../../protocols/uplink/envelope.ts";
import { type ReadingColumns, RowKind } from "../../../protocols/uplink/frame.ts";

export const mapHash = "0f0e0d0c0b0a09080706050403020100";

/** A row of a frame, as the cloud would see it. */
export interface Row {
  readonly tag: number;
  readonly time: number;
  readonly quality: number;
  readonly value: Value;
}

/** The real buffer on a real disk, which a test can make refuse: as a full disk would. */
export class TestBuffer extends ThreadedBuffer {
  refusing = false;
  appended: FrameRecord[] = [];

  override async append(record: FrameRecord): Promise<AppendResult> {
    if (this.refusing) throw new LinkError("the buffer's disk refuses: database or disk is full");
    const result = await super.append(record);
    if (result.seq > 0) this.appended.push(record);
    return result;
  }

  /** What every frame in the buffer holds, in order. */
  async contents(): Promise<{ readonly rows: Row[]; readonly gaps: readonly Gap[] }[]> {
    const frames = await this.oldest(0, 100_000);
    return frames.map(({ bytes }) => {
      const { readings, gaps } = unpackContent(openEnvelope(bytes));
      return { rows: rowsOf(readings), gaps };
    });
  }

  async rows(): Promise<Row[]> {
    return (await this.contents()).flatMap(({ rows }) => rows);
  }

  async gaps(): Promise<Gap[]> {
    return (await this.contents()).flatMap(({ gaps }) => gaps);
  }
}

export async function openBuffer(options: { maxBytes?: number; whenFull?: WhenFull; edge?: string } = {}) {
  const path = mkdtempSync(join(tmpdir(), "millrace-edge-"));
  const { edge = "line-3", maxBytes = 2 ** 30, whenFull = "drop_oldest" } = options;
  const buffer = new TestBuffer({ edge, path, maxBytes, whenFull });
  const recovered = await buffer.open();
  onTestFinished(async () => {
    await buffer.close();
    rmSync(path, { recursive: true });
  });
  return { buffer, recovered };
}

export function rowsOf(columns: ReadingColumns): Row[] {
  let text = 0;
  return Array.from({ length: columns.count }, (_, row) => {
    const kind = columns.kind[row];
    const number = columns.number[row]!;
    const value =
      kind === RowKind.Text
        ? columns.texts[text++]!
        : kind === RowKind.Null
          ? null
          : kind === RowKind.Boolean
            ? number === 1
            : number;
    return { tag: columns.tag[row]!, time: columns.time[row]!, quality: columns.quality[row]!, value };
  });
}

/** A log whose lines a test can read: `level message`. */
export function testLog(): { log: Logger; said: string[] } {
  const said: string[] = [];
  const log = pino(
    { level: "info" },
    {
      write(line: string) {
        const { level, msg } = JSON.parse(line) as { level: number; msg: string };
        said.push(`${pino.levels.labels[level]} ${msg}`);
      },
    },
  );
  return { log, said };
}
