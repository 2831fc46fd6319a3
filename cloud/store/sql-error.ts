import { ConfigError, DataError, LinkError, messageOf } from "../../protocols/errors.ts";

/** The SQLSTATE of a database's error (PostgreSQL manual, appendix A), looked for in its causes too. */
export function sqlState(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as { code?: unknown };
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : sqlState(error.cause);
}

/**
 * Says whose fault an error of the database is. Data that cannot be stored (classes 22 and 23, and what exceeds a limit
 * of the database, class 54) is a DataError. Everything else is the way to the database: connections, shutdowns, too
 * little memory or disk, deadlocks, a standby, a missing right, a missing table; all of them pass or get mended, and no
 * frame may be refused for them.
 */
export function databaseError(error: unknown, what: string): ConfigError | DataError | LinkError {
  if (error instanceof LinkError || error instanceof DataError || error instanceof ConfigError) return error;
  const state = sqlState(error);
  const message = `${what}: ${messageOf(error)}${state === undefined ? "" : ` (SQLSTATE ${state})`}`;
  if (state !== undefined && /^(22|23|54)/.test(state)) return new DataError(message, { cause: error });
  return new LinkError(message, { cause: error });
}

/** True when only a person can mend it: wrong password or user, no such database, no right to it. */
export function needsPerson(error: unknown): boolean {
  const state = sqlState(error);
  return state !== undefined && /^(28|3D|42501)/.test(state);
}
