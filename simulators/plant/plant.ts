import { Drive } from "./drive.ts";
import { PackagingLine } from "./packaging-line.ts";
import { Pump } from "./pump.ts";
import { randomStream } from "./random.ts";
import { Reactor } from "./reactor.ts";
import { BatchPlanner } from "./recipe.ts";
import type { Equipment, Signal } from "./signal.ts";
import { Utilities } from "./utilities.ts";

export interface PlantOptions {
  /** The same seed gives the same plant, reading by reading. */
  readonly seed: number;
  /** Number of the first batch, and the year in its name. */
  readonly firstBatch: number;
  readonly year: number;
}

/** What each drive moves, with its torque at full speed against rated. */
const driveLoads = [0.42, 0.55, 0.61, 0.24, 0.48, 0.36];
/** How long the second reactor has been at work when the plant starts: long enough to be warm. */
const headStartSeconds = 70 * 60;

/** The plant's step, in seconds of its own time. A fixed step makes a run repeatable whatever the speed. */
export const stepSeconds = 0.25;

/**
 * A small pharmaceutical and packaging site: two reactors, the utilities they share with their chilled-water pump, and
 * a packaging line with six drives. It knows nothing of wires and clocks: time passes when `step` is called.
 */
export class Plant {
  readonly reactors: readonly Reactor[];
  readonly pump: Pump;
  readonly line: PackagingLine;
  readonly drives: readonly Drive[];
  /** Every signal of the plant by its name. */
  readonly signals: ReadonlyMap<string, Signal>;
  /** Seconds of the plant's time since it started. */
  seconds = 0;

  readonly #equipment: readonly Equipment[];

  constructor({ seed, firstBatch, year }: PlantOptions) {
    const utilities = new Utilities(seed);
    const ambient = () => utilities.ambientTemperature;
    const planner = new BatchPlanner(year, firstBatch, randomStream(seed, "batches"));
    const second = new Reactor("reactor-2", seed, planner, utilities);
    for (let t = 0; t < headStartSeconds; t += stepSeconds) second.step(stepSeconds);
    const first = new Reactor("reactor-1", seed, planner, utilities);
    this.reactors = [first, second];
    const cooling = () => this.reactors.reduce((sum, reactor) => sum + reactor.control.valves.cooling, 0);
    this.pump = new Pump("pump-1", seed, cooling, ambient);
    this.drives = driveLoads.map((load, index) => new Drive(`drive-${index + 1}`, seed, load, ambient));
    this.line = new PackagingLine("line-1", seed, this.drives, ambient);
    this.#equipment = [utilities, ...this.reactors, this.pump, this.line, ...this.drives];
    this.signals = new Map(this.#equipment.flatMap((each) => each.signals.map((signal) => [signal.name, signal])));
    this.step(); // so that every instrument has measured before anyone looks
  }

  /** Lets one step of `stepSeconds` pass. */
  step(): void {
    this.seconds += stepSeconds;
    for (const each of this.#equipment) each.step(stepSeconds);
  }
}
