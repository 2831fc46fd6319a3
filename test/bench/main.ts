/**
 * `npm run bench` runs every benchmark; `npm run bench -- ingest wire` those that are named. Each prints its figures
 * beside a limit that was measured in the same run, on the same machine.
 */
import { edgeBench } from "./edge.ts";
import { ingestBench } from "./ingest.ts";
import { memoryBench } from "./memory.ts";
import { wireBench } from "./wire.ts";

const benches: Record<string, () => Promise<void>> = {
  ingest: ingestBench,
  edge: edgeBench,
  wire: wireBench,
  memory: memoryBench,
};

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`there is no benchmark ${unknown.join(", ")}; there are ${Object.keys(benches).join(", ")}`);
  process.exit(2);
}
for (const name of asked.length > 0 ? asked : Object.keys(benches)) {
  console.log(`\n${name}`);
  await benches[name]!();
}
process.exit(0);
