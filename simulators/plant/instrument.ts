import type { Random } from "./random.ts";

/** What a transmitter's data sheet says. */
export interface InstrumentData {
  /** Lower and upper range value, in the signal's unit. A reading never leaves it. */
  readonly range: readonly [number, number];
  /** The smallest step of a reading: in the signal's unit (a digital transmitter), or the bits of its converter. */
  readonly resolution: { readonly step: number } | { readonly bits: number };
  /** Standard deviation of the noise, in the signal's unit. */
  readonly noise: number;
  /** Time constant of the transmitter's damping, in seconds; 0: none. */
  readonly dampingSeconds?: number;
}

/** The share of its range by which a drifting instrument wanders off in an hour of the plant's time. */
export const driftPerHour = 0.05;

/**
 * Turns a physical quantity into what an instrument shows of it: damped, noisy, in steps, within its range. Because of
 * the steps a steady quantity reads the same for a while, which is what makes plant data compress.
 */
export class Instrument {
  readonly data: InstrumentData;
  /** Holds the reading at its last value. */
  stuck = false;
  /** Wanders off upward while true; back at the truth as soon as it is false (the instrument is calibrated). */
  drifting = false;
  /** A broken sensor: there is no reading. */
  failed = false;

  readonly #random: Random;
  #damped: number | undefined;
  #bias = 0;
  #reading: number;

  constructor(data: InstrumentData, random: Random) {
    this.data = data;
    this.#random = random;
    this.#reading = data.range[0];
  }

  /** The present reading, in the signal's unit; null when the sensor has failed. */
  get reading(): number | null {
    return this.failed ? null : this.#reading;
  }

  /** Measures once, `dtSeconds` after the last time. */
  sample(truth: number, dtSeconds: number): void {
    const { range, noise, dampingSeconds = 0 } = this.data;
    // Chance is drawn even when it is not used, so that a fault changes nothing but its own instrument's reading.
    const disturbance = noise * this.#random.gaussian();
    const followed = this.#damped ?? truth;
    this.#damped = followed + (truth - followed) * Math.min(1, dtSeconds / (dampingSeconds + dtSeconds));
    this.#bias = this.drifting ? this.#bias + ((range[1] - range[0]) * driftPerHour * dtSeconds) / 3600 : 0;
    if (!this.stuck) this.#reading = this.#quantize(this.#damped + disturbance + this.#bias);
  }

  #quantize(value: number): number {
    const { range, resolution } = this.data;
    const [low, high] = range;
    const within = Math.min(high, Math.max(low, value));
    if ("bits" in resolution) {
      const step = (high - low) / (2 ** resolution.bits - 1);
      return low + Math.round((within - low) / step) * step;
    }
    // Divided by 10 rather than multiplied by 0.1, so that 71.3 is the number that prints as 71.3.
    const { step } = resolution;
    return step < 1 ? Math.round(within / step) / Math.round(1 / step) : Math.round(within / step) * step;
  }
}
