import type { Logger } from "pino";
import { LinkError } from "../errors.ts";
import { isBad, now, Quality, type Reading } from "../reading.ts";
import type { ModbusTcpDevice } from "./config.ts";
import type { Link } from "./link.ts";
import { type Meaning, meaningOf, type Trouble } from "./meaning.ts";
import {
  type Block,
  blockOf,
  type Cut,
  describeSpan,
  limitsOf,
  type PlacedTag,
  placedTags,
  planBlocks,
  type Span,
} from "./plan.ts";
import { type Case, Quarantine } from "./quarantine.ts";
import { Schedule } from "./schedule.ts";

/** How often in a row a block may fail, while its unit is well, before something is done about it. */
const patience = 3;

/** A device whose faster tags are all refused is still asked for something this often. */
const signOfLifeMs = 5000;

type Batch = readonly Reading[];

/** The longest time between two batches of a healthy device, in ms: its fastest scan, and the patience with its link. */
export function quietMsOf(device: ModbusTcpDevice): number {
  return quietestMs(placedTags(device)) + device.timeout * 10;
}

function quietestMs(tags: readonly PlacedTag[]): number {
  return Math.max(
    signOfLifeMs,
    tags.reduce((least, tag) => Math.min(least, tag.everyMs), Number.POSITIVE_INFINITY),
  );
}

/**
 * The reading of one device over an open link: what is asked when, what is put aside because the device does not give
 * it, and what of it is said.
 */
export class Poll {
  readonly #device: ModbusTcpDevice;
  readonly #link: Link;
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #tags: readonly PlacedTag[];
  readonly #quietestMs: number;
  readonly #schedule: Schedule;
  readonly #quarantine = new Quarantine();
  /** Where requests were found not to run across, by halving what was refused as a whole. */
  readonly #cuts: Cut[] = [];
  /** How often in a row a request has failed, by its description. */
  readonly #failures = new Map<string, number>();
  /** What each unit has given last. */
  readonly #given = new Map<number, Span>();
  /** The tags whose last reading was bad, which is not repeated. */
  readonly #bad = new Map<string, Quality>();
  /** The tags of which the log says that they cannot be read. */
  readonly #lamented = new Set<string>();
  #lastSignMs = performance.now();
  #isPlanned = false;

  constructor(device: ModbusTcpDevice, link: Link, log: Logger, signal: AbortSignal) {
    this.#device = device;
    this.#link = link;
    this.#log = log;
    this.#signal = signal;
    this.#tags = placedTags(device);
    this.#quietestMs = quietestMs(this.#tags);
    const rates = this.#tags.map((tag) => tag.everyMs);
    this.#schedule = new Schedule(rates, performance.now(), (everyMs) =>
      log.warn({ everyMs }, `what is to be read every ${everyMs} ms takes longer than that: scans are left out`),
    );
  }

  /**
   * Does what is due now, or says until when, on the clock of `performance.now()`, nothing is.
   * Its batches @throws LinkError when the link is lost or no unit answers any more.
   */
  next(): AsyncIterable<Batch> | number {
    this.#plan();
    const nowMs = performance.now();
    const retry = this.#quarantine.next();
    const retryMs = retry ? Math.min(retry.dueMs, this.#lastSignMs + this.#quietestMs) : Number.POSITIVE_INFINITY;
    if (retry && retryMs <= nowMs) return this.#retry(retry.case);
    const scan = this.#schedule.next(nowMs);
    return typeof scan === "number" ? Math.min(scan, retryMs) : this.#read(scan);
  }

  /** Makes the plan anew after something was put aside or can be read again. */
  #plan(): void {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    const cases = this.#quarantine.cases;
    const aside = new Set(cases.flatMap((one) => one.tags));
    const holes = cases.flatMap((one) => (one.scope === "tags" ? one.tags : []));
    const limits = { ...limitsOf(this.#device), cuts: [...this.#cuts, ...holes] };
    this.#schedule.plan(
      planBlocks(
        this.#tags.filter((tag) => !aside.has(tag)),
        limits,
      ),
    );
  }

  async #ask(span: Span): Promise<Meaning> {
    const meaning = meaningOf(await this.#link.read(span, this.#device.timeout, this.#signal));
    if (meaning.is !== "unanswered") this.#lastSignMs = performance.now();
    if (meaning.is === "data") this.#given.set(span.unitId, span);
    return meaning;
  }

  /** Reads a block, and whatever is then needed to find out what is wrong with it; true when nothing was. */
  async *#read(block: Block): AsyncGenerator<Batch, boolean> {
    return yield* this.#take(block, await this.#ask(block));
  }

  async *#take(block: Block, meaning: Meaning): AsyncGenerator<Batch, boolean> {
    if (meaning.is === "data") {
      this.#failures.delete(describeSpan(block));
      yield this.#decode(block, meaning.bytes);
      return true;
    }
    if (meaning.is === "unanswered") return yield* this.#confirm(block, meaning);
    if (meaning.is === "refused" && meaning.whole) yield this.#putAside(block.tags, meaning);
    else if (meaning.is === "refused") yield* this.#halve(block, meaning);
    else if (meaning.is === "busy") yield this.#count(block) < patience ? [] : this.#markBad(block.tags, meaning);
    else if (this.#count(block) < patience || !(await this.#givesOther(block)))
      yield this.#markBad(block.tags, meaning);
    else yield* this.#halve(block, meaning);
    return false;
  }

  /** Counts one more failure of a block. */
  #count(block: Block): number {
    const count = (this.#failures.get(describeSpan(block)) ?? 0) + 1;
    this.#failures.set(describeSpan(block), count);
    return count;
  }

  /** What the unit gave last, if that is something else than this block. */
  #other(block: Block): Span | undefined {
    const given = this.#given.get(block.unitId);
    return given && describeSpan(given) !== describeSpan(block) ? given : undefined;
  }

  /** Whether the unit is well except for this block. */
  async #givesOther(block: Block): Promise<boolean> {
    const other = this.#other(block);
    return other !== undefined && (await this.#ask(other)).is === "data";
  }

  /** Looks for what is refused in a refused block, until it stands alone. */
  async *#halve(block: Block, trouble: Trouble): AsyncGenerator<Batch, void> {
    const starts = [...new Set(block.tags.map((tag) => tag.address))];
    if (starts.length === 1) {
      yield this.#putAside(block.tags, trouble);
      return;
    }
    yield []; // the device has answered
    const middle = starts[Math.ceil(starts.length / 2)]!;
    const left = blockOf(block.tags.filter((tag) => tag.address < middle));
    const right = blockOf(block.tags.filter((tag) => tag.address >= middle));
    const wasPatient = this.#failures.get(describeSpan(block));
    for (const half of wasPatient ? [left, right] : []) this.#failures.set(describeSpan(half), patience);
    const leftIsWell = yield* this.#read(left);
    const rightIsWell = yield* this.#read(right);
    if (!leftIsWell || !rightIsWell) return;
    // Each half is well, the two together are not: it is something between them, or the size.
    this.#cuts.push({ unitId: block.unitId, table: block.table, address: middle });
    this.#isPlanned = false;
  }

  /**
   * A request went unanswered: was it the unit, the block, or chance? Asking for what the unit gave last, if that is
   * something else, and once more for the block tells.
   */
  async *#confirm(block: Block, trouble: Trouble): AsyncGenerator<Batch, boolean> {
    const other = this.#other(block);
    if (other && (await this.#ask(other)).is === "unanswered") {
      yield this.#putUnitAside(block, trouble);
      return false;
    }
    const again = await this.#ask(block);
    if (again.is !== "unanswered") return yield* this.#take(block, again);
    yield other ? this.#putAside(block.tags, again) : this.#putUnitAside(block, again);
    return false;
  }

  /** Tries whether something that was put aside can be read again. */
  async *#retry(one: Case): AsyncGenerator<Batch, void> {
    const beganMs = performance.now();
    const meaning = await this.#ask(one.probe);
    this.#quarantine.tried(one, beganMs, performance.now());
    this.#lastSignMs = performance.now();
    if (meaning.is === "unanswered") {
      if (one.scope === "tags" && this.#plannedOf(one.unitId).length === 0)
        yield this.#putUnitAside(one.probe, meaning);
      return;
    }
    if (one.scope === "unit") this.#restoreUnit(one);
    else if (meaning.is === "data") this.#restore(one);
    yield [];
  }

  /** The tags of a unit that are read at present. */
  #plannedOf(unitId: number): PlacedTag[] {
    const aside = new Set(this.#quarantine.cases.flatMap((one) => one.tags));
    return this.#tags.filter((tag) => tag.unitId === unitId && !aside.has(tag));
  }

  #putAside(tags: readonly PlacedTag[], trouble: Trouble): Batch {
    const probe = blockOf(tags);
    this.#failures.delete(describeSpan(probe));
    this.#quarantine.add({ scope: "tags", unitId: probe.unitId, tags, probe }, performance.now());
    this.#isPlanned = false;
    return this.#markBad(tags, trouble);
  }

  /** @throws LinkError when it was the last unit */
  #putUnitAside({ unitId, ...span }: Span, { why }: Trouble): Batch {
    const tags = this.#plannedOf(unitId);
    const probe = tags.length > 0 ? blockOf([tags[0]!]) : { unitId, ...span };
    this.#quarantine.add({ scope: "unit", unitId, tags, probe }, performance.now());
    this.#isPlanned = false;
    const silent = this.#quarantine.cases.filter((one) => one.scope === "unit");
    if (new Set(this.#tags.map((tag) => tag.unitId)).size === silent.length) {
      const units = silent.map((one) => one.unitId).join(", ");
      throw new LinkError(`no unit answers any more (asked ${units}): ${why}`);
    }
    this.#log.warn(
      { unitId, tags: tags.length },
      `unit ${unitId} does not answer: ${why}; trying again from time to time`,
    );
    return this.#badReadings(tags, Quality.BadNoCommunication);
  }

  #restoreUnit(one: Case): void {
    this.#quarantine.remove(one);
    this.#isPlanned = false;
    this.#log.info({ unitId: one.unitId }, `unit ${one.unitId} answers again`);
  }

  /** One place can be read again: then the others of its table are tried together, not one by one. */
  #restore({ unitId, probe }: Case): void {
    for (const one of this.#quarantine.cases) {
      if (one.scope === "tags" && one.unitId === unitId && one.probe.table === probe.table)
        this.#quarantine.remove(one);
    }
    this.#isPlanned = false;
  }

  /** The readings that say that tags are bad, as far as that is new; the log says so too, once. */
  #markBad(tags: readonly PlacedTag[], { quality, why }: Trouble): Batch {
    for (const tag of tags) {
      if (this.#lamented.has(tag.name)) continue;
      this.#lamented.add(tag.name);
      this.#log.warn({ tag: tag.name }, `${describeSpan(tag)} cannot be read: ${why}; trying again from time to time`);
    }
    return this.#badReadings(tags, quality);
  }

  #badReadings(tags: readonly PlacedTag[], quality: Quality): Batch {
    const time = now();
    return tags.flatMap(({ name }) => (this.#isNews(name, quality) ? [{ tag: name, time, value: null, quality }] : []));
  }

  #decode(block: Block, bytes: Buffer): Batch {
    const time = now();
    const batch: Reading[] = [];
    for (const { name, address, decode } of block.tags) {
      const { value, quality } = decode(bytes, address - block.address);
      if (this.#lamented.delete(name)) this.#log.info({ tag: name }, "can be read again");
      if (this.#isNews(name, quality)) batch.push({ tag: name, time, value, quality });
    }
    return batch;
  }

  /** Whether a reading of this quality is to be given: bad ones once, until that changes. */
  #isNews(tag: string, quality: Quality): boolean {
    const before = this.#bad.get(tag);
    if (isBad(quality)) this.#bad.set(tag, quality);
    else if (before !== undefined) this.#bad.delete(tag);
    return !isBad(quality) || before !== quality;
  }
}
