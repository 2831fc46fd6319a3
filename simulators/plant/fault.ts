import type { Plant } from "./plant.ts";

/** A fault that the plant does not know, or one that does not fit its target. The message says what would. */
export class FaultError extends Error {
  override name = "FaultError";
}

/** One kind of fault: how it is switched on and off at its target. */
interface FaultKind {
  readonly kind: string;
  readonly description: string;
  /** What it can befall: names of signals or of equipment. */
  targets(plant: Plant): string[];
  set(plant: Plant, target: string, on: boolean): void;
}

const measuredSignals = (plant: Plant) =>
  [...plant.signals.values()].filter((signal) => signal.instrument).map((signal) => signal.name);

/** Every kind of fault in the plant itself; those of its network belong to the servers. */
export const faultKinds: readonly FaultKind[] = [
  {
    kind: "stuck",
    description: "The instrument keeps showing its last reading.",
    targets: measuredSignals,
    set: (plant, target, on) => {
      plant.signals.get(target)!.instrument!.stuck = on;
    },
  },
  {
    kind: "drift",
    description: "The instrument wanders upward by 5 % of its range in an hour of the plant's time.",
    targets: measuredSignals,
    set: (plant, target, on) => {
      plant.signals.get(target)!.instrument!.drifting = on;
    },
  },
  {
    kind: "fail",
    description: "The sensor is broken: bad status on OPC UA, not-a-number or 8000 hex (unsigned: FFFF) on Modbus.",
    targets: measuredSignals,
    set: (plant, target, on) => {
      plant.signals.get(target)!.instrument!.failed = on;
    },
  },
  {
    kind: "bearing-wear",
    description: "The drive-end bearing wears out within six hours of the plant's time; cleared: it is replaced.",
    targets: (plant) => [plant.pump.name],
    set: (plant, _target, on) => {
      plant.pump.bearingWearing = on;
    },
  },
  {
    kind: "cooling-valve-stuck",
    description: "The cooling valve closes and hangs: an exothermic batch runs hot and does not cool down.",
    targets: (plant) => plant.reactors.map((reactor) => reactor.name),
    set: (plant, target, on) => {
      plant.reactors.find((reactor) => reactor.name === target)!.control.coolingStuck = on;
    },
  },
  {
    kind: "trip",
    description: "The drive trips on overload; the line is held until it is cleared.",
    targets: (plant) => plant.drives.map((drive) => drive.name),
    set: (plant, target, on) => {
      plant.drives.find((drive) => drive.name === target)!.tripped = on;
    },
  },
];

/**
 * Switches one fault on or off, named as `kind:target`.
 * @throws FaultError when there is no such kind or target
 */
export function setPlantFault(plant: Plant, fault: string, on: boolean): void {
  const [name, target] = splitFault(fault);
  const kind = faultKinds.find((each) => each.kind === name);
  if (!kind) {
    throw new FaultError(`unknown fault "${fault}"; one of ${faultKinds.map((each) => `${each.kind}:…`).join(", ")}`);
  }
  const targets = kind.targets(plant);
  if (!targets.includes(target))
    throw new FaultError(`${fault}: no ${target || "target"} for ${name}; one of ${targets.join(", ")}`);
  kind.set(plant, target, on);
}

/** `stuck:reactor-1.temperature` → its kind and its target. */
export function splitFault(fault: string): [kind: string, target: string] {
  const colon = fault.indexOf(":");
  return colon < 0 ? [fault, ""] : [fault.slice(0, colon), fault.slice(colon + 1)];
}
