import { opcuaDevice } from "../../protocols/opcua/config.ts";
import { opcua } from "../../protocols/opcua/driver.ts";
import { driverContract } from "../contract/driver.ts";
import { Server, type ServerOptions } from "./opcua/server.ts";

const plant = "urn:plant:r1";

driverContract("opcua", async () => {
  const options: ServerOptions = {
    namespaces: [plant],
    counters: 2,
    ticking: true,
    variables: [{ namespace: plant, name: "broken", dataType: "Double", value: "NaN" }],
  };
  let server = await Server.start(options);
  const protocol = opcua();
  const device = () =>
    opcuaDevice.parse({
      name: "reactor-1",
      protocol: "opcua",
      endpoint: server.endpoint,
      sampling: "50 ms",
      publishing: "100 ms",
      timeout: "2 s",
      tags: [
        { name: "level", node: `nsu=${plant};s=counter0` },
        { name: "flow", node: `nsu=${plant};s=counter1` },
        { name: "ghost", node: `nsu=${plant};s=ghost` },
        { name: "broken", node: `nsu=${plant};s=broken` },
      ],
    });
  return {
    driver: (context) => protocol.driver(device(), context),
    good: ["level", "flow"],
    refused: "ghost",
    unusable: "broken",
    kill: () => server.kill(),
    restart: async () => {
      server = await Server.start({ ...options, port: server.port });
    },
    connections: () => server.connections,
    dispose: () => server.kill(),
  };
});
