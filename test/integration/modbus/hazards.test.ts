import type { Socket } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LinkError } from "../../../protocols/errors.ts";
import { Link } from "../../../protocols/modbus/link.ts";
import type { Span } from "../../../protocols/modbus/plan.ts";
import { isGood } from "../../../protocols/reading.ts";
import type { Running } from "./device.ts";
import { until, useModbusServer } from "./rig.ts";
import { exception, frame, type Request } from "./server.ts";

const numRuns = Number(process.env.MILLRACE_FUZZ_RUNS ?? 2000);

const rig = useModbusServer();

/** Two blocks of one register each, so that an answer to the one would pass for an answer to the other. */
function start(): Promise<Running> {
  return rig.start({
    port: rig.server.port,
    scan: "10 ms",
    timeout: "50 ms",
    tags: [
      { name: "near", register: "holding 5" },
      { name: "far", register: "holding 500" },
    ],
  });
}

/** Every value that was given is the right one, and both tags are well again after the fault. */
async function expectRightValues(one: Running): Promise<void> {
  const seen = one.readings.length;
  await until(() => {
    for (const tag of ["near", "far"]) {
      expect(
        one.readings.slice(seen).filter((reading) => reading.tag === tag && isGood(reading.quality)).length,
      ).toBeGreaterThan(3);
    }
  });
  expect(
    new Set(
      one
        .of("near")
        .map((reading) => reading.value)
        .filter((value) => value !== null),
    ),
  ).toEqual(new Set([5]));
  expect(
    new Set(
      one
        .of("far")
        .map((reading) => reading.value)
        .filter((value) => value !== null),
    ),
  ).toEqual(new Set([500]));
  expect(one.error).toBeUndefined();
}

/** Lets `fault` answer the next few requests for register 5; everything else is answered rightly. */
function disturb(times: number, fault: (request: Request, socket: Socket) => Buffer | "silence"): { left: number } {
  const state = { left: times };
  rig.server.script = (request, socket) => {
    if (request.address !== 5 || state.left <= 0) return undefined;
    state.left--;
    return fault(request, socket);
  };
  return state;
}

/** A right answer with one register, 0xBEEF, that no register holds. */
const wrong = (request: Request) => frame(request, Buffer.from([request.unitId, request.functionCode, 2, 0xbe, 0xef]));

function changed(bytes: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = value;
  return copy;
}

const faults: [string, (request: Request, socket: Socket) => Buffer | "silence"][] = [
  ["is cut short", (request) => wrong(request).subarray(0, 9)],
  ["is only half a header", (request) => wrong(request).subarray(0, 3)],
  ["is garbage", () => Buffer.from("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")],
  ["is zeros", () => Buffer.alloc(64)],
  ["answers an earlier transaction", (request) => wrong({ ...request, transactionId: request.transactionId - 1 })],
  ["answers a later transaction", (request) => wrong({ ...request, transactionId: request.transactionId + 1 })],
  ["answers a transaction that never was", (request) => wrong({ ...request, transactionId: 0xfffe })],
  ["comes from another unit", (request) => changed(wrong(request), 6, 77)],
  ["is for another function", (request) => changed(wrong(request), 7, 4)],
  ["announces fewer bytes than it has", (request) => changed(wrong(request), 8, 1)],
  ["announces more bytes than it has", (request) => changed(wrong(request), 8, 4)],
  ["is longer than asked for", (request) => frame(request, Buffer.from([1, 3, 4, 0xbe, 0xef, 0xbe, 0xef]))],
  ["is shorter than asked for", (request) => frame(request, Buffer.from([1, 3, 0]))],
  ["has a header that promises too little", (request) => changed(wrong(request), 5, 2)],
  ["has a header that promises nothing", (request) => changed(wrong(request), 5, 0)],
  ["has a header that promises too much", (request) => changed(wrong(request), 4, 0xff)],
  ["is an exception of another unit", (request) => exception({ ...request, unitId: 9 }, 2)],
  ["is an exception of another function", (request) => exception({ ...request, functionCode: 4 }, 2)],
  ["is an exception that is too long", (request) => frame(request, Buffer.from([1, 0x83, 2, 0xbe, 0xef]))],
  ["does not come", () => "silence"],
];

describe("an answer that", () => {
  it.each(faults)("%s is never a value, and the next request is answered", async (_, fault) => {
    const one = await start();
    await until(() => expect(one.of("far").length).toBeGreaterThan(1));
    const state = disturb(1, fault);
    await until(() => expect(state.left).toBe(0));
    await expectRightValues(one);
    expect(one.readings.filter((reading) => !isGood(reading.quality))).toEqual([]);
  });

  it.each([1, 2])("comes after its time, %i times in a row, never becomes another value", async (times) => {
    const one = await start();
    await until(() => expect(one.of("far").length).toBeGreaterThan(1));
    const state = disturb(times, (request, socket) => {
      // On the same connection, with the answer of its own register: just after the timeout.
      setTimeout(() => !socket.destroyed && socket.write(wrong(request)), 55);
      return "silence";
    });
    await until(() => expect(state.left).toBe(0));
    await expectRightValues(one);
  });

  it("comes byte by byte is understood", async () => {
    rig.server.script = (request, socket) => {
      for (const [index, byte] of rig.server.answerTo(request).entries()) {
        setTimeout(() => !socket.destroyed && socket.write(Buffer.from([byte])), index * 2);
      }
      return "silence";
    };
    await expectRightValues(await start());
  });

  it("comes together with others in one packet is the only one that counts", async () => {
    rig.server.script = (request) =>
      Buffer.concat([
        wrong({ ...request, transactionId: (request.transactionId + 255) & 0xff }),
        rig.server.answerTo(request),
        wrong(request),
        wrong({ ...request, transactionId: (request.transactionId + 1) & 0xff }),
      ]);
    const one = await start();
    // Beyond 256 requests, when the library's transaction numbers begin anew.
    await until(() => expect(rig.server.requests.length).toBeGreaterThan(300));
    await expectRightValues(one);
  });

  it("is cut off by a reset is asked for again on a new connection", async () => {
    const one = await start();
    await until(() => expect(one.of("far").length).toBeGreaterThan(1));
    const state = disturb(1, (request, socket) => {
      socket.write(wrong(request).subarray(0, 9), () => socket.resetAndDestroy());
      return "silence";
    });
    await until(() => expect(state.left).toBe(0));
    await expectRightValues(one);
    expect(rig.server.accepted).toBe(2);
  });
});

describe("a device that", () => {
  it("resets every connection over a request is a lost link", async () => {
    const one = await start();
    disturb(Number.POSITIVE_INFINITY, (_, socket) => {
      socket.resetAndDestroy();
      return "silence";
    });
    await one.ended;
    expect(one.error).toBeInstanceOf(LinkError);
  });

  it("falls silent for good is a lost link", async () => {
    const one = await start();
    await until(() => expect(one.of("far").length).toBeGreaterThan(1));
    rig.server.silent.add(1);
    await one.ended;
    expect(one.error).toBeInstanceOf(LinkError);
  });

  it("speaks something else than Modbus is not connected to, and the error shows what it said", async () => {
    rig.server.script = (request) => frame(request, Buffer.from([1, 3, 9, 1, 2, 3]));
    await expect(start()).rejects.toThrow(/no unit answers .*010309010203/);
  });
});

describe("any bytes in answer", () => {
  const span: Span = { unitId: 1, table: "holding", address: 300, length: 4 };
  const right = Buffer.from([1, 44, 1, 45, 1, 46, 1, 47]); // registers 300 to 303

  /** What a broken device may make of the right answer to a request. */
  const anyDamage: fc.Arbitrary<(answer: Buffer, request: Request) => Buffer> = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => () => Buffer.from(bytes)),
    fc.nat(16).map((length) => (answer: Buffer) => answer.subarray(0, length)),
    fc.tuple(fc.nat(8), fc.nat(255)).map(
      ([at, value]) =>
        (answer: Buffer) =>
          changed(answer, at, value),
    ),
    fc.tuple(fc.nat(8), fc.nat(255), fc.nat(8), fc.nat(255)).map(
      ([a, b, c, d]) =>
        (answer: Buffer) =>
          changed(changed(answer, a, b), c, d),
    ),
    fc.uint8Array({ minLength: 1, maxLength: 20 }).map((extra) => (answer: Buffer) => Buffer.concat([answer, extra])),
    fc.uint8Array({ minLength: 1, maxLength: 20 }).map((extra) => (answer: Buffer) => Buffer.concat([extra, answer])),
    fc
      .tuple(fc.nat(0xffff), fc.uint8Array({ minLength: 8, maxLength: 8 }))
      .map(([transactionId, data]) => (answer: Buffer, request: Request) => {
        const id = transactionId === request.transactionId ? transactionId + 1 : transactionId;
        return Buffer.concat([
          frame({ ...request, transactionId: id & 0xffff }, Buffer.from([1, 3, 8, ...data])),
          answer,
        ]);
      }),
    fc.tuple(fc.nat(255), fc.nat(255)).map(([unitId, code]) => (_: Buffer, request: Request) => {
      return frame(request, Buffer.from([unitId, 0x83, code]));
    }),
  );

  it("give the right registers or none, and leave the link fit for the next request", {
    timeout: 600_000,
  }, async () => {
    const link = new Link("127.0.0.1", rig.server.port);
    const signal = new AbortController().signal;
    let damage: ((answer: Buffer, request: Request) => Buffer) | undefined;
    rig.server.script = (request, socket) => {
      const bytes = damage?.(rig.server.answerTo(request), request);
      damage = undefined; // the second try is answered rightly
      if (bytes) socket.end(bytes);
      return bytes && "silence";
    };
    await fc.assert(
      fc.asyncProperty(anyDamage, async (anyOne) => {
        damage = anyOne;
        const answer = await link.read(span, 2000, signal);
        if (answer.kind === "data") expect(answer.bytes).toEqual(right);
        else expect(["exception", "garbage"]).toContain(answer.kind);
        damage = undefined;
        expect(await link.read(span, 2000, signal)).toEqual({ kind: "data", bytes: right });
      }),
      { numRuns },
    );
    link.close();
  });
});
