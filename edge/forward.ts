import type { MqttClient } from "mqtt";
import type { Logger } from "pino";
import { messageOf } from "../protocols/errors.ts";
import { type Acknowledgement, decodeAcknowledgement } from "../protocols/uplink/acknowledgement.ts";
import { deviceMapHash } from "../protocols/uplink/device-map.ts";
import { keepUplink, type UplinkAddress } from "../protocols/uplink/link.ts";
import { topics } from "../protocols/uplink/topics.ts";
import type { BufferedFrame, FrameBuffer, StreamPlace } from "./buffer/buffer.ts";

export interface ForwarderOptions {
  readonly edge: string;
  /** The streams that the buffer's frames belong to. */
  readonly streams: readonly StreamPlace[];
  readonly buffer: FrameBuffer;
  readonly address: UplinkAddress;
  /** How many frames may be on their way at once. */
  readonly window: number;
  /** Frames that are not acknowledged after this time are sent again. */
  readonly acknowledgeTimeoutMs: number;
  readonly log: Logger;
}

/** However long the cloud is away, it is asked again at least this often. */
const longestTimeoutMs = 60_000;
const checkMs = 500;

interface InFlight {
  /** Milliseconds of the monotonic clock. */
  readonly sentAt: number;
  readonly mapHash: string;
}

/** What can be in trouble for a while, and is said once each. */
type Trouble = "reading" | "deleting" | "publishing";

/**
 * Sends the buffer's frames, several in flight, and deletes those that the cloud says it has committed. MQTT's own
 * PUBACK frees nothing: a broker may give it before anything is stored. Whatever is not acknowledged in time, or was on
 * its way when the connection or the cloud was lost, is sent again; the cloud's ledger drops what it has already.
 */
export class Forwarder {
  connected = false;
  /** Counts since the start, for health reports. */
  readonly counts = { sent: 0, resent: 0, acknowledged: 0, refused: 0 };
  readonly #options: ForwarderOptions;
  readonly #log: Logger;
  /** By number, in the order they were sent. */
  readonly #inFlight = new Map<number, InFlight>();
  /** Device maps that were sent on this connection. */
  readonly #maps = new Set<string>();
  /** What the cloud has answered and the buffer has not yet done. */
  readonly #toRelease = new Set<number>();
  readonly #toSetAside = new Map<number, string>();
  #client: MqttClient | undefined;
  /** Publications that the broker has not confirmed, and how many it takes at once (MQTT 5's receive maximum). */
  #unconfirmed = 0;
  #receiveMaximum = 0;
  /** Frames up to this number were sent at least once since the last rewind. */
  #cursor = 0;
  #highest = 0;
  /** Counts what makes frames that were read from the buffer no longer those to send: rewinds, frames set aside. */
  #sweep = 0;
  #unanswered = false;
  #timeoutMs: number;
  /** When frames were last sent again because the cloud asked for a map, on the monotonic clock. */
  #mapsSentAt = Number.NEGATIVE_INFINITY;
  #mapsDue = false;
  #pumping = false;
  #pumpAgain = false;
  #settling = false;
  readonly #troubles = new Map<Trouble, string>();

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#timeoutMs = options.acknowledgeTimeoutMs;
  }

  /** Forwards until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { address, edge } = this.#options;
    const timer = setInterval(() => this.#check(), checkMs);
    const handlers = {
      subscriptions: [topics.acknowledgement(edge), topics.cloudReady],
      message: (topic: string, payload: Buffer, taken: () => void) => {
        this.#message(topic, payload);
        taken();
      },
      connected: (client: MqttClient, receiveMaximum: number) => {
        this.#client = client;
        this.#unconfirmed = 0;
        this.#receiveMaximum = receiveMaximum;
        this.connected = true;
        this.#maps.clear();
        this.#rewind();
      },
      lost: () => {
        this.#client = undefined;
        this.connected = false;
        this.#inFlight.clear();
      },
    };
    try {
      await keepUplink(address, handlers, this.#log, signal);
    } finally {
      clearInterval(timer);
    }
  }

  /** To be called when frames were appended. */
  notify(): void {
    this.#pump().then(
      () => this.#tell("reading", undefined),
      (error) => this.#tell("reading", `frames cannot be read from the buffer: ${messageOf(error)}`),
    );
  }

  /** Everything that is not acknowledged is to be sent again. */
  #rewind(): void {
    this.#inFlight.clear();
    this.#cursor = 0;
    this.#sweep++;
    this.notify();
  }

  async #pump(): Promise<void> {
    if (this.#pumping) {
      this.#pumpAgain = true;
      return;
    }
    this.#pumping = true;
    try {
      do {
        this.#pumpAgain = false;
        await this.#sendMore();
      } while (this.#pumpAgain);
    } finally {
      this.#pumping = false;
    }
  }

  async #sendMore(): Promise<void> {
    for (;;) {
      const client = this.#client;
      const sweep = this.#sweep;
      const room = Math.min(this.#options.window - this.#inFlight.size, this.#brokerRoom);
      if (client === undefined || room <= 0) return;
      const frames = await this.#options.buffer.oldest(this.#cursor, room);
      if (frames.length === 0) return;
      for (const frame of frames) {
        const map = this.#maps.has(frame.mapHash) ? undefined : await this.#readMap(frame.mapHash);
        if (client !== this.#client || sweep !== this.#sweep) break; // lost, rewound or set aside meanwhile
        if (map !== undefined) this.#sendMap(client, frame.mapHash, map);
        if (this.#brokerRoom <= 0) break;
        this.#send(client, frame);
        this.#cursor = frame.seq;
      }
    }
  }

  /** How many more publications the broker takes before it has confirmed some. */
  get #brokerRoom(): number {
    return this.#receiveMaximum - this.#unconfirmed;
  }

  /** undefined when the buffer does not hold it undamaged. */
  async #readMap(hash: string): Promise<Uint8Array | undefined> {
    const bytes = await this.#options.buffer.map(hash);
    return bytes !== undefined && deviceMapHash(bytes) === hash ? bytes : undefined;
  }

  /** The map goes before the first frame that needs it; the cloud answers the frame when it has stored both. */
  #sendMap(client: MqttClient, hash: string, bytes: Uint8Array): void {
    this.#maps.add(hash);
    this.#publish(client, topics.upward(this.#options.edge, "map"), bytes);
  }

  #send(client: MqttClient, { seq, mapHash, bytes }: BufferedFrame): void {
    this.#inFlight.set(seq, { sentAt: performance.now(), mapHash });
    this.counts.sent++;
    if (seq <= this.#highest) this.counts.resent++;
    this.#highest = Math.max(this.#highest, seq);
    this.#publish(client, topics.upward(this.#options.edge, "frame"), bytes);
  }

  #publish(client: MqttClient, topic: string, bytes: Uint8Array): void {
    const payload = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#unconfirmed++;
    client.publish(topic, payload, { qos: 1 }, (error) => {
      if (client !== this.#client) return; // a lost connection: what was on its way is sent again on the next one
      this.#unconfirmed--;
      this.#tell("publishing", error ? `the broker refuses ${topic}: ${messageOf(error)}` : undefined);
      if (this.#brokerRoom === 1) this.notify(); // there was none
    });
  }

  #message(topic: string, payload: Buffer): void {
    if (topic === topics.cloudReady) {
      this.#log.debug("the cloud has begun to listen: sending again what is not acknowledged");
      this.#maps.clear();
      this.#rewind();
      return;
    }
    try {
      this.#acknowledged(decodeAcknowledgement(payload));
    } catch (error) {
      this.#log.warn({ err: error }, "a message of the cloud is not understood");
    }
  }

  #acknowledged({ stream, committed, refused, mapsNeeded }: Acknowledgement): void {
    const place = this.#options.streams.find(({ uuid }) => uuid === stream);
    if (place !== undefined) {
      this.#settled(
        committed.map((seq) => place.before + seq),
        refused.map(({ seq, reason }) => ({ seq: place.before + seq, reason })),
      );
    }
    if (mapsNeeded.length > 0) this.#mapsNeeded(mapsNeeded);
  }

  #settled(committed: Acknowledgement["committed"], refused: Acknowledgement["refused"]): void {
    for (const seq of committed) this.#inFlight.delete(seq);
    for (const { seq } of refused) this.#inFlight.delete(seq);
    if (committed.length + refused.length > 0) this.#answered();
    this.counts.acknowledged += committed.length;
    this.counts.refused += refused.length;
    if (refused.length > 0) this.#log.error({ refused }, "the cloud can never store these frames: they are set aside");
    for (const seq of committed) this.#toRelease.add(seq);
    for (const { seq, reason } of refused) this.#toSetAside.set(seq, reason);
    this.#settle();
  }

  /** The cloud has not stored these maps. A map that it goes on asking for is sent once in a while, not in a circle. */
  #mapsNeeded(hashes: readonly string[]): void {
    for (const hash of hashes) {
      this.#maps.delete(hash);
      this.#setAsideWithoutMap(hash).catch(() => undefined); // a disk in trouble says so to whoever reads frames
    }
    if (performance.now() - this.#mapsSentAt < checkMs) {
      this.#mapsDue = true;
      return;
    }
    this.#mapsDue = false;
    this.#mapsSentAt = performance.now();
    this.#rewind();
  }

  /** Frames whose map is neither here nor in the cloud can never be stored, and would hold up all behind them. */
  async #setAsideWithoutMap(hash: string): Promise<void> {
    const waiting = [...this.#inFlight].filter(([, { mapHash }]) => mapHash === hash).map(([seq]) => seq);
    if (waiting.length === 0 || (await this.#readMap(hash)) !== undefined) return;
    this.#log.error({ map: hash, frames: waiting }, "frames are set aside: their device map is damaged or gone");
    const reason = "its device map was damaged on the edge's disk";
    for (const seq of waiting) this.#toSetAside.set(seq, reason);
    this.#settle();
  }

  /** Does in the buffer what the cloud has answered; what the disk refuses is tried again. */
  async #settle(): Promise<void> {
    if (this.#settling || this.#toRelease.size + this.#toSetAside.size === 0) return;
    this.#settling = true;
    const { buffer } = this.#options;
    try {
      while (this.#toRelease.size + this.#toSetAside.size > 0) {
        const released = [...this.#toRelease];
        if (released.length > 0) await buffer.release(released);
        for (const seq of released) this.#toRelease.delete(seq);
        const aside = [...this.#toSetAside].map(([seq, reason]) => ({ seq, reason }));
        if (aside.length > 0) await buffer.setAside(aside);
        for (const { seq } of aside) {
          this.#toSetAside.delete(seq);
          // It may have been sent again meanwhile, or be about to be, and nobody would answer.
          this.#inFlight.delete(seq);
          this.#sweep++;
        }
        this.notify();
      }
      this.#tell("deleting", undefined);
    } catch (error) {
      this.#tell("deleting", `acknowledged frames cannot be deleted from the buffer: ${messageOf(error)}`);
    } finally {
      this.#settling = false;
    }
  }

  #check(): void {
    this.#settle();
    if (this.#client === undefined) return;
    if (this.#troubles.has("reading")) this.notify();
    if (this.#mapsDue) this.#mapsNeeded([]);
    const [oldest] = this.#inFlight.values();
    if (oldest === undefined || performance.now() - oldest.sentAt < this.#timeoutMs) return;
    if (!this.#unanswered)
      this.#log.warn("the cloud does not acknowledge; what it owes is sent again from time to time");
    this.#unanswered = true;
    this.#timeoutMs = Math.min(this.#timeoutMs * 2, longestTimeoutMs);
    if (this.#unconfirmed < Math.min(this.#options.window, this.#receiveMaximum)) {
      this.#rewind();
    } else {
      // Whatever is sent again would pile up in the client of a broker that confirms nothing.
      this.#tell("publishing", "the broker confirms nothing: connecting anew");
      this.#client.end(true);
    }
  }

  #answered(): void {
    if (this.#unanswered) this.#log.info("the cloud acknowledges again");
    this.#unanswered = false;
    this.#timeoutMs = this.#options.acknowledgeTimeoutMs;
  }

  /** Says it once, and again when the cause changes. */
  #tell(about: Trouble, trouble: string | undefined): void {
    if (trouble === undefined) {
      this.#troubles.delete(about);
      return;
    }
    if (this.#troubles.get(about) !== trouble) this.#log.error(trouble);
    this.#troubles.set(about, trouble);
  }
}
