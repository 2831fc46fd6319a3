import type { MqttClient } from "mqtt";
import type { Logger } from "pino";
import { messageOf } from "../protocols/errors.ts";
import { type Acknowledgement, decodeAcknowledgement } from "../protocols/uplink/acknowledgement.ts";
import { keepUplink, type UplinkAddress } from "../protocols/uplink/link.ts";
import { topics } from "../protocols/uplink/topics.ts";
import type { BufferedFrame, FrameBuffer } from "./buffer/buffer.ts";

export interface ForwarderOptions {
  readonly edge: string;
  readonly stream: string;
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
  /** When each frame in flight was sent, in milliseconds of the monotonic clock. */
  readonly #inFlight = new Map<number, number>();
  /** Device maps that the cloud has confirmed on this connection, and those it was sent. */
  readonly #maps = new Map<string, "sent" | "stored">();
  #client: MqttClient | undefined;
  /** Frames up to this number were sent at least once since the last rewind. */
  #cursor = 0;
  #highest = 0;
  /** Counts the rewinds, so that a sending that was overtaken by one stops. */
  #sweep = 0;
  #unanswered = false;
  #timeoutMs: number;
  #pumping = false;
  #pumpAgain = false;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#timeoutMs = options.acknowledgeTimeoutMs;
  }

  /** Forwards until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { address, edge } = this.#options;
    const timer = setInterval(() => this.#checkTimeout(), checkMs);
    const handlers = {
      subscriptions: [topics.acknowledgement(edge), topics.cloudReady],
      message: (topic: string, payload: Buffer, taken: () => void) => {
        this.#message(topic, payload);
        taken();
      },
      connected: (client: MqttClient) => {
        this.#client = client;
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
    this.#pump().catch((error) =>
      this.#log.error({ err: error }, `frames cannot be read from the buffer: ${messageOf(error)}`),
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
    while (this.#client !== undefined && this.#inFlight.size < this.#options.window) {
      const client = this.#client;
      const sweep = this.#sweep;
      const frames = await this.#options.buffer.oldest(this.#cursor, this.#options.window - this.#inFlight.size);
      if (frames.length === 0) return;
      for (const frame of frames) {
        await this.#ensureMap(client, frame.mapHash);
        if (client !== this.#client || sweep !== this.#sweep) break; // lost or rewound meanwhile
        this.#send(client, frame);
        this.#cursor = frame.seq;
      }
    }
  }

  /** The map goes before the first frame that needs it; the cloud answers the frame when it has stored both. */
  async #ensureMap(client: MqttClient, hash: string): Promise<void> {
    if (this.#maps.has(hash)) return;
    const bytes = await this.#options.buffer.map(hash);
    if (bytes === undefined) {
      this.#log.error({ map: hash }, "the buffer holds frames of a device map that it does not hold");
      return;
    }
    this.#maps.set(hash, "sent");
    this.#publish(client, topics.upward(this.#options.edge, "map"), bytes);
  }

  #send(client: MqttClient, { seq, bytes }: BufferedFrame): void {
    this.#inFlight.set(seq, performance.now());
    this.counts.sent++;
    if (seq <= this.#highest) this.counts.resent++;
    this.#highest = Math.max(this.#highest, seq);
    this.#publish(client, topics.upward(this.#options.edge, "frame"), bytes);
  }

  #publish(client: MqttClient, topic: string, bytes: Uint8Array): void {
    const payload = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    client.publish(topic, payload, { qos: 1 }, (error) => {
      // A lost connection is seen by the link; what was on its way is sent again on the next one.
      if (error && client === this.#client && !client.disconnecting)
        this.#log.warn(`the broker refuses ${topic}: ${messageOf(error)}`);
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

  #acknowledged(acknowledgement: Acknowledgement): void {
    for (const hash of acknowledgement.mapsStored) this.#maps.set(hash, "stored");
    if (acknowledgement.mapsNeeded.length > 0) {
      for (const hash of acknowledgement.mapsNeeded) this.#maps.delete(hash);
      this.#rewind();
    }
    if (acknowledgement.stream !== this.#options.stream) return;
    const { committed, refused } = acknowledgement;
    for (const seq of committed) this.#inFlight.delete(seq);
    for (const { seq } of refused) this.#inFlight.delete(seq);
    if (committed.length + refused.length > 0) this.#answered();
    this.counts.acknowledged += committed.length;
    this.counts.refused += refused.length;
    const { buffer } = this.#options;
    if (refused.length > 0) this.#log.error({ refused }, "the cloud can never store these frames: they are set aside");
    Promise.all([committed.length > 0 && buffer.release(committed), refused.length > 0 && buffer.setAside(refused)])
      .catch((error) =>
        this.#log.error({ err: error }, "acknowledged frames cannot be deleted; they will be sent again"),
      )
      .finally(() => this.notify());
  }

  #checkTimeout(): void {
    if (this.#client === undefined) return;
    const [oldest] = this.#inFlight.values();
    if (oldest === undefined || performance.now() - oldest < this.#timeoutMs) return;
    if (!this.#unanswered)
      this.#log.warn("the cloud does not acknowledge; what it owes is sent again from time to time");
    this.#unanswered = true;
    this.#timeoutMs = Math.min(this.#timeoutMs * 2, longestTimeoutMs);
    this.#rewind();
  }

  #answered(): void {
    if (this.#unanswered) this.#log.info("the cloud acknowledges again");
    this.#unanswered = false;
    this.#timeoutMs = this.#options.acknowledgeTimeoutMs;
  }
}
