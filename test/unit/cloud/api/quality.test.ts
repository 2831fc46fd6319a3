import { StatusCodes } from "node-opcua-client";
import { expect, test } from "vitest";
import { severityOf, statusName } from "../../../../cloud/api/quality.ts";
import { Quality } from "../../../../protocols/reading.ts";

const official = new Map(
  Object.values(StatusCodes as unknown as Record<string, { name: string; value: number }>).map(({ name, value }) => [
    value,
    name,
  ]),
);

test("every name in the table is the official one of its code", () => {
  let named = 0;
  for (let high = 0; high <= 0xffff; high++) {
    const code = high * 0x10000;
    const name = statusName(code);
    if (name.includes(" ")) continue;
    named++;
    expect(`${code.toString(16)} ${name}`).toBe(`${code.toString(16)} ${official.get(code)}`);
  }
  expect(named).toBeGreaterThan(60);
});

test("every status code that Millrace gives has its name", () => {
  for (const [name, code] of Object.entries(Quality)) expect(statusName(code)).toBe(name);
});

test("the flags in the lower half do not change the name", () => {
  expect(statusName(0x00000480)).toBe("Good");
  expect(statusName(0x803c0201)).toBe("BadOutOfRange");
});

test("a code without a name shows its severity and number", () => {
  expect(statusName(0x80ff0000)).toBe("Bad 0x80FF0000");
  expect(statusName(0x7fff0001)).toBe("Uncertain 0x7FFF0001");
  expect(statusName(0x3fff0000)).toBe("Good 0x3FFF0000");
  expect(statusName(0xffffffff)).toBe("Bad 0xFFFFFFFF");
});

test("severity comes from the top two bits", () => {
  expect([0x00000000, 0x3fffffff].map(severityOf)).toEqual(["good", "good"]);
  expect([0x40000000, 0x7fffffff].map(severityOf)).toEqual(["uncertain", "uncertain"]);
  expect([0x80000000, 0xbfffffff, 0xc0000000, 0xffffffff].map(severityOf)).toEqual(["bad", "bad", "bad", "bad"]);
});
