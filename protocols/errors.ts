/** A fault that a person has to mend: a wrong setting, a missing file. Never retried. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

/** The way to a device, broker or database is broken. Retried with backoff by whoever supervises that way. */
export class LinkError extends Error {
  override name = "LinkError";
}

/** One item is damaged or impossible: it is set aside and counted, never retried, never fatal. */
export class DataError extends Error {
  override name = "DataError";
}

/** An error's message with those of its causes, outermost first, for a log line or a gap's detail. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // A failed connection to several addresses is an AggregateError whose own message is empty.
  const own = error.message || (error instanceof AggregateError ? error.errors.map(messageOf).join("; ") : error.name);
  if (error.cause === undefined) return own;
  const cause = messageOf(error.cause);
  return own.includes(cause) ? own : `${own}: ${cause}`;
}
