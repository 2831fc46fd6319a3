import { setTimeout as delay } from "node:timers/promises";

const firstWaitMs = 100;
const longestWaitMs = 5000;

/**
 * Waits before the database is tried again: 0.1 s after the first failure (`attempt` 0), then twice as long each time, up
 * to 5 s; a quarter more or less, so that those who wait for the same thing do not all come at once. Ends early when
 * `signal` is aborted.
 */
export async function backOff(attempt: number, signal: AbortSignal): Promise<void> {
  const waitMs = Math.min(firstWaitMs * 2 ** Math.min(attempt, 10), longestWaitMs);
  await delay(waitMs * (0.75 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
}
