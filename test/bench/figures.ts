/** The middle of the figures: a noisy machine spoils a mean. */
export function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Prints one figure with its unit. */
export function print(what: string, value: number, unit: string, digits = 0): void {
  const number = value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits });
  console.log(`  ${what.padEnd(58)} ${number.padStart(12)} ${unit}`);
}
