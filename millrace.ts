#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import { check } from "./config/check.ts";
import { cloudJsonSchema, edgeJsonSchema } from "./config/json-schema.ts";
import { loadCloud, loadEdge } from "./config/load.ts";
import { fail, keepYoungSpaceSmall, runService, serviceLog } from "./service.ts";

const { version } = JSON.parse(readFileSync(new URL("./package.json", import.meta.url), "utf8")) as { version: string };

const program = new Command("millrace")
  .description("Carries a plant's data from its machines to the database, exactly once.")
  .version(version)
  .showHelpAfterError("(run with --help for what there is)")
  // A wrong command line is for a person to mend, as a wrong configuration is.
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));

program
  .command("edge")
  .description("run an edge agent: read the devices of a device map, keep the readings on disk, forward them")
  .argument("<file>", "device map, such as config/examples/edge.yaml")
  .action((file: string) =>
    runService(async () => {
      keepYoungSpaceSmall();
      const config = loadEdge(file);
      const { startEdge } = await import("./edge/main.ts");
      const { protocols } = await import("./protocols/registry.ts");
      return startEdge(config, { log: serviceLog("edge", config.log.level), version, registry: protocols });
    }),
  );

program
  .command("cloud")
  .description("run the cloud service: broker, ingest, store, API and console")
  .argument("<file>", "configuration, such as config/examples/cloud.yaml")
  .option("--broker-elsewhere", "start no broker: the embedded one runs as a process of its own (millrace broker)")
  .action((file: string, { brokerElsewhere }: { brokerElsewhere?: boolean }) =>
    runService(async () => {
      const config = loadCloud(file);
      const { startCloud } = await import("./cloud/main.ts");
      return startCloud(config, { log: serviceLog("cloud", config.log.level), version, brokerElsewhere });
    }),
  );

program
  .command("broker")
  .description("run the embedded MQTT broker of a cloud configuration as a process of its own")
  .argument("<file>", "the cloud's configuration, with broker.password in it")
  .action((file: string) =>
    runService(async () => {
      const config = loadCloud(file);
      const { startBroker } = await import("./cloud/main.ts");
      return startBroker(config, { log: serviceLog("broker", config.log.level), version });
    }),
  );

program
  .command("simulate")
  .description("run the simulated plant: two reactors on OPC UA; a packaging line, drives and a pump on Modbus TCP")
  .option("--host <address>", "address to listen on", "127.0.0.1")
  .option("--opcua-port <port>", "port of the OPC UA server; 0 takes any free one", port, 0)
  .option("--modbus-port <port>", "port of the Modbus TCP server; 0 takes any free one", port, 0)
  .option("--control-port <port>", "port for faults on demand, HTTP on loopback only; 0 takes any free one", port, 0)
  .option("--speed <factor>", "60 runs an hour of the plant in a minute; at most 3600", speed, 1)
  .option("--seed <number>", "seed of chance: the same gives the same plant", positive, 1)
  .option("--first-batch <number>", "number of the first batch", positive, 147)
  .option("--fault <fault...>", "faults from the start, such as bearing-wear:pump-1; a wrong name lists them all")
  .option(
    "--counter <period-ms>",
    "in place of the plant: tags that count 1, 2, 3 …, with this period in milliseconds",
    positive,
  )
  .option("--counter-tags <number>", "how many tags count; with --counter", positive, 100)
  .action((options: SimulateOptions) =>
    runService(async () => {
      const { startPlant } = await import("./simulators/main.ts");
      const { fault: faults, counter, counterTags, ...rest } = options;
      return startPlant({
        ...rest,
        faults,
        counter: counter === undefined ? false : { periodMs: counter, tags: counterTags },
        log: serviceLog("simulator", "info"),
      });
    }),
  );

program
  .command("demo")
  .description("run the whole system here: simulated plant, edge, broker, cloud; Ctrl-C ends it")
  .option("--port <port>", "port of the API and the console; 0 takes any free one", port, 8080)
  .option(
    "--data <dir>",
    "where everything is kept; started again on the same data, the demo goes on",
    ".millrace/demo",
  )
  .option("--speed <factor>", "60 runs an hour of the plant in a minute; at most 3600", speed, 1)
  .action(async (options: { port: number; data: string; speed: number }) => {
    const { runDemo } = await import("./demo.ts");
    process.exitCode = await runDemo(options);
  });

program
  .command("check")
  .description("check configuration files offline; for a device map, print what would be read and how often")
  .argument("<files...>", "device maps and configurations; what only this machine lacks, such as secrets, is a warning")
  .action(async (files: string[]) => {
    const { text, ok } = await check(files);
    process.stdout.write(text);
    if (!ok) process.exitCode = 2;
  });

program
  .command("schema")
  .description("print the JSON Schema of a configuration file, for editors")
  .argument("<file>", "the kind of file: edge or cloud", (kind: string) => {
    if (kind !== "edge" && kind !== "cloud") throw new InvalidArgumentError("write edge or cloud");
    return kind;
  })
  .action((kind: "edge" | "cloud") => {
    const schema = kind === "edge" ? edgeJsonSchema() : cloudJsonSchema();
    process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
  });

interface SimulateOptions {
  host: string;
  opcuaPort: number;
  modbusPort: number;
  controlPort: number;
  speed: number;
  seed: number;
  firstBatch: number;
  fault?: string[];
  counter?: number;
  counterTags: number;
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65535) throw new InvalidArgumentError("a port is 0 to 65535");
  return value;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError("a number above 0");
  return value;
}

function speed(text: string): number {
  const value = positive(text);
  if (value > 3600) throw new InvalidArgumentError("at most 3600: an hour in a second");
  return value;
}

program.parseAsync().catch(fail);
