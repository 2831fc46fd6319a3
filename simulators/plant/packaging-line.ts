import type { Drive } from "./drive.ts";
import { type Random, randomStream } from "./random.ts";
import { type Equipment, type Signal, sampleInstruments, signalsOf } from "./signal.ts";
import { towards } from "./temperature-controller.ts";

/** The states that this line takes of the PackML state model (ISA-TR88.00.02), with its numbers. */
export const packmlStates = {
  starting: 3,
  idle: 4,
  execute: 6,
  holding: 10,
  held: 11,
  unholding: 12,
  resetting: 15,
  completing: 16,
  complete: 17,
} as const;
export type PackmlState = keyof typeof packmlStates;

const lotSize = 9000; // packs
const fullSpeed = 120; // packs/min
const speedRamp = 15; // packs/min per second
const stopEverySeconds = 700; // mean time between short stops
const sealSetpoints = [162, 165, 165, 158]; // degC
const products = ["PARACETAMOL 500MG 20", "IBUPROFEN 200MG 24", "LOSARTAN 50MG 30"];
const nominalWeights = [18.4, 22.7, 15.9]; // g

/** One heated sealing jaw, controlled in time-proportioning pulses, losing heat to each pack. */
class SealingJaw {
  temperature: number;
  readonly setpoint: number;
  #power = 0.4;

  constructor(setpoint: number, ambient: number) {
    this.setpoint = setpoint;
    this.temperature = ambient + 0.9 * (setpoint - ambient);
  }

  step(packsPerSecond: number, ambient: number, dtSeconds: number): void {
    const error = this.setpoint - this.temperature;
    this.#power = Math.min(1, Math.max(0, this.#power + 0.0009 * error * dtSeconds));
    const heating = 900 * Math.min(1, Math.max(0, this.#power + 0.05 * error)); // W
    const lost = 2.2 * (this.temperature - ambient) + 45 * packsPerSecond; // W
    this.temperature += ((heating - lost) * dtSeconds) / 1800; // 1800 J/K
  }
}

/**
 * A blister and cartoning line: lot after lot, with short stops, a changeover between lots, and rejects that become
 * more when a sealing jaw is off its temperature. It moves six drives, and stands while one of them has tripped.
 */
export class PackagingLine implements Equipment {
  readonly name: string;
  readonly signals: readonly Signal[];
  state: PackmlState = "resetting";
  /** Packs per minute. */
  speed = 0;
  infeedCount = 0;
  goodCount = 0;
  rejectCount = 0;

  readonly #drives: readonly Drive[];
  readonly #ambient: () => number;
  readonly #random: Random;
  readonly #jaws: readonly SealingJaw[];
  #stateSeconds = 0;
  #stateLasts = 20;
  #lot = 311;
  #product = 0;
  #packs = 0; // fraction of the pack on its way
  #lotPacks = 0;
  #lifetime = 48_211_067;
  #weight: number;
  #weightMean: number;
  #airPressure = 6.8;
  #compressing = false;
  #energy = 91_344.2; // kWh
  #rejecting = false;

  /** `drives`: those the line moves, in the order of the product's way; `ambient`: degC. */
  constructor(name: string, seed: number, drives: readonly Drive[], ambient: () => number) {
    this.name = name;
    this.#drives = drives;
    this.#ambient = ambient;
    this.#random = randomStream(seed, name);
    this.#jaws = sealSetpoints.map((setpoint) => new SealingJaw(setpoint, ambient()));
    this.#weight = nominalWeights[0]!;
    this.#weightMean = this.#weight;
    this.signals = this.#signals(seed);
  }

  step(dtSeconds: number): void {
    this.#stateSeconds += dtSeconds;
    this.#changeState(dtSeconds);
    const wanted = this.state === "execute" ? fullSpeed : this.state === "starting" ? fullSpeed / 4 : 0;
    this.speed = towards(this.speed, wanted, speedRamp * dtSeconds);
    for (const drive of this.#drives) drive.command = (0.92 * this.speed) / fullSpeed;
    for (const jaw of this.#jaws) jaw.step(this.speed / 60, this.#ambient(), dtSeconds);
    this.#pack(dtSeconds);
    this.#compressAir(dtSeconds);
    const power = 3.1 + this.#drives.reduce((sum, drive) => sum + 2.2 * drive.torque * (drive.speed / 1480), 0); // kW
    this.#energy += (power * dtSeconds) / 3600;
    sampleInstruments(this.signals, dtSeconds);
  }

  #enter(state: PackmlState, seconds: number): void {
    this.state = state;
    this.#stateSeconds = 0;
    this.#stateLasts = seconds;
  }

  #changeState(dtSeconds: number): void {
    const over = this.#stateSeconds >= this.#stateLasts;
    const blocked = this.#drives.some((drive) => drive.tripped);
    const stops = this.#random.chance(dtSeconds / stopEverySeconds);
    switch (this.state) {
      case "resetting":
        if (over) this.#enter("idle", this.#random.between(20, 60));
        return;
      case "idle":
        if (over && !blocked) this.#enter("starting", 12);
        return;
      case "starting":
      case "unholding":
        if (over) this.#enter("execute", Number.POSITIVE_INFINITY);
        return;
      case "execute":
        if (blocked || stops) this.#enter("holding", 9);
        else if (this.#lotPacks >= lotSize) this.#enter("completing", 15);
        return;
      case "holding":
        if (over) this.#enter("held", this.#random.between(15, 90));
        return;
      case "held":
        if (over && !blocked) this.#enter("unholding", 4);
        return;
      case "completing":
        if (over) this.#enter("complete", this.#random.between(240, 480));
        return;
      case "complete":
        if (over) this.#changeOver();
    }
  }

  #changeOver(): void {
    this.#lot += 1;
    this.#product = (this.#product + 1) % products.length;
    this.#lotPacks = 0;
    this.infeedCount = 0;
    this.goodCount = 0;
    this.rejectCount = 0;
    this.#weightMean = nominalWeights[this.#product]!;
    this.#enter("resetting", 20);
  }

  #pack(dtSeconds: number): void {
    this.#packs += (this.speed / 60) * dtSeconds;
    while (this.#packs >= 1) {
      this.#packs -= 1;
      this.#lotPacks += 1;
      this.#lifetime += 1;
      this.infeedCount += 1;
      this.#weight = nominalWeights[this.#product]! * (1 + 0.006 * this.#random.gaussian());
      this.#weightMean += (this.#weight - this.#weightMean) / 50;
      this.#rejecting = this.#random.chance(this.#rejectProbability());
      if (this.#rejecting) this.rejectCount += 1;
      else this.goodCount += 1;
    }
  }

  /** 0.4 % at the right temperature; a seal 10 K off spoils nearly half of the packs. */
  #rejectProbability(): number {
    const worst = Math.max(...this.#jaws.map((jaw) => Math.abs(jaw.temperature - jaw.setpoint)));
    return 0.004 + Math.min(0.5, 0.005 * Math.max(0, worst - 1) ** 2);
  }

  /** The compressor switches between 6.4 and 7.2 bar. */
  #compressAir(dtSeconds: number): void {
    if (this.#airPressure < 6.4) this.#compressing = true;
    else if (this.#airPressure > 7.2) this.#compressing = false;
    const used = 0.002 + 0.00011 * this.speed;
    this.#airPressure += ((this.#compressing ? 0.035 : 0) - used) * dtSeconds;
  }

  #signals(seed: number): Signal[] {
    const { measured, real, integer, boolean, text } = signalsOf(this.name, seed);
    const jaw = { range: [0, 300], resolution: { step: 0.1 }, noise: 0.04, dampingSeconds: 1 } as const;
    const gauge = { range: [0, 10], resolution: { bits: 12 }, noise: 0.0015, dampingSeconds: 0.5 } as const;
    return [
      integer(
        "state",
        undefined,
        "PackML state: 3 starting, 4 idle, 6 execute, 10 holding, 11 held, 12 unholding, 15 resetting, 16 completing, 17 complete",
        () => packmlStates[this.state],
      ),
      integer("mode", undefined, "PackML mode: 1 production", () => 1),
      measured(
        "speed",
        "1/min",
        "Packs per minute",
        { range: [0, 200], resolution: { step: 0.5 }, noise: 0.05, dampingSeconds: 1 },
        () => this.speed,
      ),
      real("speed_setpoint", "1/min", "Packs per minute asked for", () => fullSpeed),
      integer("infeed_count", undefined, "Packs of this lot that came in", () => this.infeedCount),
      integer("good_count", undefined, "Good packs of this lot", () => this.goodCount),
      integer("reject_count", undefined, "Rejected packs of this lot", () => this.rejectCount),
      integer("lifetime_count", undefined, "Packs since the line was built", () => this.#lifetime),
      ...this.#jaws.map((one, index) =>
        measured(`seal_temperature_${index + 1}`, "degC", `Sealing jaw ${index + 1}`, jaw, () => one.temperature),
      ),
      measured("seal_pressure", "bar", "Sealing cylinders, gauge", gauge, () => (this.speed > 0 ? 4.2 : 0)),
      measured(
        "film_tension",
        "N",
        "Lidding film",
        { range: [0, 200], resolution: { step: 0.1 }, noise: 0.12, dampingSeconds: 1 },
        () => 12 + 0.28 * this.speed,
      ),
      real("weight_mean", "g", "Checkweigher, mean of about 50 packs", () => round(this.#weightMean, 2)),
      real("weight_last", "g", "Checkweigher, last pack", () => round(this.#weight, 2)),
      measured("air_pressure", "bar", "Compressed air, gauge", gauge, () => this.#airPressure),
      real("energy", "kWh", "Electricity since the line was built", () => round(this.#energy, 1)),
      text("lot", "Lot being packed", () => `L26-${String(this.#lot).padStart(4, "0")}`),
      text("product", "Product being packed", () => products[this.#product]!),
      text("serial_number", "Serial number of the line", () => "PKL-7700-0042"),
      boolean("guard_closed", "Every guard door is closed", () => this.state !== "held"),
      boolean("hopper_low", "Hopper runs empty: the lot is nearly done", () => this.#lotPacks > 0.95 * lotSize),
      boolean("running", "The line executes", () => this.state === "execute"),
      boolean("reject_gate", "The last pack was rejected", () => this.#rejecting),
    ];
  }
}

function round(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
