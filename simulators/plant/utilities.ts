import { type Random, randomStream } from "./random.ts";
import type { Surroundings } from "./reactor.ts";
import { type Equipment, type Signal, sampleInstruments, signalsOf } from "./signal.ts";

/** A disturbance that wanders around zero (Ornstein-Uhlenbeck process). */
class Wander {
  value = 0;
  readonly #random: Random;
  readonly #deviation: number;
  readonly #seconds: number;

  /** `deviation`: standard deviation in the long run; `seconds`: how long it remembers. */
  constructor(random: Random, deviation: number, seconds: number) {
    this.#random = random;
    this.#deviation = deviation;
    this.#seconds = seconds;
  }

  step(dtSeconds: number): void {
    const kick = this.#deviation * Math.sqrt((2 * dtSeconds) / this.#seconds) * this.#random.gaussian();
    this.value += kick - (this.value * dtSeconds) / this.#seconds;
  }
}

/** What the site gives to all of its equipment: chilled water, steam, nitrogen, and the air of the clean room. */
export class Utilities implements Equipment, Surroundings {
  readonly name = "utilities";
  readonly signals: readonly Signal[];

  #seconds = 0;
  readonly #chiller: Wander;
  readonly #steam: Wander;
  readonly #nitrogen: Wander;
  readonly #humidity: Wander;
  readonly #room: Wander;

  constructor(seed: number) {
    const wander = (what: string, deviation: number, seconds: number) =>
      new Wander(randomStream(seed, `utilities/${what}`), deviation, seconds);
    this.#chiller = wander("chiller", 0.5, 600);
    this.#steam = wander("steam", 0.06, 240);
    this.#nitrogen = wander("nitrogen", 0.08, 400);
    this.#humidity = wander("humidity", 2.5, 3600);
    this.#room = wander("room", 1.2, 60);
    this.signals = this.#signals(seed);
  }

  /** degC: the clean room is conditioned, yet follows the day a little. */
  get ambientTemperature(): number {
    return 21 + 0.8 * Math.sin((2 * Math.PI * this.#seconds) / 86_400);
  }

  /** Supply of the chilled water, degC: the compressor switches about every quarter of an hour. */
  get coolantTemperature(): number {
    return 10 + 0.7 * Math.sin((2 * Math.PI * this.#seconds) / 900) + this.#chiller.value;
  }

  step(dtSeconds: number): void {
    this.#seconds += dtSeconds;
    for (const wander of [this.#chiller, this.#steam, this.#nitrogen, this.#humidity, this.#room]) {
      wander.step(dtSeconds);
    }
    sampleInstruments(this.signals, dtSeconds);
  }

  #signals(seed: number): Signal[] {
    const { measured } = signalsOf(this.name, seed);
    const pt100 = { range: [-20, 80], resolution: { step: 0.1 }, noise: 0.02, dampingSeconds: 5 } as const;
    const gauge = { resolution: { bits: 12 }, noise: 0.001, dampingSeconds: 1 } as const;
    return [
      measured("chilled_water_temperature", "degC", "Chilled water, supply", pt100, () => this.coolantTemperature),
      measured(
        "steam_pressure",
        "bar",
        "Steam header, gauge",
        { ...gauge, range: [0, 6] },
        () => 3.2 + this.#steam.value,
      ),
      measured(
        "nitrogen_pressure",
        "bar",
        "Nitrogen header, gauge",
        { ...gauge, range: [0, 10] },
        () => 6 + this.#nitrogen.value,
      ),
      measured("room_temperature", "degC", "Clean room", pt100, () => this.ambientTemperature),
      measured(
        "room_humidity",
        "%",
        "Clean room, relative humidity",
        { range: [0, 100], resolution: { step: 0.1 }, noise: 0.04, dampingSeconds: 10 },
        () => 45 + this.#humidity.value,
      ),
      measured(
        "room_pressure",
        "Pa",
        "Clean room against the corridor",
        { range: [-50, 50], resolution: { step: 0.1 }, noise: 0.15, dampingSeconds: 2 },
        () => 15 + this.#room.value,
      ),
    ];
  }
}
