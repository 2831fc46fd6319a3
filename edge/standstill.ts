import type { Logger } from "pino";
import { type Micros, now } from "../protocols/reading.ts";

const tickMs = 500;
/** A machine under load delays a timer; beyond this polls were missed. */
const noticedMs = 2000;

/**
 * Notices when this process did nothing for a while: stopped by a signal, starved by others, or frozen with its machine.
 * Measured by the monotonic clock, so that a clock that is set is none; so the time a suspended machine slept is not
 * seen either.
 * @param stoodStill told from when to when
 */
export function watchStandstill(stoodStill: (from: Micros, to: Micros) => void, log: Logger): NodeJS.Timeout {
  let last = performance.now();
  return setInterval(() => {
    const passedMs = performance.now() - last;
    last = performance.now();
    if (passedMs < tickMs + noticedMs) return;
    const to = now();
    log.warn(`the agent stood still for ${(passedMs / 1000).toFixed(1)} s: that time is recorded as a gap`);
    stoodStill(to - Math.ceil(passedMs * 1000), to);
  }, tickMs);
}
