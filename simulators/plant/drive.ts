import { type Random, randomStream } from "./random.ts";
import { type Equipment, type Signal, sampleInstruments, signalsOf } from "./signal.ts";
import { towards } from "./temperature-controller.ts";

const ratedSpeed = 1480; // rpm at 50 Hz
const ratedCurrent = 6.4; // A
const ramp = 220; // rpm/s
const motorSeconds = 1400; // thermal time constant of the motor
/** The code that a tripped drive shows: motor overload. */
export const overloadCode = 7;

/** A frequency converter with its motor. All six are of one type and differ in what they move. */
export class Drive implements Equipment {
  readonly name: string;
  readonly signals: readonly Signal[];
  /** Speed asked for by the line, 0 to 1 of rated. */
  command = 0;
  /** Tripped on overload: coasts down and shows its fault until it is reset (set to false). */
  tripped = false;
  speed = 0;

  readonly #random: Random;
  readonly #load: number;
  readonly #ambient: () => number;
  #disturbance = 0;
  #temperature: number;
  #runSeconds: number;

  /** `load`: torque at full speed, 0 to 1 of rated; `ambient`: degC. */
  constructor(name: string, seed: number, load: number, ambient: () => number) {
    this.name = name;
    this.#random = randomStream(seed, name);
    this.#load = load;
    this.#ambient = ambient;
    this.#temperature = ambient() + 18;
    this.#runSeconds = Math.floor(this.#random.between(4_000, 22_000)) * 3600;
    this.signals = this.#signals(seed);
  }

  /** Torque, 0 to 1 of rated: friction, the load with speed, and what the product does to it. */
  get torque(): number {
    const share = this.speed / ratedSpeed;
    if (share === 0) return 0;
    return 0.08 + this.#load * (0.35 + 0.65 * share) * (1 + this.#disturbance);
  }

  step(dtSeconds: number): void {
    const target = this.tripped ? 0 : this.command * ratedSpeed;
    this.speed = towards(this.speed, target, ramp * dtSeconds);
    const remembered = Math.exp(-dtSeconds / 8);
    this.#disturbance =
      this.#disturbance * remembered + 0.03 * Math.sqrt(1 - remembered ** 2) * this.#random.gaussian();
    if (this.speed > 0) this.#runSeconds += dtSeconds;
    const settled = this.#ambient() + 4 + 52 * this.torque ** 1.6;
    this.#temperature += ((settled - this.#temperature) * dtSeconds) / motorSeconds;
    sampleInstruments(this.signals, dtSeconds);
  }

  #signals(seed: number): Signal[] {
    const { measured, integer, boolean } = signalsOf(this.name, seed);
    // Magnetising current and load current stand at right angles.
    const current = () => (this.speed > 0 ? ratedCurrent * Math.hypot(0.38, 0.92 * this.torque) : 0);
    return [
      measured(
        "speed",
        "rpm",
        "Motor speed",
        { range: [0, 1800], resolution: { step: 0.5 }, noise: 0.25, dampingSeconds: 0.2 },
        () => this.speed,
      ),
      measured(
        "current",
        "A",
        "Motor current",
        { range: [0, 20], resolution: { step: 0.1 }, noise: 0.02, dampingSeconds: 0.5 },
        current,
      ),
      measured(
        "torque",
        "%",
        "Torque of rated",
        { range: [-200, 200], resolution: { step: 0.1 }, noise: 0.1, dampingSeconds: 0.5 },
        () => 100 * this.torque,
      ),
      measured(
        "temperature",
        "degC",
        "Motor winding",
        { range: [-20, 180], resolution: { step: 0.1 }, noise: 0.03, dampingSeconds: 5 },
        () => this.#temperature,
      ),
      measured(
        "dc_voltage",
        "V",
        "Intermediate circuit",
        { range: [0, 800], resolution: { step: 1 }, noise: 0.35, dampingSeconds: 1 },
        () => 565 - 9 * this.torque,
      ),
      integer("running_hours", "h", "Operating hours", () => this.#runSeconds / 3600),
      boolean("running", "The motor turns", () => this.speed > 0),
      boolean("fault", "The drive has tripped", () => this.tripped),
      integer("fault_code", undefined, "0: none, 7: motor overload", () => (this.tripped ? overloadCode : 0)),
    ];
  }
}
