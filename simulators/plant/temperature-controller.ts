/** Positions of the two valves on a reactor's jacket, 0 to 1. */
export interface JacketValves {
  cooling: number;
  steam: number;
}

const gain = 10; // K of jacket setpoint per K of error
const integralSeconds = 4000;
const jacketSpan = 18; // K of jacket error that opens a valve fully
const strokeSeconds = 12; // from closed to open
const jacketLimits = [8, 125] as const; // degC

/**
 * A cascade, as reactors have it: the master (PI) gives the jacket its setpoint, the slave opens either the cooling or
 * the steam valve, and the valves take their time.
 */
export class TemperatureController {
  readonly valves: JacketValves = { cooling: 0, steam: 0 };
  /** What the controller asks for, degC. */
  setpoint = 20;
  /** Off: both valves close. */
  active = false;
  /** The cooling valve has closed and hangs, whatever it is told. */
  coolingStuck = false;

  #integral = 0;

  step(temperature: number, jacketTemperature: number, dtSeconds: number): void {
    const demand = this.active ? this.#demand(temperature, jacketTemperature, dtSeconds) : 0;
    if (!this.active) this.#integral = 0;
    const wanted = this.coolingStuck ? 0 : Math.max(0, -demand);
    this.valves.cooling = towards(this.valves.cooling, wanted, dtSeconds / strokeSeconds);
    this.valves.steam = towards(this.valves.steam, Math.max(0, demand), dtSeconds / strokeSeconds);
  }

  /** From -1 (all cooling) to 1 (all steam). */
  #demand(temperature: number, jacketTemperature: number, dtSeconds: number): number {
    const error = this.setpoint - temperature;
    const [low, high] = jacketLimits;
    const unlimited = this.setpoint + gain * (error + this.#integral);
    // Anti-windup: the integral stands still while the jacket is at its limit.
    if (unlimited > low && unlimited < high) this.#integral += (error * dtSeconds) / integralSeconds;
    const jacketSetpoint = Math.min(high, Math.max(low, unlimited));
    return Math.min(1, Math.max(-1, (jacketSetpoint - jacketTemperature) / jacketSpan));
  }
}

/** Moves a value towards a target by at most `step`. */
export function towards(value: number, target: number, step: number): number {
  return value < target ? Math.min(target, value + step) : Math.max(target, value - step);
}
