/**
 * raw × scale + offset, as a person would reckon it: 453 × 0.1 is 45.3, where binary arithmetic alone gives
 * 45.300000000000004. Scale and offset are decimal fractions in the device map, so a whole raw number is multiplied in
 * whole numbers and divided by a power of ten once, which rounds once and correctly. Other numbers are reckoned plainly.
 */
export function linear(scale: number, offset: number): (raw: number) => number {
  const power = 10 ** Math.max(decimals(scale), decimals(offset));
  const wholeScale = Math.round(scale * power);
  const wholeOffset = Math.round(offset * power);
  const exact = power <= largestPower && wholeScale / power === scale && wholeOffset / power === offset;
  return (raw) => {
    const whole = raw * wholeScale + wholeOffset;
    if (exact && Number.isInteger(raw) && Number.isSafeInteger(whole)) return whole / power;
    return raw * scale + offset;
  };
}

/** Powers of ten up to here are exact in a double. */
const largestPower = 1e22;

/** How many decimal places the number has as it is written. */
function decimals(value: number): number {
  const [digits = "", exponent = "0"] = String(value).split("e");
  return Math.max(0, (digits.split(".")[1]?.length ?? 0) - Number(exponent));
}
