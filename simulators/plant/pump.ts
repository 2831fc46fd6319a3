import { type Equipment, type Signal, sampleInstruments, signalsOf } from "./signal.ts";
import { towards } from "./temperature-controller.ts";

const gravity = 9.81; // m/s2
const density = 1000; // kg/m3
const shutoffHead = 38; // m
const headLoss = 0.0105; // m per (m3/h)2, the pump's own curve
const staticHead = 6; // m
const bestFlow = 32; // m3/h
const suctionPressure = 1.4; // bar, gauge
const ratedSpeed = 2950; // rpm
const bearingSeconds = 900; // thermal time constant of the bearing housing
const wornSeconds = 6 * 3600; // from sound to worn out, once a bearing is damaged

/**
 * The chilled-water pump: a centrifugal pump on its curve against the reactors' cooling valves, and a drive-end bearing
 * that wears. Wear feeds on itself: a damaged bearing is worn out in about six hours of the plant's time, its envelope
 * acceleration rising first, then the vibration velocity, then the temperature.
 */
export class Pump implements Equipment {
  readonly name: string;
  readonly signals: readonly Signal[];
  /** The drive-end bearing is damaged and wears on; false: it is sound (a repair replaces it). */
  bearingWearing = false;

  readonly #demand: () => number;
  readonly #ambient: () => number;
  #wear = 0; // 0 sound, 1 worn out
  #flow = 12; // m3/h
  #bearingTemperature = 40;
  #runSeconds: number;

  /** `demand`: how far the consumers' valves are open, 0 to 2; `ambient`: degC. */
  constructor(name: string, seed: number, demand: () => number, ambient: () => number) {
    this.name = name;
    this.#demand = demand;
    this.#ambient = ambient;
    this.#runSeconds = 11_840 * 3600;
    this.signals = this.#signals(seed);
  }

  /** Vibration velocity at the drive end, mm/s RMS (10 to 1000 Hz, as ISO 20816 counts it). */
  get vibration(): number {
    const awayFromBest = Math.abs(this.#flow - bestFlow) / bestFlow;
    return 1.3 + 0.5 * awayFromBest + 9.5 * this.#wear ** 1.4;
  }

  /** Temperature of the drive-end bearing, degC. */
  get bearingTemperature(): number {
    return this.#bearingTemperature;
  }

  step(dtSeconds: number): void {
    this.#runSeconds += dtSeconds;
    this.#wearOn(dtSeconds);
    // A bypass keeps a minimum flow when every valve is closed.
    const opening = 0.35 + Math.min(1.6, this.#demand());
    const systemLoss = 0.02 / opening ** 2;
    const target = Math.sqrt((shutoffHead - staticHead) / (headLoss + systemLoss));
    this.#flow = towards(this.#flow, target, 0.8 * dtSeconds);
    const settled = this.#ambient() + 24 + 3 * this.#load + 38 * this.#wear ** 2;
    this.#bearingTemperature += ((settled - this.#bearingTemperature) * dtSeconds) / bearingSeconds;
    sampleInstruments(this.signals, dtSeconds);
  }

  #wearOn(dtSeconds: number): void {
    if (!this.bearingWearing) {
      this.#wear = 0;
      return;
    }
    // dw/dt = r (w + w0): exponential growth from 0 to 1 in wornSeconds.
    const onset = 0.02;
    const rate = Math.log((1 + onset) / onset) / wornSeconds;
    this.#wear = Math.min(1, this.#wear + rate * (this.#wear + onset) * dtSeconds);
  }

  get #head(): number {
    return shutoffHead - headLoss * this.#flow ** 2;
  }

  /** Hydraulic load against that at the best flow. */
  get #load(): number {
    return (this.#flow * this.#head) / (bestFlow * (shutoffHead - headLoss * bestFlow ** 2));
  }

  #signals(seed: number): Signal[] {
    const { measured, integer, boolean, text } = signalsOf(this.name, seed);
    const velocity = { range: [0, 25], resolution: { step: 0.01 }, noise: 0.02, dampingSeconds: 3 } as const;
    const housing = { range: [-20, 150], resolution: { step: 0.1 }, noise: 0.03, dampingSeconds: 8 } as const;
    const gauge = { range: [0, 10], resolution: { bits: 12 }, noise: 0.0015, dampingSeconds: 1 } as const;
    return [
      measured("vibration_de", "mm/s", "Vibration velocity RMS, drive end", velocity, () => this.vibration),
      measured(
        "vibration_nde",
        "mm/s",
        "Vibration velocity RMS, non-drive end",
        velocity,
        () => 1.1 + 0.35 * (this.vibration - 1.3),
      ),
      measured(
        "bearing_envelope",
        "gE",
        "Envelope acceleration of the drive-end bearing",
        { range: [0, 50], resolution: { step: 0.01 }, noise: 0.015, dampingSeconds: 3 },
        () => 0.6 + 14 * this.#wear ** 0.7,
      ),
      measured("bearing_temperature_de", "degC", "Bearing, drive end", housing, () => this.bearingTemperature),
      measured(
        "bearing_temperature_nde",
        "degC",
        "Bearing, non-drive end",
        housing,
        () => this.#ambient() + 21 + 3 * this.#load,
      ),
      measured(
        "flow",
        "m3/h",
        "Chilled water",
        { range: [0, 60], resolution: { bits: 14 }, noise: 0.01, dampingSeconds: 2 },
        () => this.#flow,
      ),
      measured("suction_pressure", "bar", "Suction, gauge", gauge, () => suctionPressure - 0.0002 * this.#flow ** 2),
      measured(
        "discharge_pressure",
        "bar",
        "Discharge, gauge",
        gauge,
        () => suctionPressure + (density * gravity * this.#head) / 1e5,
      ),
      measured(
        "motor_current",
        "A",
        "Motor",
        { range: [0, 20], resolution: { step: 0.1 }, noise: 0.02, dampingSeconds: 1 },
        () => 3.6 + 5.4 * this.#load + 0.9 * this.#wear,
      ),
      measured(
        "speed",
        "rpm",
        "Shaft",
        { range: [0, 3600], resolution: { step: 1 }, noise: 0.3, dampingSeconds: 1 },
        () => ratedSpeed - 22 * this.#load,
      ),
      integer("running_hours", "h", "Operating hours", () => this.#runSeconds / 3600),
      boolean("running", "The motor turns", () => true),
      text("serial_number", "Serial number of the vibration sensor", () => "VS-20-118842"),
    ];
  }
}
