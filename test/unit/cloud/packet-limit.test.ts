import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PacketLimit } from "../../../cloud/packet-limit.ts";

/** An MQTT packet with a body of this many bytes. */
function packet(bodyBytes: number): number[] {
  const length: number[] = [];
  let rest = bodyBytes;
  do {
    length.push((rest % 128) + (rest >= 128 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return [0x30, ...length, ...new Array<number>(bodyBytes).fill(0xff)];
}

describe("PacketLimit", () => {
  it("admits packets up to the limit, however their bytes are cut", () => {
    const bodies = fc.array(fc.oneof(fc.nat(3), fc.nat(1000)), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(bodies, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (sizes, cuts) => {
        const limit = new PacketLimit();
        const bytes = Uint8Array.from(sizes.flatMap(packet));
        for (let at = 0, cut = 0; at < bytes.length; cut++) {
          const end = at + cuts[cut % cuts.length]!;
          expect(limit.admits(bytes.subarray(at, end), 1000)).toBe(true);
          at = end;
        }
        // It stands at the beginning of a packet again.
        expect(limit.admits(Uint8Array.from(packet(1001)), 1000)).toBe(false);
      }),
    );
  });

  it("refuses a packet when it is announced, before its bytes are there", () => {
    expect(new PacketLimit().admits(Uint8Array.of(0x30, 0xff, 0xff, 0xff, 0x7f), 8 * 1024 * 1024)).toBe(false);
    const limit = new PacketLimit();
    expect(limit.admits(Uint8Array.of(0x10, 0x80, 0x80), 65_536)).toBe(true);
    expect(limit.admits(Uint8Array.of(0x05), 65_536)).toBe(false);
  });

  it("refuses a length of more than four bytes", () => {
    expect(new PacketLimit().admits(Uint8Array.of(0x30, 0x80, 0x80, 0x80, 0x80, 0), 2 ** 28)).toBe(false);
  });
});
