import type { Signal } from "./plant/signal.ts";
import type { ByteOrder, RegisterPoint, RegisterType, Table } from "./registers.ts";

/** One line of the register map: where a signal of the unit's equipment stands. */
export interface MappedRegister {
  /** The signal's name within its equipment. */
  readonly signal: string;
  readonly table: Table;
  readonly address: number;
  readonly type: RegisterType;
  readonly bit?: number;
  readonly length?: number;
  readonly scale?: number;
}

/** One Modbus unit: a piece of equipment with its registers. */
export interface MappedUnit {
  readonly id: number;
  readonly equipment: string;
  /** Of the numbers of 32 and 64 bits; a single register has no order to differ in. */
  readonly order: ByteOrder;
  readonly registers: readonly MappedRegister[];
}

const driveRegisters: readonly MappedRegister[] = [
  { signal: "running", table: "holding", address: 0, type: "bit", bit: 0 },
  { signal: "fault", table: "holding", address: 0, type: "bit", bit: 3 },
  { signal: "fault_code", table: "holding", address: 1, type: "uint16" },
  { signal: "speed", table: "holding", address: 2, type: "float32" },
  { signal: "current", table: "holding", address: 4, type: "uint16", scale: 0.1 },
  { signal: "torque", table: "holding", address: 5, type: "int16", scale: 0.1 },
  { signal: "temperature", table: "holding", address: 6, type: "int16", scale: 0.1 },
  { signal: "dc_voltage", table: "holding", address: 7, type: "uint16" },
  { signal: "running_hours", table: "holding", address: 8, type: "uint32" },
];

const lineRegisters: readonly MappedRegister[] = [
  { signal: "state", table: "holding", address: 0, type: "uint16" },
  { signal: "mode", table: "holding", address: 1, type: "uint16" },
  { signal: "speed", table: "holding", address: 2, type: "float32" },
  { signal: "speed_setpoint", table: "holding", address: 4, type: "float32" },
  { signal: "infeed_count", table: "holding", address: 6, type: "uint32" },
  { signal: "good_count", table: "holding", address: 8, type: "uint32" },
  { signal: "reject_count", table: "holding", address: 10, type: "int32" },
  { signal: "lifetime_count", table: "holding", address: 12, type: "int64" },
  { signal: "energy", table: "holding", address: 16, type: "float64" },
  { signal: "weight_mean", table: "holding", address: 20, type: "float32" },
  { signal: "weight_last", table: "holding", address: 22, type: "float32" },
  { signal: "lot", table: "holding", address: 40, type: "string", length: 8 },
  { signal: "product", table: "holding", address: 48, type: "string", length: 12 },
  { signal: "serial_number", table: "holding", address: 60, type: "string", length: 8 },
  { signal: "seal_temperature_1", table: "input", address: 0, type: "int16", scale: 0.1 },
  { signal: "seal_temperature_2", table: "input", address: 1, type: "int16", scale: 0.1 },
  { signal: "seal_temperature_3", table: "input", address: 2, type: "int16", scale: 0.1 },
  { signal: "seal_temperature_4", table: "input", address: 3, type: "int16", scale: 0.1 },
  { signal: "film_tension", table: "input", address: 4, type: "uint16", scale: 0.1 },
  { signal: "seal_pressure", table: "input", address: 10, type: "float32" },
  { signal: "air_pressure", table: "input", address: 12, type: "float32" },
  { signal: "guard_closed", table: "discrete", address: 0, type: "bit" },
  { signal: "hopper_low", table: "discrete", address: 1, type: "bit" },
  { signal: "running", table: "coil", address: 0, type: "bit" },
  { signal: "reject_gate", table: "coil", address: 1, type: "bit" },
];

const pumpRegisters: readonly MappedRegister[] = [
  { signal: "vibration_de", table: "input", address: 0, type: "float32" },
  { signal: "vibration_nde", table: "input", address: 2, type: "float32" },
  { signal: "bearing_envelope", table: "input", address: 4, type: "float32" },
  { signal: "bearing_temperature_de", table: "input", address: 6, type: "int16", scale: 0.1 },
  { signal: "bearing_temperature_nde", table: "input", address: 7, type: "int16", scale: 0.1 },
  { signal: "flow", table: "input", address: 20, type: "float32" },
  { signal: "suction_pressure", table: "input", address: 22, type: "float32" },
  { signal: "discharge_pressure", table: "input", address: 24, type: "float32" },
  { signal: "motor_current", table: "input", address: 26, type: "uint16", scale: 0.1 },
  { signal: "speed", table: "input", address: 27, type: "uint16" },
  { signal: "running_hours", table: "input", address: 28, type: "int32" },
  { signal: "running", table: "discrete", address: 0, type: "bit" },
  { signal: "serial_number", table: "holding", address: 0, type: "string", length: 8 },
];

/** The units behind the plant's Modbus address. Their byte orders differ, as those of makers do. */
export const plantUnits: readonly MappedUnit[] = [
  { id: 1, equipment: "line-1", order: "ABCD", registers: lineRegisters },
  ...[1, 2, 3, 4, 5, 6].map(
    (number): MappedUnit => ({
      id: 10 + number,
      equipment: `drive-${number}`,
      order: "CDAB",
      registers: driveRegisters,
    }),
  ),
  { id: 21, equipment: "pump-1", order: "DCBA", registers: pumpRegisters },
];

/** The registers of a unit, bound to the plant's signals. */
export function pointsOf(unit: MappedUnit, signals: ReadonlyMap<string, Signal>): RegisterPoint[] {
  return unit.registers.map((register) => {
    const signal = signals.get(`${unit.equipment}.${register.signal}`);
    if (!signal) throw new Error(`the plant has no signal ${unit.equipment}.${register.signal}`);
    const wide = /(32|64)$/.test(register.type);
    return { ...register, ...(wide ? { order: unit.order } : {}), read: signal.read };
  });
}
