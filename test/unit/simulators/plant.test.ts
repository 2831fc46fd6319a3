import { beforeAll, describe, expect, it } from "vitest";
import { FaultError, setPlantFault } from "../../../simulators/plant/fault.ts";
import { Plant, stepSeconds } from "../../../simulators/plant/plant.ts";
import type { PhaseName } from "../../../simulators/plant/reactor.ts";
import type { Equipment } from "../../../simulators/plant/signal.ts";

function newPlant(seed = 1): Plant {
  return new Plant({ seed, firstBatch: 147, year: 2026 });
}

/** Lets hours of the plant's time pass for a part of it, or for all; `watch` sees every step. */
function run(part: Plant | Equipment, hours: number, watch: () => void = () => {}): void {
  const steps = Math.round((hours * 3600) / stepSeconds);
  for (let step = 0; step < steps; step++) {
    part.step(stepSeconds);
    watch();
  }
}

function number(plant: Plant, signal: string): number {
  const value = plant.signals.get(signal)?.read();
  if (typeof value !== "number") throw new Error(`${signal} reads ${value}`);
  return value;
}

/** Every reading of every signal over some minutes of the plant's time, as one text. */
function series(plant: Plant, hours: number): string {
  const lines: string[] = [];
  run(plant, hours, () => lines.push(JSON.stringify([...plant.signals.values()].map((signal) => signal.read()))));
  return lines.join("\n");
}

describe("the plant", () => {
  it("gives the same series byte for byte for the same seed, and another one for another seed", () => {
    const first = series(newPlant(7), 0.25);
    expect(series(newPlant(7), 0.25)).toBe(first);
    expect(series(newPlant(8), 0.25)).not.toBe(first);
  });

  it("has from 100 to 150 signals, each named for its equipment and with a plausible first reading", () => {
    const plant = newPlant();
    expect(plant.signals.size).toBeGreaterThanOrEqual(100);
    expect(plant.signals.size).toBeLessThanOrEqual(150);
    for (const signal of plant.signals.values()) {
      expect(signal.name).toMatch(/^[a-z]+(-\d)?\.[a-z_]+(_\d)?$/);
      const value = signal.read();
      if (signal.type === "real" || signal.type === "integer") expect(value, signal.name).toSatisfy(Number.isFinite);
      else expect(typeof value, signal.name).toBe(signal.type === "text" ? "string" : "boolean");
    }
  });

  it("shows values in the steps of its instruments, which stand still while the process does", () => {
    const plant = newPlant();
    const measured = [...plant.signals.values()].filter((signal) => signal.instrument);
    const last = new Map(measured.map((signal) => [signal, signal.read()]));
    let repeated = 0;
    let readings = 0;
    run(plant, 0.1, () => {
      for (const signal of measured) {
        const value = signal.read();
        readings += 1;
        if (value === last.get(signal)) repeated += 1;
        last.set(signal, value);
      }
      const temperature = number(plant, "reactor-1.temperature");
      if (temperature !== Math.round(temperature * 10) / 10) throw new Error(`${temperature} is not in steps of 0.1`);
    });
    expect(repeated / readings).toBeGreaterThan(0.5);

    const pressures = new Set<number>();
    run(plant, 0.1, () => pressures.add(number(plant, "reactor-1.pressure")));
    const step = 7 / (2 ** 14 - 1); // range -1 to 6 bar on 14 bits
    for (const value of pressures)
      expect(((value + 1) / step) % 1).toBeOneOf([expect.closeTo(0, 6), expect.closeTo(1, 6)]);
  });
});

describe("reactors", () => {
  const order: PhaseName[] = ["idle", "charge", "heat", "react", "cool", "discharge", "clean"];
  const plant = newPlant();
  /** What was seen of the reactors over half a day, every second. */
  const seen: ReturnType<typeof look>[][] = [];

  function look({ name, phase, batch, vessel, control }: Plant["reactors"][number]) {
    const { temperature, jacketTemperature, level, mass, pressure, conversion } = vessel;
    const shown = ["batch_id", "recipe", "phase", "phase_number"].map((tag) =>
      plant.signals.get(`${name}.${tag}`)!.read(),
    );
    const valves = { ...control.valves };
    return { name, phase, batch, temperature, jacketTemperature, level, mass, pressure, conversion, valves, shown };
  }

  beforeAll(() => {
    for (let second = 0; second < 12 * 3600; second++) {
      run(plant, 1 / 3600);
      seen.push(plant.reactors.map(look));
    }
  });

  it("keep temperature, level, mass and pressure within bounds, and never heat and cool at once", () => {
    for (const reactor of seen.flat()) {
      const { temperature, jacketTemperature, level, mass, pressure, conversion, valves } = reactor;
      const fine =
        temperature > 5 &&
        temperature < 90 &&
        jacketTemperature > 5 &&
        jacketTemperature < 130 &&
        mass >= 0 &&
        level <= 90 &&
        pressure > -0.1 &&
        pressure < 1 &&
        conversion >= 0 &&
        conversion <= 1 &&
        (valves.cooling < 0.3 || valves.steam < 0.3);
      if (!fine) expect.fail(JSON.stringify(reactor));
    }
  });

  it("run batches through the phases in their order", () => {
    for (const index of plant.reactors.keys()) {
      const phases = seen.map((both) => both[index]!.phase);
      const entered = phases.filter((phase, second) => phase !== phases[second - 1]);
      expect(entered.length).toBeGreaterThan(2 * order.length);
      const first = order.indexOf(entered[0]!);
      expect(entered).toEqual(entered.map((_, step) => order[(first + step) % order.length]));
    }
  });

  it("give each batch an id of its own, increasing over both reactors, and a little difference", () => {
    const batches = new Map(seen.flat().flatMap(({ batch }) => (batch ? [[batch.id, batch] as const] : [])));
    expect(batches.size).toBeGreaterThan(5);
    // The second reactor has a head start, so its batch is the first.
    const ids = [...batches.keys()].sort();
    expect(ids).toEqual(ids.map((_, index) => `B2026-${String(147 + index).padStart(4, "0")}`));
    const begun = [...batches.keys()];
    expect(begun.slice(2)).toEqual(ids.slice(2));
    expect(new Set([...batches.values()].map((batch) => batch.recipe.charge)).size).toBe(batches.size);
  });

  it("hold the reaction at the recipe's temperature: heat of reaction against the jacket", () => {
    const reacting = seen.flat().filter(({ phase }) => phase === "react");
    const above = reacting.map(({ temperature, batch }) => temperature - batch!.recipe.reactionTemperature);
    const highest = above.reduce((a, b) => Math.max(a, b));
    expect(highest).toBeGreaterThan(0);
    expect(highest).toBeLessThan(6);
    expect(reacting.some(({ valves }) => valves.cooling > 0.05)).toBe(true);
  });

  it("show batch, recipe and phase, the first two only while there is a batch", () => {
    const phases = new Set<string>();
    for (const { phase, batch, shown } of seen.flat()) {
      if (shown[0] !== (batch?.id ?? "") || shown[1] !== (batch?.recipe.name ?? "")) expect.fail(`shows ${shown}`);
      if ((phase === "clean" || phase === "idle") !== (shown[0] === "")) expect.fail(`${shown[0]} in ${phase}`);
      phases.add(`${shown[2]} ${shown[3]}`);
    }
    const all = ["idle 0", "charge 10", "heat 20", "react 30", "cool 40", "discharge 50", "clean 60"];
    expect([...phases].sort()).toEqual(all.sort());
  });
});

describe("the packaging line", () => {
  it("counts packs, stops now and then, changes lots, and moves its drives", () => {
    const plant = newPlant();
    const states = new Set<string>();
    const lots = new Set<unknown>();
    const { line, drives } = plant;
    run(line, 4, () => {
      for (const drive of drives) drive.step(stepSeconds);
      states.add(line.state);
      lots.add(plant.signals.get("line-1.lot")!.read());
      if (line.goodCount + line.rejectCount !== line.infeedCount) throw new Error("packs went missing");
      if (line.rejectCount > 20 && line.rejectCount > 0.03 * line.infeedCount) throw new Error("too many rejects");
      if (line.state === "execute" && line.speed === 120 && drives.some((drive) => drive.speed < 1200)) {
        throw new Error("a drive stands while the line runs");
      }
    });
    expect(states).toEqual(
      new Set(["resetting", "idle", "starting", "execute", "holding", "held", "unholding", "completing", "complete"]),
    );
    expect(lots.size).toBeGreaterThanOrEqual(3);
  });
});

describe("faults", () => {
  it("stuck: one reading stands still, every other goes on as it would have", () => {
    const sound = newPlant();
    const faulty = newPlant();
    run(sound, 0.1);
    run(faulty, 0.1);
    setPlantFault(faulty, "stuck:reactor-1.mass", true);
    const frozen = number(faulty, "reactor-1.mass");
    run(sound, 0.1);
    run(faulty, 0.1);
    for (const [name, signal] of faulty.signals) {
      if (name === "reactor-1.mass") expect(signal.read()).toBe(frozen);
      else expect(signal.read(), name).toBe(sound.signals.get(name)!.read());
    }
    expect(number(sound, "reactor-1.mass")).not.toBe(frozen);
    setPlantFault(faulty, "stuck:reactor-1.mass", false);
    sound.step();
    faulty.step();
    expect(number(faulty, "reactor-1.mass")).toBe(number(sound, "reactor-1.mass"));
  });

  it("drift: the reading leaves the truth by 5 % of its range in an hour, and comes back", () => {
    const plant = newPlant();
    const truth = () => plant.reactors[1]!.vessel.temperature;
    setPlantFault(plant, "drift:reactor-2.temperature", true);
    run(plant.reactors[1]!, 1);
    expect(number(plant, "reactor-2.temperature") - truth()).toBeCloseTo(8, 0); // 5 % of 160 K
    setPlantFault(plant, "drift:reactor-2.temperature", false);
    run(plant.reactors[1]!, 0.01);
    expect(number(plant, "reactor-2.temperature") - truth()).toBeCloseTo(0, 0);
  });

  it("fail: there is no reading", () => {
    const plant = newPlant();
    setPlantFault(plant, "fail:utilities.steam_pressure", true);
    expect(plant.signals.get("utilities.steam_pressure")!.read()).toBeNull();
    setPlantFault(plant, "fail:utilities.steam_pressure", false);
    expect(number(plant, "utilities.steam_pressure")).toBeGreaterThan(2);
  });

  it("bearing-wear: envelope first, then vibration, then temperature; a repair ends it", () => {
    const plant = newPlant();
    run(plant.pump, 0.5);
    const vibration = number(plant, "pump-1.vibration_de");
    const temperature = number(plant, "pump-1.bearing_temperature_de");
    expect(vibration).toBeLessThan(2);
    setPlantFault(plant, "bearing-wear:pump-1", true);
    run(plant.pump, 2);
    expect(number(plant, "pump-1.bearing_envelope")).toBeGreaterThan(1.5);
    expect(number(plant, "pump-1.vibration_de")).toBeLessThan(2.5);
    run(plant.pump, 4);
    expect(number(plant, "pump-1.vibration_de")).toBeGreaterThan(7.1); // ISO 20816-3 zone D begins there
    expect(number(plant, "pump-1.bearing_temperature_de")).toBeGreaterThan(temperature + 10);
    setPlantFault(plant, "bearing-wear:pump-1", false);
    run(plant.pump, 0.1);
    expect(number(plant, "pump-1.vibration_de")).toBeLessThan(2);
  });

  it("cooling-valve-stuck: the batch runs hot and does not cool down until the valve is mended", () => {
    const plant = newPlant();
    const reactor = plant.reactors[0]!;
    setPlantFault(plant, "cooling-valve-stuck:reactor-1", true);
    let hottest = 0;
    run(reactor, 5, () => {
      hottest = Math.max(hottest, reactor.vessel.temperature);
    });
    expect(hottest).toBeGreaterThan(reactor.batch!.recipe.reactionTemperature + 10);
    expect(hottest).toBeLessThan(140);
    expect(reactor.phase).toBe("cool");
    setPlantFault(plant, "cooling-valve-stuck:reactor-1", false);
    run(reactor, 1.5);
    expect(reactor.phase).not.toBe("cool");
  });

  it("trip: the drive stands with its fault, and the line is held until it is reset", () => {
    const plant = newPlant();
    run(plant, 0.1);
    setPlantFault(plant, "trip:drive-3", true);
    run(plant, 0.1);
    expect(plant.line.state).toBe("held");
    expect(number(plant, "drive-3.fault_code")).toBe(7);
    expect(plant.signals.get("drive-3.fault")!.read()).toBe(true);
    expect(plant.signals.get("drive-3.running")!.read()).toBe(false);
    setPlantFault(plant, "trip:drive-3", false);
    run(plant, 0.1);
    expect(plant.line.infeedCount).toBeGreaterThan(0);
    expect(plant.signals.get("drive-3.fault")!.read()).toBe(false);
    expect(plant.line.state).not.toBe("held");
  });

  it("say what there is when one is unknown", () => {
    const plant = newPlant();
    expect(() => setPlantFault(plant, "melt:reactor-1", true)).toThrow(FaultError);
    expect(() => setPlantFault(plant, "melt:reactor-1", true)).toThrow(
      /unknown fault "melt:reactor-1".*stuck:.*drift:/,
    );
    expect(() => setPlantFault(plant, "trip:drive-9", true)).toThrow(/drive-9.*one of drive-1, drive-2/);
    expect(() => setPlantFault(plant, "stuck:reactor-1.batch_id", true)).toThrow(/reactor-1\.batch_id/);
    expect(() => setPlantFault(plant, "stuck", true)).toThrow(FaultError);
  });
});
