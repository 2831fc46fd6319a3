import { randomUUID } from "node:crypto";
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import type { MqttClient } from "mqtt";
import type { Logger } from "pino";
import { DataError, LinkError, messageOf } from "../protocols/errors.ts";
import { type Acknowledgement, encodeAcknowledgement } from "../protocols/uplink/acknowledgement.ts";
import { decodeDeviceMap, deviceMapHash } from "../protocols/uplink/device-map.ts";
import { maxContentBytes, openEnvelope, unpackContent } from "../protocols/uplink/envelope.ts";
import type { FrameId } from "../protocols/uplink/frame.ts";
import { keepUplink, type UplinkAddress, type UplinkHandlers } from "../protocols/uplink/link.ts";
import { parseUpward, topics } from "../protocols/uplink/topics.ts";
import { backOff } from "./backoff.ts";
import type { IngestMetrics } from "./metrics.ts";
import { frameKey, PendingFrames } from "./pending.ts";
import { Quarantine } from "./quarantine.ts";
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

/** While one transaction is being copied, the next is being decoded. */
const writers = 2;
/** Decoded content in one transaction, at the most: rows alone do not bound it, as a frame may hold texts and gaps. */
const maxContentPerTransaction = 4 * maxContentBytes;
/** Device maps that may wait for the database, in bytes; a single one always may. */
const maxMapBytes = 8 * 1024 * 1024;
/** Refused device maps that are remembered. */
const maxRefusedMaps = 1000;
/** How long the broker may take for the last acknowledgements when the service stops. */
const lastAnswersMs = 2000;
/** So often is a group tried as it is, while the database answers. */
const patience = 3;

/**
 * Takes frames from the broker and writes them to the store, exactly once: the store's ledger drops what it has, and an
 * edge is told only after COMMIT. Frames that wait are grouped, so that a transaction grows with the load. A frame that
 * can never be stored is kept aside and refused, and holds up no other. README.md tells what happens in each failure.
 */
export class Ingest {
  connected = false;
  readonly #options: IngestOptions;
  readonly #edges: ReadonlySet<string>;
  readonly #log: Logger;
  readonly #pending: PendingFrames;
  readonly #quarantine: Quarantine;
  /** Frames that are being written: an edge may send them again meanwhile. */
  readonly #writing = new Set<string>();
  /** Device maps that are being saved, and their sizes in bytes. */
  readonly #savingMaps = new Map<string, number>();
  readonly #refusedMaps = new Set<string>();
  /** Writers that wait for something to write. */
  #idle: (() => void)[] = [];
  /** Acknowledgements that the broker has not confirmed yet. */
  readonly #answering = new Set<Promise<unknown>>();
  #client: MqttClient | undefined;
  #databaseAway = false;

  constructor(options: IngestOptions) {
    this.#options = options;
    this.#edges = new Set(options.edges);
    this.#log = options.log;
    this.#pending = new PendingFrames(options.maxPendingBytes);
    this.#quarantine = new Quarantine(options.store, options.log, (error) => this.#databaseFailed(error));
    options.metrics.observePending(() => this.#pending.bytes);
  }

  /**
   * Ingests until `signal` is aborted; then finishes what is being written. What waits is left to the edges, which send
   * it again.
   */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.#wake());
    const link = new AbortController();
    const linked = keepUplink(this.#options.address, this.#handlers(), this.#log, link.signal);
    const writing = Array.from({ length: writers }, () => this.#writeLoop(signal));
    const working = Promise.all([...writing, this.#quarantine.run(signal)]);
    try {
      await Promise.race([linked, working]); // the link ends by itself only when it fails
      await working;
      // The connection outlives the writers, so that what they commit last is still acknowledged.
      await Promise.race([Promise.all(this.#answering), delay(lastAnswersMs, undefined, { ref: false })]);
    } finally {
      link.abort();
      await linked;
    }
  }

  #handlers(): UplinkHandlers {
    return {
      subscriptions: topics.upwardFilters,
      message: (topic, payload, taken) => {
        this.#message(topic, payload);
        taken();
      },
      connected: (client) => {
        this.#client = client;
        this.connected = true;
        client.publish(topics.cloudReady, randomUUID(), { qos: 1 });
      },
      lost: () => {
        this.#client = undefined;
        this.connected = false;
      },
    };
  }

  #message(topic: string, payload: Buffer): void {
    try {
      const upward = parseUpward(topic);
      if (upward === undefined) throw new DataError("the topic names no edge");
      if (!this.#edges.has(upward.edge)) throw new DataError(`the edge ${upward.edge} is not among the known edges`);
      if (upward.kind === "map") this.#map(upward.edge, payload);
      else this.#frame(upward.edge, payload);
    } catch (error) {
      this.#refuse(topic, payload, error);
    }
  }

  #map(edge: string, payload: Buffer): void {
    const hash = deviceMapHash(payload);
    const key = mapKey(edge, hash);
    if (this.#savingMaps.has(key)) return;
    const saving = this.#savingMaps.values().reduce((sum, bytes) => sum + bytes, 0);
    if (saving > 0 && saving + payload.length > maxMapBytes) {
      this.#options.metrics.deferred();
      return;
    }
    try {
      const map = decodeDeviceMap(payload);
      if (map.edge !== edge) throw new DataError(`the edge ${edge} sent a device map of the edge ${map.edge}`);
      this.#savingMaps.set(key, payload.length);
      this.#options.store
        .saveDeviceMap(hash, map, payload)
        .then(() => {
          this.#refusedMaps.delete(key);
          this.#acknowledge(edge, { mapsStored: [hash] });
        })
        .catch((error) => {
          // Without the map its frames are not taken either; the edge is asked for it again with them.
          if (error instanceof DataError) this.#refuseMap(edge, key, payload, error);
          else this.#databaseFailed(error);
        })
        .finally(() => {
          this.#savingMaps.delete(key);
          this.#wake();
        });
    } catch (error) {
      this.#refuseMap(edge, key, payload, error);
    }
  }

  /** The edge is not asked for this map again, or it would send it, and the frames that need it, for ever. */
  #refuseMap(edge: string, key: string, payload: Buffer, error: unknown): void {
    if (this.#refusedMaps.size >= maxRefusedMaps) this.#refusedMaps.clear();
    this.#refusedMaps.add(key);
    this.#refuse(topics.upward(edge, "map"), payload, error);
  }

  #frame(edge: string, payload: Buffer): void {
    const envelope = openEnvelope(payload);
    if (envelope.edge !== edge) throw new DataError(`the edge ${edge} sent a frame of the edge ${envelope.edge}`);
    if (this.#writing.has(frameKey(envelope)) || this.#pending.has(envelope)) return;
    if (this.#pending.add({ envelope, raw: payload })) this.#wake();
    else this.#options.metrics.deferred();
  }

  #wake(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }

  async #writeLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const group = this.#takeGroup();
      if (group === undefined) await new Promise<void>((wake) => this.#idle.push(wake));
      else if (group.length > 0) await this.#writeUntilDone(group, signal);
      else await nextTurn(); // all were refused: let others have a turn before more is decoded
    }
  }

  /**
   * Takes waiting frames and decodes them, up to the bound of a transaction; those that cannot be decoded are refused. A
   * frame whose device map is being saved waits for that.
   * @returns undefined when there is nothing to take
   */
  #takeGroup(): IncomingFrame[] | undefined {
    const group: IncomingFrame[] = [];
    let rows = 0;
    let bytes = 0;
    const ready = ({ envelope }: { envelope: { edge: string; mapHash: string } }) =>
      !this.#savingMaps.has(mapKey(envelope.edge, envelope.mapHash));
    while (rows < this.#options.maxRowsPerTransaction && bytes < maxContentPerTransaction) {
      const taken = this.#pending.take(ready);
      if (taken === undefined) return bytes === 0 ? undefined : group;
      const { envelope, raw } = taken;
      bytes += Math.min(envelope.contentSize, maxContentBytes) + raw.byteLength;
      try {
        const { edge, stream, seq, mapHash } = envelope;
        const content = unpackContent(envelope);
        rows += content.readings.count;
        group.push({ edge, stream, seq, mapHash, content, raw });
        this.#writing.add(frameKey(envelope));
      } catch (error) {
        this.#refuse(topics.upward(envelope.edge, "frame"), raw, error, envelope);
      }
    }
    return group;
  }

  /**
   * Writes the group, waiting for the database where need be, until the service stops. A group that fails again and
   * again while the database answers is too much for it, or one of its frames breaks it: it is halved, and a frame that
   * is left alone is given back to its edge, which sends it again later.
   */
  async #writeUntilDone(group: readonly IncomingFrame[], signal: AbortSignal): Promise<void> {
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        await this.#write(group);
        break;
      } catch (error) {
        this.#databaseFailed(error);
        if (attempt >= patience && (await this.#databaseAnswers())) {
          if (group.length > 1) {
            await this.#writeUntilDone(group.slice(0, group.length >> 1), signal);
            await this.#writeUntilDone(group.slice(group.length >> 1), signal);
          } else this.#giveBack(group[0]!, error);
          break;
        }
        await backOff(attempt - 1, signal);
      }
    }
    for (const frame of group) this.#writing.delete(frameKey(frame));
  }

  /** Writes the group; where a frame can never be stored, halves it until that frame stands alone. */
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

  #databaseAnswers(): Promise<boolean> {
    return this.#options.store.ping().then(
      () => true,
      () => false,
    );
  }

  #giveBack({ edge, stream, seq }: IncomingFrame, error: unknown): void {
    this.#options.metrics.deferred();
    this.#log.error(
      { edge, stream, seq, err: error },
      `a frame makes the database fail, and is left to its edge to send again: ${messageOf(error)}`,
    );
  }

  #acknowledgeAll(group: readonly IncomingFrame[], outcomes: readonly WriteOutcome[]): void {
    // By edge and stream: a copied buffer makes two edges use one stream's name, and each must be told of its own frames.
    const answers = new Map<string, { edge: string; stream: string; committed: number[]; mapsNeeded: Set<string> }>();
    for (const [index, { edge, stream, seq, mapHash }] of group.entries()) {
      const key = `${edge} ${stream}`;
      const answer = answers.get(key) ?? { edge, stream, committed: [], mapsNeeded: new Set() };
      answers.set(key, answer);
      if (outcomes[index] !== "unknown_map") answer.committed.push(seq);
      else if (!this.#refusedMaps.has(mapKey(edge, mapHash))) answer.mapsNeeded.add(mapHash);
    }
    for (const { edge, stream, committed, mapsNeeded } of answers.values()) {
      if (committed.length + mapsNeeded.size === 0) continue;
      this.#acknowledge(edge, { stream, committed, mapsNeeded: [...mapsNeeded] });
    }
  }

  /** Without a connection the acknowledgement is lost: the edge sends the frame again and is answered then. */
  #acknowledge(edge: string, acknowledgement: Partial<Acknowledgement>): void {
    if (this.#client === undefined) return;
    const payload = Buffer.from(encodeAcknowledgement(acknowledgement));
    const answering = this.#client
      .publishAsync(topics.acknowledgement(edge), payload, { qos: 1 })
      .catch(() => undefined) // the connection is lost, and with it the acknowledgement
      .finally(() => this.#answering.delete(answering));
    this.#answering.add(answering);
  }

  /**
   * Counts a message that can never be stored and keeps it for inspection. The edge is told, so that it does not send
   * it for ever, only when the frame is certainly its own and a copy is kept.
   */
  #refuse(topic: string, payload: Buffer | Uint8Array, error: unknown, frame?: FrameId): void {
    const reason = messageOf(error);
    const edge = parseUpward(topic)?.edge ?? null;
    this.#options.metrics.refused();
    this.#log.warn({ edge, topic, seq: frame?.seq }, `a message is refused: ${reason}`);
    const message = { topic, edge, stream: frame?.stream ?? null, seq: frame?.seq ?? null, reason, payload };
    this.#quarantine.keep(message, () => {
      if (frame) this.#acknowledge(frame.edge, { stream: frame.stream, refused: [{ seq: frame.seq, reason }] });
    });
  }

  #databaseFailed(error: unknown): void {
    if (!this.#databaseAway) {
      const kind = error instanceof LinkError ? "the database is away" : "the database fails";
      this.#log.error({ err: error }, `${kind}; frames wait, edges keep what is not acknowledged: ${messageOf(error)}`);
    }
    this.#databaseAway = true;
  }
}

function mapKey(edge: string, hash: string): string {
  return `${edge} ${hash}`;
}
