/** Reads the first value of a node and goes, leaving it to the driver to let the process end. */
import { pino } from "pino";
import { opcuaDevice } from "../../../protocols/opcua/config.ts";
import { opcua } from "../../../protocols/opcua/driver.ts";

const device = opcuaDevice.parse({
  name: "reactor-1",
  protocol: "opcua",
  endpoint: process.argv[2],
  tags: [{ name: "level", node: "nsu=urn:plant:r1;s=level" }],
});
const abort = new AbortController();
const driver = opcua().driver(device, { log: pino({ level: "silent" }), overflow: () => {} });
await driver.connect(abort.signal);
for await (const [reading] of driver.readings(abort.signal)) {
  if (!reading) continue;
  process.stdout.write(`${reading.value}\n`);
  break;
}
await driver.close();
