import type { Logger } from "pino";
import { startControl } from "./control.ts";
import { Counter, type CounterOptions } from "./counter.ts";
import { type Device, Faults } from "./faults.ts";
import { ModbusServer } from "./modbus.ts";
import { OpcUaServer, type PlantVariable } from "./opcua.ts";
import { Plant, stepSeconds } from "./plant/plant.ts";
import type { Signal } from "./plant/signal.ts";
import { plantUnits, pointsOf } from "./register-map.ts";
import { RegisterImage } from "./registers.ts";

export { FaultError } from "./plant/fault.ts";

export interface PlantServiceOptions {
  /** The address that OPC UA and Modbus listen on; 127.0.0.1 by default. The control desk is always on loopback. */
  readonly host?: string;
  /** Ports; 0, the default, takes any free one. */
  readonly opcuaPort?: number;
  readonly modbusPort?: number;
  readonly controlPort?: number;
  /** Seconds of the plant's time in a second of the clock, up to 3600; 1 by default. Readings carry the clock's time. */
  readonly speed?: number;
  /** The same seed gives the same plant; 1 by default. */
  readonly seed?: number;
  /** Number of the first batch; 147 by default. */
  readonly firstBatch?: number;
  /** Counting tags in place of the plant; 100 of them unless said otherwise. */
  readonly counter?: false | { readonly periodMs: number; readonly tags?: number };
  /** Faults from the start, such as `bearing-wear:pump-1`. */
  readonly faults?: readonly string[];
  readonly log: Logger;
}

export interface RunningPlant {
  readonly addresses: {
    /** `opc.tcp://127.0.0.1:4840` */
    readonly opcua: string;
    /** `127.0.0.1:502` */
    readonly modbus: string;
    /** `http://127.0.0.1:8090` */
    readonly control: string;
  };
  /** Ends every connection and listener. */
  stop(): Promise<void>;
}

const tickMs = 100;

/**
 * Starts the simulated plant with its servers.
 * @throws FaultError for a fault that there is not, RangeError for a speed or counter out of bounds, and the socket's
 * own error when a port is taken
 */
export async function startPlant(options: PlantServiceOptions): Promise<RunningPlant> {
  const { host = "127.0.0.1", speed = 1, seed = 1, firstBatch = 147, log } = options;
  if (!(speed > 0 && speed <= 3600)) throw new RangeError(`speed is ${speed}; it is above 0 and at most 3600`);
  const source = options.counter
    ? counterSource({ tags: 100, ...options.counter })
    : plantSource(new Plant({ seed, firstBatch, year: new Date().getFullYear() }), speed, seed);
  const opcua = new OpcUaServer({ host, port: options.opcuaPort ?? 0, variables: source.variables });
  const modbus = new ModbusServer({ host, port: options.modbusPort ?? 0, units: source.units, log });
  const faults = new Faults(source.plant, networkOf(opcua, modbus, source.unitNames));
  const stopping: (() => Promise<void> | void)[] = [() => modbus.stop(), () => opcua.stop()];
  const stop = async () => {
    for (const each of stopping.splice(0).reverse()) await each();
  };
  try {
    await modbus.start();
    await opcua.start();
    for (const fault of options.faults ?? []) await faults.set(fault);
    source.start(opcua);
    stopping.push(source.stop);
    const state = () => ({ ...source.state(), faults: faults.active });
    const control = await startControl({ port: options.controlPort ?? 0, faults, state });
    stopping.push(control.stop);
    const reach = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
    const addresses = {
      opcua: `opc.tcp://${reach}:${opcua.port}`,
      modbus: `${reach}:${modbus.port}`,
      control: `http://127.0.0.1:${control.port}`,
    };
    log.info({ ...addresses, speed, seed, faults: faults.active }, "the plant is running");
    return { addresses, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What the servers show: the plant's signals, or counting tags. */
interface Source {
  readonly plant?: Plant;
  readonly variables: PlantVariable[];
  readonly units: ReadonlyMap<number, RegisterImage>;
  /** Units that can be switched off by name. */
  readonly unitNames: ReadonlyMap<string, number>;
  start(server: OpcUaServer): void;
  stop(): void;
  state(): object;
}

function counterSource(options: CounterOptions): Source {
  const counter = new Counter(options);
  return {
    variables: counter.variables,
    units: new Map([[1, new RegisterImage(counter.points)]]),
    unitNames: new Map(),
    start: (server) => counter.start(server),
    stop: () => counter.stop(),
    state: () => ({ mode: "counter", ...options, count: counter.count, startedAt: counter.startedAt }),
  };
}

function plantSource(plant: Plant, speed: number, seed: number): Source {
  const onModbus = new Set(plantUnits.map((unit) => unit.equipment));
  const shown = [...plant.signals.values()].filter((signal) => !onModbus.has(signal.name.split(".")[0]!));
  let timer: NodeJS.Timeout | undefined;
  return {
    plant,
    variables: shown.map(variableOf),
    units: new Map(plantUnits.map((unit) => [unit.id, new RegisterImage(pointsOf(unit, plant.signals))])),
    unitNames: new Map(plantUnits.map((unit) => [unit.equipment, unit.id])),
    start: (server) => {
      const publish = () => {
        const now = new Date();
        for (const signal of shown) server.set(signal.name, signal.read(), now);
      };
      publish();
      timer = runAt(speed, plant, publish);
    },
    stop: () => clearInterval(timer),
    state: () => ({
      mode: "plant",
      speed,
      seed,
      plantSeconds: plant.seconds,
      signals: Object.fromEntries([...plant.signals.values()].map((signal) => [signal.name, signal.read()])),
    }),
  };
}

/** Lets the plant's time pass at `speed` against the clock, calling `publish` whenever it has moved on. */
function runAt(speed: number, plant: Plant, publish: () => void): NodeJS.Timeout {
  let last = performance.now();
  let owed = 0; // seconds of the plant's time
  return setInterval(() => {
    const now = performance.now();
    // A machine that sleeps or is overloaded loses plant time rather than catching up for ever.
    owed += (Math.min(1000, now - last) / 1000) * speed;
    last = now;
    if (owed < stepSeconds) return;
    for (; owed >= stepSeconds; owed -= stepSeconds) plant.step();
    publish();
  }, tickMs);
}

/** A reading in converter steps is a Float, as controllers hand it on; one in decimal steps keeps its decimals. */
function variableOf(signal: Signal): PlantVariable {
  const { name: id, description, unit, instrument } = signal;
  const inBits = instrument && "bits" in instrument.data.resolution;
  const type = { real: inBits ? "Float" : "Double", integer: "Int32", boolean: "Boolean", text: "String" } as const;
  return {
    id,
    description,
    type: type[signal.type],
    ...(unit ? { unit } : {}),
    ...(instrument ? { range: instrument.data.range } : {}),
  };
}

function networkOf(opcua: OpcUaServer, modbus: ModbusServer, units: ReadonlyMap<string, number>): Device[] {
  return [
    { name: "opcua", down: () => opcua.stop(), up: () => opcua.start() },
    { name: "modbus", down: () => modbus.stop(), up: () => modbus.start() },
    ...[...units].map(([name, id]) => ({
      name,
      down: () => modbus.setUnitDown(id, true),
      up: () => modbus.setUnitDown(id, false),
    })),
  ];
}
