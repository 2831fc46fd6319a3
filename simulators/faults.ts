import { FaultError, faultKinds, setPlantFault, splitFault } from "./plant/fault.ts";
import type { Plant } from "./plant/plant.ts";

/** A part of the plant's network that can be switched off: a server, or a unit behind one. */
export interface Device {
  readonly name: string;
  down(): Promise<void> | void;
  up(): Promise<void> | void;
}

const deviceDown = "device-down";

/** Every fault at once: those of the plant, and devices that are down. Named as `kind:target`. */
export class Faults {
  readonly #plant: Plant | undefined;
  readonly #devices: readonly Device[];
  readonly #active = new Set<string>();
  #last: Promise<unknown> = Promise.resolve();

  /** Without a plant (counter mode) only devices can fail. */
  constructor(plant: Plant | undefined, devices: readonly Device[]) {
    this.#plant = plant;
    this.#devices = devices;
  }

  /** The faults that are on, in the order in which they were set. */
  get active(): string[] {
    return [...this.#active];
  }

  /** What can be set: each kind with its meaning and its targets. */
  get known(): { kind: string; description: string; targets: string[] }[] {
    const plant = this.#plant;
    const ofPlant = plant
      ? faultKinds.map(({ kind, description, targets }) => ({ kind, description, targets: targets(plant) }))
      : [];
    const description =
      "The device does not answer: a server refuses connections, a unit is silent behind its gateway.";
    return [...ofPlant, { kind: deviceDown, description, targets: this.#devices.map((device) => device.name) }];
  }

  /**
   * Switches a fault on; once is enough.
   * @throws FaultError when there is no such kind or target
   */
  set(fault: string): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#active.has(fault)) return;
      await this.#switch(fault, true);
      this.#active.add(fault);
    });
  }

  /** Switches a fault off; false when it was not on. */
  clear(fault: string): Promise<boolean> {
    return this.#inTurn(async () => {
      if (!this.#active.has(fault)) return false;
      await this.#switch(fault, false);
      this.#active.delete(fault);
      return true;
    });
  }

  /** One change after the other: a server must not start while it still stops. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#last.then(change);
    this.#last = result.catch(() => {});
    return result;
  }

  async #switch(fault: string, on: boolean): Promise<void> {
    const [kind, target] = splitFault(fault);
    const known = this.known;
    if (!known.some((each) => each.kind === kind)) {
      throw new FaultError(`unknown fault "${fault}"; one of ${known.map((each) => `${each.kind}:…`).join(", ")}`);
    }
    if (kind !== deviceDown) return setPlantFault(this.#plant!, fault, on);
    const device = this.#devices.find((each) => each.name === target);
    if (!device) {
      throw new FaultError(`${fault}: no such device; one of ${this.#devices.map((each) => each.name).join(", ")}`);
    }
    await (on ? device.down() : device.up());
  }
}
