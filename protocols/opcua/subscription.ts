import {
  DataChangeNotification,
  type MonitoredItemNotification,
  PublishRequest,
  type PublishResponse,
  StatusChangeNotification,
} from "node-opcua-client";
import { type Connection, statusNameOf } from "./connection.ts";

/** How many publish requests wait at the server, so that it can send without waiting for the network. */
const publishPipeline = 5;
/** How many values one message may hold, so that a burst arrives in portions. */
const maxNotificationsPerPublish = 10_000;

/** What a subscription is asked for, in milliseconds. */
export interface SubscriptionTimes {
  readonly publishingMs: number;
  /** A server without news says so this often. */
  readonly keepAliveMs: number;
  /** The server forgets a subscription whose client is silent for so long. */
  readonly lifetimeMs: number;
  /** What an answer may take. */
  readonly timeoutMs: number;
}

/** The times of a subscription: two signs of life in each timeout, and a server that waits out a short outage. */
export function subscriptionTimes(publishingMs: number, timeoutMs: number): SubscriptionTimes {
  const keepAliveMs = Math.max(publishingMs, Math.min(timeoutMs / 2, 5000));
  return { publishingMs, keepAliveMs, timeoutMs, lifetimeMs: Math.max(60_000, 10 * keepAliveMs) };
}

/** Who takes what a subscription brings. */
export interface Subscriber {
  /** Values, in the order in which the server sent them. */
  values(notifications: readonly MonitoredItemNotification[]): void;
  /** The server lives and has nothing new. */
  alive(): void;
  /** So many messages were lost on the way. */
  missed(messages: number): void;
  /** True while no more should be asked for. */
  full(): boolean;
}

/**
 * One subscription of a session: creates it, keeps publish requests at the server, acknowledges, and watches that it
 * lives. A subscription that is silent, closed or forgotten by the server makes the connection `fail`.
 *
 * While the subscriber is full no further publish request is sent, so that values wait in the server's queues, where
 * an overflow is known by tag; but one is sent from time to time, lest the server forget the subscription.
 */
export class Subscription {
  readonly #connection: Connection;
  readonly #subscriber: Subscriber;
  #times: SubscriptionTimes;
  #id = 0;
  #acknowledgements: { subscriptionId: number; sequenceNumber: number }[] = [];
  #pipeline = publishPipeline;
  #inFlight = 0;
  #sentAt = 0;
  #answers = 0;
  #nextSequence = 1;
  #silence: NodeJS.Timeout | undefined;
  #hold: NodeJS.Timeout | undefined;

  constructor(connection: Connection, times: SubscriptionTimes, subscriber: Subscriber) {
    this.#connection = connection;
    this.#times = times;
    this.#subscriber = subscriber;
  }

  get id(): number {
    return this.#id;
  }

  /** The times as the server has revised them. */
  get times(): SubscriptionTimes {
    return this.#times;
  }

  /** @throws LinkError */
  async open(): Promise<void> {
    const { publishingMs, keepAliveMs, lifetimeMs } = this.#times;
    const requestedMaxKeepAliveCount = Math.max(1, Math.round(keepAliveMs / publishingMs));
    const answer = await this.#connection.request("create a subscription", (session) =>
      session.createSubscription({
        requestedPublishingInterval: publishingMs,
        requestedMaxKeepAliveCount,
        requestedLifetimeCount: Math.max(3 * requestedMaxKeepAliveCount, Math.ceil(lifetimeMs / publishingMs)),
        maxNotificationsPerPublish,
        publishingEnabled: true,
        priority: 0,
      }),
    );
    this.#id = answer.subscriptionId;
    const interval = answer.revisedPublishingInterval;
    this.#times = {
      ...this.#times,
      publishingMs: interval,
      keepAliveMs: interval * answer.revisedMaxKeepAliveCount,
      lifetimeMs: interval * answer.revisedLifetimeCount,
    };
    this.#connection.lost.addEventListener("abort", () => this.stop(), { once: true });
    this.publish();
  }

  /**
   * From now on silence is a fault. To be called when the items have been created: on some servers each of those calls
   * puts off the next sign of life.
   */
  guard(): void {
    if (this.#pipeline > 0) this.#silence = setTimeout(() => this.#judgeSilence(), this.#silenceMs);
  }

  /** Sends as many publish requests as are due. To be called when the subscriber is no longer full. */
  publish(): void {
    const due = () => this.#inFlight < this.#pipeline && !this.#connection.lost.aborted;
    while (due() && !this.#subscriber.full()) this.#send();
    if (!due() || this.#hold !== undefined) return;
    const restMs = Math.max(0, this.#sentAt + this.#times.lifetimeMs / 3 - performance.now());
    this.#hold = setTimeout(() => {
      this.#hold = undefined;
      if (due() && this.#subscriber.full()) this.#send();
      this.publish();
    }, restMs);
  }

  /** Ends the watch. The server ends the subscription with the session. */
  stop(): void {
    clearTimeout(this.#silence);
    clearTimeout(this.#hold);
    this.#pipeline = 0;
  }

  get #silenceMs(): number {
    return this.#times.keepAliveMs + this.#times.timeoutMs;
  }

  #send(): void {
    const { keepAliveMs, timeoutMs } = this.#times;
    // Requests queue up at the server, which answers one each keep-alive time when there is no news.
    const timeoutHint = Math.ceil((publishPipeline + 1) * keepAliveMs + timeoutMs);
    const request = new PublishRequest({
      requestHeader: { timeoutHint },
      subscriptionAcknowledgements: this.#acknowledgements,
    });
    this.#acknowledgements = [];
    if (this.#inFlight === 0) this.#silence?.refresh();
    this.#inFlight++;
    this.#sentAt = performance.now();
    this.#connection.session.publish(request, (error, response) => {
      this.#inFlight--;
      if (this.#pipeline === 0) return;
      // The library swallows what its callbacks throw.
      try {
        if (error || !response) this.#refused(error);
        else this.#received(response);
        this.publish();
      } catch (thrown) {
        this.#connection.fail("a message of the server cannot be processed", thrown);
      }
    });
  }

  #refused(error: Error | null): void {
    const status = statusNameOf(error);
    if (status === "BadTooManyPublishRequests" && this.#inFlight > 0) this.#pipeline = this.#inFlight;
    // The server's answer to a request that waited too long; the next one takes its place.
    else if (status !== "BadTimeout") this.#connection.fail("subscription lost", error ?? undefined);
  }

  #received(response: PublishResponse): void {
    this.#answers++;
    this.#silence?.refresh();
    const { subscriptionId, notificationMessage } = response;
    if (subscriptionId !== this.#id) return;
    const notifications = notificationMessage.notificationData ?? [];
    if (notifications.length === 0) {
      this.#subscriber.alive();
      return;
    }
    this.#count(notificationMessage.sequenceNumber);
    this.#acknowledgements.push({ subscriptionId, sequenceNumber: notificationMessage.sequenceNumber });
    for (const notification of notifications) {
      if (notification instanceof DataChangeNotification) this.#subscriber.values(notification.monitoredItems ?? []);
      else if (notification instanceof StatusChangeNotification) {
        this.#connection.fail(`the server has ended the subscription (${notification.status.name})`);
      }
    }
  }

  /** Messages with news are numbered without a gap, from 1 to 2^32 - 1 and again (OPC 10000-4, 5.14.1.1). */
  #count(sequenceNumber: number): void {
    const missed = sequenceNumber - this.#nextSequence;
    if (missed > 0) this.#subscriber.missed(missed);
    this.#nextSequence = sequenceNumber === 0xffff_ffff ? 1 : sequenceNumber + 1;
  }

  /** Called when nothing has come for too long; answers that wait in the socket still count. */
  #judgeSilence(): void {
    const answers = this.#answers;
    setImmediate(() => {
      if (this.#pipeline === 0) return;
      if (this.#inFlight === 0 || this.#answers > answers) this.#silence?.refresh();
      else this.#connection.failSilent(`no sign of life for ${Math.round(this.#silenceMs)} ms`);
    });
  }
}
