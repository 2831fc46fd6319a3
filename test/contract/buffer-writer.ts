/**
 * A process that appends frames to a buffer until it is killed, or told otherwise. Arguments: the buffer's folder, and
 * how many readings each frame holds. Says on standard output, a line each: `open`, then the number of each frame once
 * it is durable, and `refused:` with the error's name for each one that was not, which it tries again.
 */
import { writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { ThreadedBuffer } from "../../edge/buffer/threaded.ts";
import { frame, t0 } from "./buffer-frames.ts";

const [path, readings] = process.argv.slice(2);
const buffer = new ThreadedBuffer({ edge: "line-3", path: path!, maxBytes: 2 ** 30, whenFull: "drop_oldest" });
await buffer.open();
writeSync(1, "open\n");
for (let n = 0; ; n++) {
  const record = frame({ readings: Number(readings), from: t0 + n, watermarks: { press: t0 + n } });
  for (;;) {
    try {
      writeSync(1, `${(await buffer.append(record)).seq}\n`);
      break;
    } catch (error) {
      writeSync(1, `refused: ${(error as Error).name}\n`);
      await delay(20);
    }
  }
}
