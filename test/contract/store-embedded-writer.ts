/**
 * A process that writes into an embedded store until it is killed. Arguments: the folder, and the first number to write.
 * Says on standard output, a line each, `open` and then the number of each frame that was committed.
 */
import { writeSync } from "node:fs";
import { pino } from "pino";
import { openStore } from "../../cloud/store/open.ts";
import { counterEdge, counterFrame } from "./store-frames.ts";

const [path, first] = process.argv.slice(2);
const store = await openStore({ embedded: { path: path! } }, { log: pino({ level: "silent" }) });
await store.migrate();
await counterEdge.save(store);
writeSync(1, "open\n");
for (let seq = Number(first); ; seq += 3) {
  const frames = [counterFrame(seq), counterFrame(seq + 1), counterFrame(seq + 2)];
  const outcomes = await store.write(frames);
  for (const [i, frame] of frames.entries()) if (outcomes[i] === "stored") writeSync(1, `${frame.seq}\n`);
}
