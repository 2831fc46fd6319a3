import { expect, it } from "vitest";
import { databaseError, needsPerson } from "../../../../cloud/store/sql-error.ts";
import { DataError, LinkError } from "../../../../protocols/errors.ts";

/** An error as the database's clients throw it, with its SQLSTATE. */
const failed = (code: string, message = "it failed") => Object.assign(new Error(message), { code });

it.each([
  ["08006", "connection failure"],
  ["25006", "read-only transaction"],
  ["28P01", "wrong password"],
  ["40001", "serialization failure"],
  ["40P01", "deadlock"],
  ["42P01", "a table is missing"],
  ["53100", "disk full"],
  ["53200", "out of memory"],
  ["53300", "too many connections"],
  ["55P03", "lock not available"],
  ["57014", "statement timeout"],
  ["57P01", "administrator's shutdown"],
  ["57P03", "cannot connect now"],
  ["58030", "I/O error"],
  ["XX000", "internal error"],
  ["ECONNREFUSED", "the socket's own code"],
])("takes %s (%s) for something that passes", (code) => {
  expect(databaseError(failed(code), "The database reports")).toBeInstanceOf(LinkError);
});

it.each([
  ["22003", "number out of range"],
  ["22021", "character not in repertoire"],
  ["23505", "unique violation"],
  ["54000", "a limit of the database exceeded"],
])("takes %s (%s) for a fault of the data", (code) => {
  expect(databaseError(failed(code), "The database reports")).toBeInstanceOf(DataError);
});

it("keeps cause, message and state, and an error that is classified already", () => {
  const cause = failed("57P01", "terminating connection");
  const error = databaseError(cause, "The database reports");
  expect(error.cause).toBe(cause);
  expect(error.message).toBe("The database reports: terminating connection (SQLSTATE 57P01)");
  expect(databaseError(error, "again")).toBe(error);
  expect(databaseError("odd", "The database reports").message).toBe("The database reports: odd");
});

it("knows what only a person can mend", () => {
  const wrapped = (code: string) => databaseError(failed(code), "The database reports");
  for (const code of ["28P01", "28000", "3D000", "42501"]) expect(needsPerson(wrapped(code))).toBe(true);
  for (const code of ["57P01", "ECONNREFUSED", "53300"]) expect(needsPerson(wrapped(code))).toBe(false);
});
