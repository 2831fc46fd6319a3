/** What the controller does to the vessel. */
export interface VesselInputs {
  /** Feed, kg/s, its temperature in degC, and whether it carries the reactant (a cleaning rinse does not). */
  readonly feed: number;
  readonly feedTemperature: number;
  readonly feedReacts: boolean;
  /** Discharge, kg/s. */
  readonly drain: number;
  /** Valve positions, 0 (closed) to 1 (open). */
  readonly coolingValve: number;
  readonly steamValve: number;
  /** Agitator, revolutions per minute. */
  readonly agitatorSpeed: number;
  /** Supply temperature of the coolant and that of the room, degC. */
  readonly coolantTemperature: number;
  readonly ambientTemperature: number;
}

/** What a recipe's chemistry says. */
export interface Chemistry {
  /** Temperature rise, in K, were all heat of reaction kept in the mass. */
  readonly adiabaticRise: number;
  /** Rate constant at 75 degC, 1/s. */
  readonly rateAt75: number;
  /** Activation energy, J/mol. */
  readonly activationEnergy: number;
}

const volume = 2.0; // m3
const density = 880; // kg/m3
const heatCapacity = 2300; // J/(kg K), solvent mixture
const jacketHeatCapacity = 1.2e6; // J/K, 290 kg of water
const heatTransfer = 2600; // W/K with the jacket fully wetted: 400 W/(m2 K), 6.5 m2
const heatLoss = 45; // W/K to the room
const steamTemperature = 135; // degC
const steamPower = 190e3; // W at a cold jacket, valve open
const coolantFlowMax = 6; // kg/s
const waterHeatCapacity = 4180; // J/(kg K)
const impellerDiameter = 0.75; // m
const powerNumber = 1.3; // retreat-curve impeller in turbulent flow
const gasConstant = 8.314; // J/(mol K)
const zeroCelsius = 273.15;
const atmosphere = 1.013; // bar

/**
 * A jacketed stirred-tank reactor of 2000 l: heat balance of contents and jacket, first-order exothermic reaction with
 * Arrhenius rate, headspace of nitrogen and solvent vapour. Explicit steps of up to a second are stable: the fastest
 * time constant, the jacket's, is about 45 s.
 */
export class Vessel {
  /** Contents: mass in kg, temperature in degC, share of the charged reactant that has reacted (0 to 1). */
  mass = 0;
  temperature: number;
  conversion = 0;
  /** Mean temperature of the jacket, degC. */
  jacketTemperature: number;
  ventOpen = false;

  #reactive = 0; // kg of contents that came as reacting feed
  #gas: number; // mol of nitrogen in the headspace
  #agitatorSpeed = 0;
  #coolantFlow = 0;

  constructor(ambientTemperature: number) {
    this.temperature = ambientTemperature;
    this.jacketTemperature = ambientTemperature;
    this.#gas = (1.15e5 * volume) / (gasConstant * (ambientTemperature + zeroCelsius));
  }

  /** Filling level in percent of the vessel's volume. */
  get level(): number {
    return (100 * this.mass) / (density * volume);
  }

  /** Gauge pressure in bar: nitrogen plus solvent vapour (toluene; Antoine equation, NIST WebBook coefficients). */
  get pressure(): number {
    const kelvin = this.temperature + zeroCelsius;
    const nitrogen = (this.#gas * gasConstant * kelvin) / this.#headspace / 1e5;
    const vapour = this.level > 1 ? 10 ** (4.07827 - 1343.943 / (kelvin - 53.773)) : 0;
    return nitrogen + vapour - atmosphere;
  }

  /** Shaft power of the agitator in W: power number x density x n^3 x d^5, less while the impeller is not covered. */
  get agitatorPower(): number {
    const perSecond = this.#agitatorSpeed / 60;
    const covered = Math.min(1, Math.max(0.02, (this.level - 4) / 16));
    return powerNumber * density * covered * perSecond ** 3 * impellerDiameter ** 5;
  }

  /** Torque on the agitator's shaft in N m. */
  get agitatorTorque(): number {
    const radiansPerSecond = (this.#agitatorSpeed * 2 * Math.PI) / 60;
    return radiansPerSecond < 0.1 ? 0 : this.agitatorPower / radiansPerSecond;
  }

  /** Coolant through the jacket in m3/h. */
  get coolantFlow(): number {
    return this.#coolantFlow * 3.6;
  }

  get #headspace(): number {
    return Math.max(0.05, volume - this.mass / density);
  }

  /** Forgets the last batch's reaction; called when the vessel is empty and a new batch begins. */
  reset(): void {
    this.conversion = 0;
    this.#reactive = 0;
  }

  step(inputs: VesselInputs, chemistry: Chemistry, dtSeconds: number): void {
    this.#agitatorSpeed = inputs.agitatorSpeed;
    this.#coolantFlow = coolantFlowMax * inputs.coolingValve;
    const reactionHeat = this.#react(chemistry, dtSeconds);
    this.#exchangeHeat(inputs, reactionHeat, dtSeconds);
    this.#moveMass(inputs, dtSeconds);
    this.#keepPressure(dtSeconds);
  }

  /** Lets the reaction go on; returns its heat in W. */
  #react(chemistry: Chemistry, dtSeconds: number): number {
    const kelvin = this.temperature + zeroCelsius;
    const exponent = (-chemistry.activationEnergy / gasConstant) * (1 / kelvin - 1 / (75 + zeroCelsius));
    const rate = chemistry.rateAt75 * Math.exp(exponent);
    const reacted = Math.min(1 - this.conversion, rate * (1 - this.conversion) * dtSeconds);
    this.conversion += reacted;
    return (reacted * chemistry.adiabaticRise * this.#reactive * heatCapacity) / dtSeconds;
  }

  #exchangeHeat(inputs: VesselInputs, reactionHeat: number, dtSeconds: number): void {
    const wetted = Math.min(1, this.level / 80);
    const transfer = heatTransfer * wetted * (0.6 + 0.4 * Math.min(1, this.#agitatorSpeed / 60));
    const throughWall = transfer * (this.jacketTemperature - this.temperature);
    const steam =
      (steamPower * inputs.steamValve * Math.max(0, steamTemperature - this.jacketTemperature)) / steamTemperature;
    const cooled = this.#coolantFlow * waterHeatCapacity * (this.jacketTemperature - inputs.coolantTemperature);
    const jacketLoss = heatLoss * (this.jacketTemperature - inputs.ambientTemperature);
    this.jacketTemperature += ((steam - cooled - throughWall - jacketLoss) * dtSeconds) / jacketHeatCapacity;

    const fed = inputs.feed * heatCapacity * (inputs.feedTemperature - this.temperature);
    const contentsLoss = heatLoss * (this.temperature - inputs.ambientTemperature);
    // The steel itself, 250 kJ/K, keeps the empty vessel's temperature finite.
    const capacity = this.mass * heatCapacity + 250e3;
    const heat = throughWall + reactionHeat + this.agitatorPower + fed - contentsLoss;
    this.temperature += (heat * dtSeconds) / capacity;
  }

  #moveMass(inputs: VesselInputs, dtSeconds: number): void {
    const fed = inputs.feed * dtSeconds;
    if (inputs.feedReacts && fed > 0) {
      // Fresh reactant lowers the share that has reacted.
      this.conversion = (this.conversion * this.#reactive) / (this.#reactive + fed);
      this.#reactive += fed;
    }
    this.mass += fed;
    const drained = Math.min(this.mass, inputs.drain * dtSeconds);
    if (this.mass > 0) this.#reactive *= 1 - drained / this.mass;
    this.mass -= drained;
  }

  /** The blanket: nitrogen is let in below 0.08 bar, vented from 0.45 bar down to 0.15 bar. */
  #keepPressure(dtSeconds: number): void {
    const pressure = this.pressure;
    if (pressure > 0.45) this.ventOpen = true;
    else if (pressure < 0.15) this.ventOpen = false;
    if (this.ventOpen) this.#gas *= 1 - Math.min(0.5, 0.01 * dtSeconds);
    // Vented empty, the headspace still holds a trace, and hot vapour keeps the pressure above the blanket's.
    else if (pressure < 0.08) this.#gas += 0.15 * dtSeconds;
  }
}
