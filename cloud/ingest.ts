import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { MqttClient } from "mqtt";
import type { Logger } from "pino";
import { DataError, LinkError, messageOf } from "../protocols/errors.ts";
import { type Acknowledgement, encodeAcknowledgement } from "../protocols/uplink/acknowledgement.ts";
import { decodeDeviceMap, deviceMapHash } from "../protocols/uplink/device-map.ts";
import { type OpenedEnvelope, openEnvelope, unpackContent } from "../protocols/uplink/envelope.ts";
import { keepUplink, type UplinkAddress } from "../protocols/uplink/link.ts";
import { parseUpward, topics } from "../protocols/uplink/topics.ts";
import type { IngestMetrics } from "./metrics.ts";
import type { IncomingFrame, Store, WriteOutcome } from "./store/store.ts";

export interface IngestOptions {
  readonly store: Store;
  readonly address: UplinkAddress;
  /** The edges that may send. */
  readonly edges: readonly string[];
  /** Readings in one transaction, at the most; a single frame may exceed it. */
  readonly maxRowsPerTransaction: number;
  /** Bytes of frames that may wait for the database; more are left to their edges to send again. */
  readonly maxPendingBytes: number;
  readonly metrics: IngestMetrics;
  readonly log: Logger;
}

interface PendingFrame {
  readonly envelope: OpenedEnvelope;
  readonly topic: string;
  readonly raw: Buffer;
}

/** While one transaction is being copied, the next is being decoded. */
const writers = 2;
const firstWaitMs = 100;
const longestWaitMs = 5000;
/** Refusals that may wait for the database at once; more are only counted. */
const maxPendingRefusals = 100;

/**
 * Takes frames from the broker and writes them to the store, exactly once: the store's ledger drops what it has, and an
 * edge is told only after COMMIT. Frames that wait are grouped, so that a transaction grows with the load. A frame that
 * can never be stored is kept aside and refused, and holds up no other.
 */
export class Ingest {
  connected = false;
  readonly #options: IngestOptions;
  readonly #edges: ReadonlySet<string>;
  readonly #log: Logger;
  readonly #pending = new Map<string, PendingFrame>();
  /** Frames that are being written: an edge may send them again meanwhile. */
  readonly #writing = new Set<string>();
  readonly #savingMaps = new Set<Promise<void>>();
  #pendingBytes = 0;
  #pendingRefusals = 0;
  #client: MqttClient | undefined;
  #wake = Promise.withResolvers<void>();
  #stopped = false;
  #databaseAway = false;

  constructor(options: IngestOptions) {
    this.#options = options;
    this.#edges = new Set(options.edges);
    this.#log = options.log;
    options.metrics.observePending(() => this.#pendingBytes);
  }

  /** Ingests until `signal` is aborted; then finishes what is being written. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => {
      this.#stopped = true;
      this.#wake.resolve();
    });
    const writing = Array.from({ length: writers }, () => this.#writeLoop());
    const handlers = {
      subscriptions: topics.upwardFilters,
      message: (topic: string, payload: Buffer, taken: () => void) => {
        this.#message(topic, payload);
        taken();
      },
      connected: (client: MqttClient) => {
        this.#client = client;
        this.connected = true;
        client.publish(topics.cloudReady, randomUUID(), { qos: 1 });
      },
      lost: () => {
        this.#client = undefined;
        this.connected = false;
      },
    };
    // The connection outlives the writers, so that what they commit last is still acknowledged.
    const link = new AbortController();
    const linked = keepUplink(this.#options.address, handlers, this.#log, link.signal);
    await Promise.race([linked, ...writing]);
    await Promise.all(writing);
    link.abort();
    await linked;
  }

  #message(topic: string, payload: Buffer): void {
    const upward = parseUpward(topic);
    if (upward === undefined) return;
    try {
      if (!this.#edges.has(upward.edge)) throw new DataError(`the edge ${upward.edge} is not among the known edges`);
      if (upward.kind === "map") this.#map(upward.edge, payload);
      else this.#frame(upward.edge, topic, payload);
    } catch (error) {
      this.#refuse(topic, payload, error);
    }
  }

  #map(edge: string, payload: Buffer): void {
    const map = decodeDeviceMap(payload);
    if (map.edge !== edge) throw new DataError(`the edge ${edge} sent a device map of the edge ${map.edge}`);
    const hash = deviceMapHash(payload);
    const saved = this.#options.store
      .saveDeviceMap(hash, map, payload)
      .then(() => this.#acknowledge(edge, { mapsStored: [hash] }))
      .catch((error) => {
        // Without the map its frames are not taken either; the edge is asked for it again with them.
        if (error instanceof DataError) this.#refuse(topics.upward(edge, "map"), payload, error);
        else this.#databaseFailed(error);
      })
      .finally(() => this.#savingMaps.delete(saved));
    this.#savingMaps.add(saved);
  }

  #frame(edge: string, topic: string, payload: Buffer): void {
    const envelope = openEnvelope(payload);
    if (envelope.edge !== edge) throw new DataError(`the edge ${edge} sent a frame of the edge ${envelope.edge}`);
    const key = keyOf(envelope);
    if (this.#pending.has(key) || this.#writing.has(key)) return;
    if (this.#pendingBytes + payload.length > this.#options.maxPendingBytes) {
      this.#options.metrics.deferred();
      return;
    }
    this.#pending.set(key, { envelope, topic, raw: payload });
    this.#pendingBytes += payload.length;
    this.#wake.resolve();
  }

  async #writeLoop(): Promise<void> {
    while (!this.#stopped) {
      if (this.#pending.size === 0) {
        await this.#wake.promise;
        this.#wake = Promise.withResolvers();
        // Another writer may have been woken by the same call: all of them look.
        if (this.#pending.size === 0) continue;
      }
      await Promise.all(this.#savingMaps);
      const group = this.#takeGroup();
      if (group.length > 0) await this.#writeUntilDone(group);
    }
    this.#wake.resolve();
  }

  /** Takes waiting frames and decodes them, up to the bound of a transaction. */
  #takeGroup(): IncomingFrame[] {
    const group: IncomingFrame[] = [];
    let rows = 0;
    for (const [key, { envelope, topic, raw }] of this.#pending) {
      if (rows >= this.#options.maxRowsPerTransaction) break;
      this.#pending.delete(key);
      this.#pendingBytes -= raw.length;
      try {
        const { edge, stream, seq, mapHash } = envelope;
        const content = unpackContent(envelope);
        rows += content.readings.count;
        group.push({ edge, stream, seq, mapHash, content, raw });
        this.#writing.add(key);
      } catch (error) {
        this.#refuse(topic, raw, error, envelope);
      }
    }
    return group;
  }

  /** Writes the group, waiting for the database where need be; gives it back to the edges when the service stops. */
  async #writeUntilDone(group: readonly IncomingFrame[]): Promise<void> {
    try {
      for (let waitMs = firstWaitMs; !this.#stopped; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
        try {
          await this.#write(group);
          return;
        } catch (error) {
          this.#databaseFailed(error);
          await delay(waitMs * (0.75 + Math.random() / 2));
        }
      }
    } finally {
      for (const frame of group) this.#writing.delete(keyOf(frame));
    }
  }

  /** Writes the group; where a frame makes the database refuse, halves it until that frame stands alone. */
  async #write(group: readonly IncomingFrame[]): Promise<void> {
    const started = performance.now();
    let outcomes: WriteOutcome[];
    try {
      outcomes = await this.#options.store.write(group);
    } catch (error) {
      if (!(error instanceof DataError)) throw error;
      if (group.length === 1) {
        const [frame] = group;
        this.#refuse(topics.upward(frame!.edge, "frame"), frame!.raw, error, frame);
        return;
      }
      const middle = group.length >> 1;
      await this.#write(group.slice(0, middle));
      await this.#write(group.slice(middle));
      return;
    }
    if (this.#databaseAway) this.#log.info("the database takes frames again");
    this.#databaseAway = false;
    this.#options.metrics.committed(group, outcomes, (performance.now() - started) / 1000);
    this.#acknowledgeAll(group, outcomes);
  }

  #acknowledgeAll(group: readonly IncomingFrame[], outcomes: readonly WriteOutcome[]): void {
    const byStream = new Map<string, { edge: string; stream: string; committed: number[]; mapsNeeded: Set<string> }>();
    for (const [index, { edge, stream, seq, mapHash }] of group.entries()) {
      const entry = byStream.get(stream) ?? { edge, stream, committed: [], mapsNeeded: new Set() };
      byStream.set(stream, entry);
      if (outcomes[index] === "unknown_map") entry.mapsNeeded.add(mapHash);
      else entry.committed.push(seq);
    }
    for (const { edge, stream, committed, mapsNeeded } of byStream.values()) {
      this.#acknowledge(edge, { stream, committed, mapsNeeded: [...mapsNeeded] });
    }
  }

  /** Without a connection the acknowledgement is lost: the edge sends the frame again and is answered then. */
  #acknowledge(edge: string, acknowledgement: Partial<Acknowledgement>): void {
    const payload = Buffer.from(encodeAcknowledgement(acknowledgement));
    this.#client?.publish(topics.acknowledgement(edge), payload, { qos: 1 });
  }

  /**
   * Counts a message that can never be stored and keeps it for inspection. The edge is told, so that it does not send
   * it for ever, only when the frame is certainly its own and a copy is kept.
   */
  #refuse(
    topic: string,
    payload: Buffer | Uint8Array,
    error: unknown,
    frame?: Omit<OpenedEnvelope, "content" | "contentSize">,
  ): void {
    const reason = messageOf(error);
    this.#options.metrics.refused();
    this.#log.warn({ edge: parseUpward(topic)?.edge, topic, seq: frame?.seq }, `a message is refused: ${reason}`);
    if (this.#pendingRefusals >= maxPendingRefusals) return;
    this.#pendingRefusals++;
    const edge = parseUpward(topic)?.edge ?? null;
    const message = { topic, edge, stream: frame?.stream ?? null, seq: frame?.seq ?? null, reason, payload };
    this.#options.store
      .keepRefused([message])
      .then(() => {
        if (frame) this.#acknowledge(frame.edge, { stream: frame.stream, refused: [{ seq: frame.seq, reason }] });
      })
      .catch((failure) => this.#databaseFailed(failure))
      .finally(() => this.#pendingRefusals--);
  }

  #databaseFailed(error: unknown): void {
    if (!this.#databaseAway) {
      const kind = error instanceof LinkError ? "the database is away" : "the database fails";
      this.#log.error({ err: error }, `${kind}; frames wait, edges keep what is not acknowledged: ${messageOf(error)}`);
    }
    this.#databaseAway = true;
  }
}

function keyOf({ edge, stream, seq }: { edge: string; stream: string; seq: number }): string {
  return `${edge} ${stream} ${seq}`;
}
