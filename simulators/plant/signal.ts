import { Instrument, type InstrumentData } from "./instrument.ts";
import { randomStream } from "./random.ts";

export type SignalValue = number | boolean | string;

/** One value that the plant's control systems show to the outside. */
export interface Signal {
  /** Equipment and name, joined by a dot: `reactor-1.temperature`. Unique in the plant. */
  readonly name: string;
  readonly description: string;
  readonly type: "real" | "integer" | "boolean" | "text";
  /** Engineering unit, where there is one. */
  readonly unit?: string;
  /** The instrument behind a measured value; counters, states and texts come from the controller itself. */
  readonly instrument?: Instrument;
  /** The present value; null while the sensor behind it has failed. */
  read(): SignalValue | null;
}

/** A signal that comes from an instrument: `truth` is the physical quantity in front of it. */
export interface MeasuredSignal extends Signal {
  readonly instrument: Instrument;
  truth(): number;
}

/** A part of the plant that lives in simulated time. */
export interface Equipment {
  readonly name: string;
  readonly signals: readonly Signal[];
  /** Lets `dtSeconds` of the plant's time pass. */
  step(dtSeconds: number): void;
}

/** Makes the signals of one piece of equipment, each instrument with its own stream of chance. */
export function signalsOf(equipment: string, seed: number) {
  return {
    measured(
      name: string,
      unit: string,
      description: string,
      data: InstrumentData,
      truth: () => number,
    ): MeasuredSignal {
      const full = `${equipment}.${name}`;
      const instrument = new Instrument(data, randomStream(seed, full));
      return { name: full, unit, description, type: "real", instrument, truth, read: () => instrument.reading };
    },
    real: (name: string, unit: string, description: string, read: () => number): Signal => ({
      name: `${equipment}.${name}`,
      unit,
      description,
      type: "real",
      read,
    }),
    integer: (name: string, unit: string | undefined, description: string, read: () => number): Signal => ({
      name: `${equipment}.${name}`,
      unit,
      description,
      type: "integer",
      read: () => Math.floor(read()),
    }),
    boolean: (name: string, description: string, read: () => boolean): Signal => ({
      name: `${equipment}.${name}`,
      description,
      type: "boolean",
      read,
    }),
    text: (name: string, description: string, read: () => string): Signal => ({
      name: `${equipment}.${name}`,
      description,
      type: "text",
      read,
    }),
  };
}

/** Lets every instrument among the signals measure once. */
export function sampleInstruments(signals: readonly Signal[], dtSeconds: number): void {
  for (const signal of signals) {
    if (isMeasured(signal)) signal.instrument.sample(signal.truth(), dtSeconds);
  }
}

function isMeasured(signal: Signal): signal is MeasuredSignal {
  return signal.instrument !== undefined;
}
