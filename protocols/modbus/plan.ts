import type { PlannedRequest } from "../driver.ts";
import { type ModbusTcpDevice, maxBits, sizeOf, type Table } from "./config.ts";
import { type Decoder, decoderOf } from "./decode.ts";

/** What a request reads: `length` registers (coils, discretes: bits) of one table of one unit, from `address` on. */
export interface Span {
  readonly unitId: number;
  readonly table: Table;
  readonly address: number;
  readonly length: number;
}

/** A tag with everything about reading it settled. */
export interface PlacedTag extends Span {
  readonly name: string;
  readonly everyMs: number;
  readonly decode: Decoder;
}

/** One request and the tags that its answer serves, in the order of their addresses. */
export interface Block extends Span {
  readonly everyMs: number;
  readonly tags: readonly PlacedTag[];
}

/** A place that no request may run across: none serves tags that begin before `address` and others from there on. */
export interface Cut {
  readonly unitId: number;
  readonly table: Table;
  readonly address: number;
}

/** What a device accepts, and what is worth reading along. */
export interface Limits {
  readonly maxRegisters: number;
  readonly maxGap: number;
  readonly cuts: readonly Cut[];
}

/** The function codes that read the tables (Modbus Application Protocol V1.1b3, 6.1 to 6.4). */
export const functionCodes = { coil: 1, discrete: 2, holding: 3, input: 4 } as const satisfies Record<Table, number>;

/** The tags of a device, each with its unit, place and rate. */
export function placedTags(device: ModbusTcpDevice): PlacedTag[] {
  return device.tags.map((tag) => ({
    name: tag.name,
    unitId: tag.unit_id ?? device.unit_id,
    table: tag.register.table,
    address: tag.register.address,
    length: sizeOf(tag),
    everyMs: tag.scan ?? device.scan,
    decode: decoderOf(tag),
  }));
}

/** The limits of a device that has refused nothing yet. */
export function limitsOf(device: ModbusTcpDevice): Limits {
  return { maxRegisters: device.max_registers, maxGap: device.max_gap, cuts: [] };
}

/**
 * The smallest number of requests that reads the tags: every tag in exactly one block, no value split, no block over
 * the limits, none over more than `maxGap` registers in a row that no tag wants, none across a cut.
 *
 * Among tags in the order of their addresses, a block begins at the first that is not served yet and takes in all that
 * fit. No plan needs fewer: some block must begin at or before that tag, and reaches no further for beginning earlier.
 */
export function planBlocks(tags: readonly PlacedTag[], limits: Limits): Block[] {
  const cuts = Map.groupBy(limits.cuts, tableKey);
  return [...Map.groupBy(tags, (tag) => `${tableKey(tag)} ${tag.everyMs}`).values()].flatMap((group) => {
    const sorted = group.toSorted((a, b) => a.address - b.address || a.length - b.length);
    const places = (cuts.get(tableKey(sorted[0]!)) ?? []).map((cut) => cut.address).sort((a, b) => a - b);
    return tableBlocks(sorted, places, limits);
  });
}

function tableKey({ unitId, table }: Cut | PlacedTag): string {
  return `${unitId} ${table}`;
}

/** The blocks of tags of one table and rate, in the order of their addresses as are the cuts. */
function tableBlocks(tags: readonly PlacedTag[], cuts: readonly number[], limits: Limits): Block[] {
  const onBits = tags[0]!.table === "coil" || tags[0]!.table === "discrete";
  const maxLength = onBits ? maxBits : limits.maxRegisters;
  const maxGap = onBits ? limits.maxGap * 16 : limits.maxGap;
  const blocks: Block[] = [];
  let served: PlacedTag[] = [];
  let end = 0;
  let cut = 0; // the index of the first cut behind the block's first tag
  for (const tag of tags) {
    const first = served[0] ?? tag;
    while (cut < cuts.length && cuts[cut]! <= first.address) cut++;
    const isCut = cut < cuts.length && cuts[cut]! <= tag.address;
    const isTooLong = tag.address + tag.length - first.address > maxLength;
    if (served.length > 0 && (isCut || isTooLong || tag.address - end > maxGap)) {
      blocks.push(blockOf(served));
      served = [];
      end = 0;
    }
    served.push(tag);
    end = Math.max(end, tag.address + tag.length);
  }
  blocks.push(blockOf(served));
  return blocks;
}

/** The block that reads these tags, given in the order of their addresses. */
export function blockOf(tags: readonly PlacedTag[]): Block {
  const { unitId, table, everyMs, address } = tags[0]!;
  const length = Math.max(...tags.map((tag) => tag.address + tag.length)) - address;
  return { unitId, table, address, length, everyMs, tags };
}

/** What will be asked of a device while it refuses nothing. */
export function planDevice(device: ModbusTcpDevice): Block[] {
  return planBlocks(placedTags(device), limitsOf(device));
}

/** A request in words: `unit 3, FC3 holding 100..117 (18 registers)`. */
export function describeSpan({ unitId, table, address, length }: Span): string {
  const what = table === "coil" || table === "discrete" ? "bit" : "register";
  const range = length === 1 ? `${address}` : `${address}..${address + length - 1}`;
  return `unit ${unitId}, FC${functionCodes[table]} ${table} ${range} (${length} ${what}${length === 1 ? "" : "s"})`;
}

/** The requests that each scan of a device makes, for people. */
export function plan(device: ModbusTcpDevice): PlannedRequest[] {
  return planDevice(device).map((block) => ({
    request: describeSpan(block),
    everyMs: block.everyMs,
    tags: block.tags.length,
  }));
}
