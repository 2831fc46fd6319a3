import type { Random } from "./random.ts";
import type { Chemistry } from "./vessel.ts";

/** A master recipe: what the product needs, before chance makes each batch a little different. */
export interface Recipe {
  /** Name and revision, as the batch system shows it. */
  readonly name: string;
  readonly chemistry: Chemistry;
  /** kg to charge. */
  readonly charge: number;
  /** degC to react at, and to cool down to before discharge. */
  readonly reactionTemperature: number;
  readonly dischargeTemperature: number;
  /** Agitator speed while reacting, rpm. */
  readonly agitatorSpeed: number;
  /** Share of the reactant that must have reacted, 0 to 1. */
  readonly conversion: number;
}

/** The products of the site. */
export const recipes: readonly Recipe[] = [
  {
    name: "MET-500 rev 3",
    chemistry: { adiabaticRise: 42, rateAt75: 1 / 1500, activationEnergy: 68e3 },
    charge: 1320,
    reactionTemperature: 75,
    dischargeTemperature: 26,
    agitatorSpeed: 90,
    conversion: 0.985,
  },
  {
    name: "IBU-200 rev 7",
    chemistry: { adiabaticRise: 30, rateAt75: 1 / 1100, activationEnergy: 61e3 },
    charge: 1180,
    reactionTemperature: 68,
    dischargeTemperature: 28,
    agitatorSpeed: 105,
    conversion: 0.98,
  },
  {
    name: "LOS-050 rev 2",
    chemistry: { adiabaticRise: 50, rateAt75: 1 / 2100, activationEnergy: 74e3 },
    charge: 1400,
    reactionTemperature: 80,
    dischargeTemperature: 25,
    agitatorSpeed: 75,
    conversion: 0.98,
  },
];

/** One run of a recipe. */
export interface Batch {
  /** `B2026-0147`: unique, increasing in the order in which batches begin. */
  readonly id: string;
  readonly recipe: Recipe;
}

/** Gives out batches to both reactors, so that no number is used twice. */
export class BatchPlanner {
  #next: number;
  readonly #year: number;
  readonly #random: Random;

  /** `first` is the number of the first batch, `year` the one in its name. */
  constructor(year: number, first: number, random: Random) {
    this.#year = year;
    this.#next = first;
    this.#random = random;
  }

  /** The next batch: one of the recipes, with raw material that differs a little from the last. */
  next(): Batch {
    const master = recipes[Math.floor(this.#random.uniform() * recipes.length)]!;
    const { chemistry } = master;
    const vary = (value: number, share: number) => value * (1 + this.#random.between(-share, share));
    const recipe: Recipe = {
      ...master,
      charge: vary(master.charge, 0.015),
      chemistry: {
        ...chemistry,
        adiabaticRise: vary(chemistry.adiabaticRise, 0.04),
        rateAt75: vary(chemistry.rateAt75, 0.06),
      },
    };
    return { id: `B${this.#year}-${String(this.#next++).padStart(4, "0")}`, recipe };
  }
}
