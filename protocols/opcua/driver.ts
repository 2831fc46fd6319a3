import { hostname } from "node:os";
import { type MonitoredItemNotification, setLogLevel } from "node-opcua-client";
import type { Driver, DriverContext, Protocol } from "../driver.ts";
import { isBad, now, type Quality, type Reading } from "../reading.ts";
import type { OpcuaDevice } from "./config.ts";
import { Connection } from "./connection.ts";
import { hasOverflowed, misfitOf, toReading } from "./decode.ts";
import { type Identity, temporaryIdentity } from "./identity.ts";
import { MonitoredItems, type Refusal } from "./items.ts";
import { ReadingQueue } from "./queue.ts";
import { Subscription, subscriptionTimes } from "./subscription.ts";

/** How many readings may wait for the collector, and from how many on the server is asked for no more. */
const queueLimit = 100_000;
const queueFull = 50_000;
/** How many tags a line of the log names. */
const namedTags = 10;

export interface OpcuaSettings {
  /** How long until a server is asked again for nodes that it has refused: they may have appeared. */
  readonly retryRefusedMs?: number;
}

/** OPC UA by subscription. One identity serves all devices of the agent; made when the first of them connects. */
export function opcua({ retryRefusedMs = 60_000 }: OpcuaSettings = {}): Protocol<OpcuaDevice> {
  // The library writes to the console what the driver says in its errors; its own variable brings that back.
  if (!process.env.NODEOPCUA_LOG_LEVEL) setLogLevel(0);
  let identity: Promise<Identity> | undefined;
  const identify = () => {
    identity ??= temporaryIdentity(hostname());
    return identity;
  };
  return { driver: (device, context) => new OpcuaDriver(device, context, identify, retryRefusedMs) };
}

class OpcuaDriver implements Driver {
  readonly #device: OpcuaDevice;
  readonly #context: DriverContext;
  readonly #identify: () => Promise<Identity>;
  readonly #retryRefusedMs: number;
  readonly #connection: Connection;
  /** By tag: the status of its last reading where that was bad, else 0. A bad state is told once. */
  readonly #lastBad: Uint32Array;
  #subscription: Subscription | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(device: OpcuaDevice, context: DriverContext, identify: () => Promise<Identity>, retryRefusedMs: number) {
    this.#device = device;
    this.#context = context;
    this.#identify = identify;
    this.#retryRefusedMs = retryRefusedMs;
    this.#connection = new Connection(device, context.log);
    this.#lastBad = new Uint32Array(device.tags.length);
  }

  /** Longer than the subscription's own judgement of silence takes, so that its message comes first. */
  get quietMs(): number {
    const { keepAliveMs, timeoutMs } =
      this.#subscription?.times ?? subscriptionTimes(this.#device.publishing, this.#device.timeout);
    return keepAliveMs + timeoutMs + 1000;
  }

  async connect(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await this.#connection.open(await this.#identify(), signal);
  }

  async *readings(signal: AbortSignal): AsyncGenerator<readonly Reading[]> {
    if (signal.aborted) return;
    const { lost } = this.#connection;
    lost.throwIfAborted();
    const queue = new ReadingQueue(queueLimit, (count) =>
      this.#context.overflow(null, `${count} readings dropped: they came faster than they could be taken`),
    );
    const ended = AbortSignal.any([signal, lost]);
    ended.addEventListener("abort", () => queue.wake(), { once: true });
    const subscription = this.#subscribe(queue);
    void this.#begin(subscription, queue);
    try {
      while (!signal.aborted) {
        const batch = queue.shift();
        if (batch) {
          if (queue.size < queueFull) subscription.publish();
          yield batch;
        } else if (lost.aborted) throw lost.reason;
        else await queue.changed();
      }
    } finally {
      subscription.stop();
    }
  }

  async close(): Promise<void> {
    const closed = this.#connection.close();
    clearTimeout(this.#retry);
    await closed;
  }

  #subscribe(queue: ReadingQueue): Subscription {
    const subscription = new Subscription(
      this.#connection,
      subscriptionTimes(this.#device.publishing, this.#device.timeout),
      {
        values: (notifications) => queue.push(this.#decode(notifications)),
        alive: () => queue.push([]),
        missed: (count) => this.#context.overflow(null, `${count} messages of the server did not arrive`),
        full: () => queue.size >= queueFull,
      },
    );
    this.#subscription = subscription;
    return subscription;
  }

  /** Opens the subscription and has all nodes watched; whatever fails ends the connection. */
  async #begin(subscription: Subscription, queue: ReadingQueue): Promise<void> {
    try {
      await subscription.open();
      const items = new MonitoredItems(this.#device, this.#connection);
      await this.#watch(
        items,
        subscription,
        queue,
        this.#device.tags.map((_, tag) => tag),
      );
      subscription.guard();
    } catch (error) {
      this.#connection.fail("cannot subscribe", error);
    }
  }

  /** Has nodes watched, tells which are refused, and asks for those again later. */
  async #watch(
    items: MonitoredItems,
    subscription: Subscription,
    queue: ReadingQueue,
    tags: readonly number[],
  ): Promise<void> {
    const { accepted, refused, slower } = await items.create(subscription.id, tags);
    this.#report(tags.length, accepted.length, refused);
    if (slower.length > 0) {
      const named = slower.slice(0, namedTags).map(({ tag, samplingMs }) => `${this.#nameOf(tag)}: ${samplingMs} ms`);
      this.#context.log.info({ tags: slower.length, slower: named }, "the server samples more slowly than asked");
    }
    const time = now();
    const news = refused.filter(({ tag, status }) => this.#isNews(tag, status));
    if (news.length > 0) {
      queue.push(news.map(({ tag, status }) => ({ tag: this.#nameOf(tag), time, value: null, quality: status })));
    }
    if (refused.length === 0) return;
    const retry = () => {
      const again = refused.map(({ tag }) => tag);
      this.#watch(items, subscription, queue, again).catch((error) => this.#connection.fail("cannot subscribe", error));
    };
    // A call for a subscription puts off its next sign of life on some servers: calls must not come as fast as those.
    this.#retry = setTimeout(retry, Math.max(this.#retryRefusedMs, 2 * subscription.times.keepAliveMs));
    if (this.#connection.lost.aborted) clearTimeout(this.#retry);
  }

  #report(asked: number, accepted: number, refused: readonly Refusal[]): void {
    const news = refused.filter(({ tag, status }) => this.#lastBad[tag] !== status);
    if (news.length === 0) {
      this.#context.log.debug({ asked, accepted }, "nodes subscribed");
      return;
    }
    const named = news.slice(0, namedTags).map(({ tag, status, detail }) => {
      return `${this.#nameOf(tag)}: ${detail} (0x${status.toString(16)})`;
    });
    this.#context.log.warn({ asked, accepted, refused: named }, "the server does not watch all nodes");
  }

  #decode(notifications: readonly MonitoredItemNotification[]): Reading[] {
    const arrival = now();
    const readings: Reading[] = [];
    for (const { clientHandle, value } of notifications) {
      const tag = this.#device.tags[clientHandle];
      if (!tag) continue;
      const status = value.statusCode.value;
      const reading = toReading(tag.name, tag.type, value, arrival);
      if (hasOverflowed(status)) this.#context.overflow(tag.name, "the server's queue for this node was full");
      if (!this.#isNews(clientHandle, reading.quality)) continue;
      const misfit = reading.value === null && !isBad(status) ? misfitOf(reading, value) : undefined;
      if (misfit) this.#context.log.warn({ tag: tag.name }, misfit);
      readings.push(reading);
    }
    return readings;
  }

  /** False for a bad status that the tag has had already. */
  #isNews(tag: number, quality: Quality): boolean {
    const bad = isBad(quality) ? quality : 0;
    const before = this.#lastBad[tag];
    this.#lastBad[tag] = bad;
    return bad === 0 || bad !== before;
  }

  #nameOf(tag: number): string {
    return this.#device.tags[tag]!.name;
  }
}
