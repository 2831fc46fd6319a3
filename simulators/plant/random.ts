/** A repeatable source of chance: the same seed and stream give the same numbers on every machine. */
export interface Random {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Uniform in [low, high). */
  between(low: number, high: number): number;
  /** Normally distributed: mean 0, standard deviation 1. */
  gaussian(): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
}

/**
 * A stream of its own for each part of the plant, so that a part added later changes no other part's series.
 * Generator: xorshift128 (G. Marsaglia, Xorshift RNGs, 2003), its state filled from a hash of seed and stream.
 */
export function randomStream(seed: number, stream: string): Random {
  let hash = mix(seed ^ 0x9e3779b9);
  for (const char of stream) hash = mix(hash ^ char.codePointAt(0)!);
  const next = () => {
    hash = mix(hash + 1);
    return hash;
  };
  let x = next();
  let y = next();
  let z = next();
  let w = next() | 1; // the state must not be all zero

  function uniform(): number {
    const t = x ^ (x << 11);
    x = y;
    y = z;
    z = w;
    w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
    return (w >>> 0) / 2 ** 32;
  }

  return {
    uniform,
    between: (low, high) => low + (high - low) * uniform(),
    // Box-Muller; 1 - uniform() is never 0, so the logarithm is finite.
    gaussian: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    chance: (probability) => uniform() < probability,
  };
}

/** Spreads every bit of a 32-bit integer over all of it. */
function mix(value: number): number {
  let bits = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  bits = Math.imul(bits ^ (bits >>> 15), 0x846ca68b);
  return bits ^ (bits >>> 16);
}
