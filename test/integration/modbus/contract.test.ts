import { modbusTcpDevice } from "../../../protocols/modbus/config.ts";
import { modbusTcp } from "../../../protocols/modbus/driver.ts";
import { driverContract } from "../../contract/driver.ts";
import { ModbusServer } from "./server.ts";

driverContract("modbus-tcp", async () => {
  const server = await new ModbusServer().start();
  server.isIllegal = ({ table, address }) => table === "holding" && address === 105;
  server.values.set("1 holding 120", 0x7fc0); // not a number
  server.values.set("1 holding 121", 0);
  const protocol = modbusTcp();
  return {
    driver: (context) =>
      protocol.driver(
        modbusTcpDevice.parse({
          protocol: "modbus-tcp",
          name: "drive",
          host: "127.0.0.1",
          port: server.port,
          scan: "50 ms",
          timeout: "300 ms",
          tags: [
            { name: "speed", register: "holding 100" },
            { name: "hidden", register: "holding 105" },
            { name: "failed", register: "holding 120", type: "float32" },
            { name: "level", register: "input 7", scale: 0.1 },
            { name: "running", register: "coil 3" },
          ],
        }),
        context,
      ),
    good: ["speed", "level", "running"],
    refused: "hidden",
    unusable: "failed",
    kill: () => server.stop(),
    restart: async () => {
      await server.start();
    },
    connections: () => server.connections,
    dispose: () => server.stop(),
  };
});
