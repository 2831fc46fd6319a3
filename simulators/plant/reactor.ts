import { type Random, randomStream } from "./random.ts";
import type { Batch, BatchPlanner } from "./recipe.ts";
import { recipes } from "./recipe.ts";
import { type Equipment, type MeasuredSignal, type Signal, sampleInstruments, signalsOf } from "./signal.ts";
import { TemperatureController, towards } from "./temperature-controller.ts";
import { Vessel } from "./vessel.ts";

/** The phases of the procedure in their order, with the numbers that the controller shows (ISA-88: one unit procedure). */
export const phases = {
  idle: 0,
  charge: 10,
  heat: 20,
  react: 30,
  cool: 40,
  discharge: 50,
  clean: 60,
} as const;
export type PhaseName = keyof typeof phases;

/** What the rest of the site gives the reactor. */
export interface Surroundings {
  readonly ambientTemperature: number;
  readonly coolantTemperature: number;
}

const chargeRate = 1.1; // kg/s
const drainRate = 1.9; // kg/s
const rinseMass = 420; // kg of water to clean with
const rinseSeconds = 8 * 60;
const heatingRamp = 1.4 / 60; // K/s of setpoint
const coolingRamp = 1.1 / 60;
const agitatorRamp = 2; // rpm/s

/** A reactor that runs batch after batch: vessel, temperature control, the procedure, and the instruments on it. */
export class Reactor implements Equipment {
  readonly name: string;
  readonly vessel: Vessel;
  readonly control = new TemperatureController();
  readonly signals: readonly Signal[];

  /** The batch in the vessel; null between batches (while cleaning and idle). */
  batch: Batch | null = null;
  phase: PhaseName = "idle";
  /** Seconds of the plant's time since the phase began. */
  phaseSeconds = 0;

  readonly #random: Random;
  readonly #planner: BatchPlanner;
  readonly #surroundings: Surroundings;
  #idleSeconds = 30;
  #feed = 0;
  #drain = 0;
  #rinsed = 0;
  #agitatorSpeed = 0;

  constructor(name: string, seed: number, planner: BatchPlanner, surroundings: Surroundings) {
    this.name = name;
    this.vessel = new Vessel(surroundings.ambientTemperature);
    this.#random = randomStream(seed, name);
    this.#planner = planner;
    this.#surroundings = surroundings;
    this.signals = this.#signals(seed);
  }

  step(dtSeconds: number): void {
    this.phaseSeconds += dtSeconds;
    this.#procedure[this.phase](dtSeconds);
    this.#agitatorSpeed = towards(this.#agitatorSpeed, this.#agitatorSetpoint(), agitatorRamp * dtSeconds);
    this.control.step(this.vessel.temperature, this.vessel.jacketTemperature, dtSeconds);
    this.vessel.step(
      {
        feed: this.#feed,
        feedTemperature: this.#surroundings.ambientTemperature,
        feedReacts: this.phase === "charge",
        drain: this.#drain,
        coolingValve: this.control.valves.cooling,
        steamValve: this.control.valves.steam,
        agitatorSpeed: this.#agitatorSpeed,
        coolantTemperature: this.#surroundings.coolantTemperature,
        ambientTemperature: this.#surroundings.ambientTemperature,
      },
      (this.batch?.recipe ?? recipes[0]!).chemistry,
      dtSeconds,
    );
    sampleInstruments(this.signals, dtSeconds);
  }

  #enter(phase: PhaseName): void {
    this.phase = phase;
    this.phaseSeconds = 0;
    this.#feed = 0;
    this.#drain = 0;
  }

  /** What each phase does in a step, until it enters the next. */
  readonly #procedure: Record<PhaseName, (dtSeconds: number) => void> = {
    idle: () => this.#idle(),
    charge: () => this.#charge(),
    heat: (dtSeconds) => this.#heat(dtSeconds),
    react: () => this.#react(),
    cool: (dtSeconds) => this.#cool(dtSeconds),
    discharge: () => this.#discharge(),
    clean: (dtSeconds) => this.#clean(dtSeconds),
  };

  #idle(): void {
    if (this.phaseSeconds < this.#idleSeconds) return;
    this.batch = this.#planner.next();
    this.vessel.reset();
    this.#enter("charge");
  }

  #charge(): void {
    const missing = this.batch!.recipe.charge - this.vessel.mass;
    // The last fifty kilograms run in slowly, as a batching valve does it.
    this.#feed = missing > 50 ? chargeRate : chargeRate / 4;
    if (missing > 0) return;
    this.#enter("heat");
    this.control.active = true;
    this.control.setpoint = this.vessel.temperature;
  }

  #heat(dtSeconds: number): void {
    const target = this.batch!.recipe.reactionTemperature;
    this.control.setpoint = towards(this.control.setpoint, target, heatingRamp * dtSeconds);
    if (this.vessel.temperature > target - 1) this.#enter("react");
  }

  #react(): void {
    if (this.vessel.conversion >= this.batch!.recipe.conversion) this.#enter("cool");
  }

  #cool(dtSeconds: number): void {
    const target = this.batch!.recipe.dischargeTemperature - 2;
    this.control.setpoint = towards(this.control.setpoint, target, coolingRamp * dtSeconds);
    if (this.vessel.temperature > this.batch!.recipe.dischargeTemperature) return;
    this.control.active = false;
    this.#enter("discharge");
  }

  #discharge(): void {
    this.#drain = drainRate;
    if (this.vessel.mass > 0) return;
    this.batch = null;
    this.#rinsed = 0;
    this.#enter("clean");
  }

  #clean(dtSeconds: number): void {
    const filling = this.#rinsed < rinseMass;
    this.#feed = filling ? chargeRate * 1.5 : 0;
    this.#rinsed += this.#feed * dtSeconds;
    const filledSeconds = rinseMass / (chargeRate * 1.5);
    this.#drain = this.phaseSeconds > filledSeconds + rinseSeconds ? drainRate : 0;
    if (this.#drain === 0 || this.vessel.mass > 0) return;
    this.#idleSeconds = this.#random.between(240, 720);
    this.#enter("idle");
  }

  #agitatorSetpoint(): number {
    if (this.vessel.level < 12) return 0;
    if (this.phase === "clean") return 60;
    const { agitatorSpeed } = this.batch?.recipe ?? recipes[0]!;
    return this.phase === "react" || this.phase === "heat" ? agitatorSpeed : agitatorSpeed * 0.6;
  }

  #signals(seed: number): Signal[] {
    const { measured, integer, text } = signalsOf(this.name, seed);
    return [
      ...this.#processInstruments(measured),
      ...this.#valveAndAgitatorSignals(seed),
      text("batch_id", "Batch in the vessel; empty while there is none", () => this.batch?.id ?? ""),
      text(
        "recipe",
        "Recipe and revision of the batch; empty while there is none",
        () => this.batch?.recipe.name ?? "",
      ),
      text("phase", `Phase of the procedure: ${Object.keys(phases).join(", ")}`, () => this.phase),
      integer("phase_number", undefined, "Phase as a number: idle 0, charge 10, … clean 60", () => phases[this.phase]),
      integer("phase_time", "s", "Time since the phase began", () => this.phaseSeconds),
    ];
  }

  #processInstruments(measured: ReturnType<typeof signalsOf>["measured"]): MeasuredSignal[] {
    const { vessel } = this;
    const pt100 = { range: [-10, 150], resolution: { step: 0.1 }, noise: 0.025, dampingSeconds: 4 } as const;
    return [
      measured("temperature", "degC", "Contents", pt100, () => vessel.temperature),
      measured("jacket_temperature", "degC", "Jacket, mean", pt100, () => vessel.jacketTemperature),
      measured(
        "pressure",
        "bar",
        "Headspace, gauge",
        { range: [-1, 6], resolution: { bits: 14 }, noise: 0.0002, dampingSeconds: 1 },
        () => vessel.pressure,
      ),
      measured(
        "level",
        "%",
        "Filling level, guided radar",
        { range: [0, 100], resolution: { step: 0.1 }, noise: 0.03, dampingSeconds: 3 },
        () => vessel.level,
      ),
      measured(
        "mass",
        "kg",
        "Contents on the load cells",
        { range: [0, 2500], resolution: { step: 0.5 }, noise: 0.15, dampingSeconds: 2 },
        () => vessel.mass,
      ),
      measured(
        "conversion",
        "%",
        "Reacted share of the reactant, in-line near infrared",
        { range: [0, 100], resolution: { step: 0.1 }, noise: 0.04, dampingSeconds: 20 },
        () => 100 * vessel.conversion,
      ),
      measured(
        "feed_flow",
        "kg/h",
        "Feed, Coriolis meter",
        { range: [0, 8000], resolution: { step: 1 }, noise: 0.3, dampingSeconds: 1 },
        () => this.#feed * 3600,
      ),
      measured(
        "coolant_flow",
        "m3/h",
        "Coolant through the jacket, magnetic-inductive",
        { range: [0, 30], resolution: { bits: 12 }, noise: 0.004, dampingSeconds: 2 },
        () => vessel.coolantFlow,
      ),
    ];
  }

  #valveAndAgitatorSignals(seed: number): Signal[] {
    const { measured, real, boolean } = signalsOf(this.name, seed);
    const { vessel, control } = this;
    const position = { range: [0, 100], resolution: { step: 0.5 }, noise: 0.05 } as const;
    return [
      real("temperature_setpoint", "degC", "Setpoint of the temperature controller", () => round(control.setpoint, 1)),
      measured("cooling_valve", "%", "Position of the cooling valve", position, () => 100 * control.valves.cooling),
      measured("steam_valve", "%", "Position of the steam valve", position, () => 100 * control.valves.steam),
      measured(
        "agitator_speed",
        "rpm",
        "Agitator",
        { range: [0, 150], resolution: { step: 0.1 }, noise: 0.03, dampingSeconds: 0.5 },
        () => this.#agitatorSpeed,
      ),
      measured(
        "agitator_power",
        "kW",
        "Agitator's motor, electrical",
        { range: [0, 7.5], resolution: { step: 0.01 }, noise: 0.004, dampingSeconds: 2 },
        () => (this.#agitatorSpeed > 0 ? 0.18 + vessel.agitatorPower / 1000 / 0.86 : 0),
      ),
      measured(
        "agitator_torque",
        "N.m",
        "Agitator's shaft",
        { range: [0, 500], resolution: { bits: 12 }, noise: 0.12, dampingSeconds: 2 },
        () => vessel.agitatorTorque,
      ),
      boolean("agitator_running", "The agitator turns", () => this.#agitatorSpeed > 0),
      boolean("vent_valve", "Vent is open", () => vessel.ventOpen),
      boolean("discharge_valve", "Bottom valve is open", () => this.#drain > 0),
    ];
  }
}

function round(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
