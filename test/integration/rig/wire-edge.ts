import mqtt, { type IClientOptions, type MqttClient } from "mqtt";
import type { Gap } from "../../../protocols/reading.ts";
import { decodeAcknowledgement } from "../../../protocols/uplink/acknowledgement.ts";
import { type EncodedDeviceMap, encodeDeviceMap } from "../../../protocols/uplink/device-map.ts";
import { type PackedContent, packContent, sealFrame } from "../../../protocols/uplink/envelope.ts";
import { topics } from "../../../protocols/uplink/topics.ts";
import { columnsOf, type Row, t0 } from "../../contract/store-frames.ts";

export const stream = "0195f3c2a6b17c3e8d4f5a6b7c8d9e0f";

/** Connects a real MQTT client that never reconnects by itself. @throws when the broker refuses it */
export function connectMqtt(url: string, options: IClientOptions): Promise<MqttClient> {
  const client = mqtt.connect(url, { protocolVersion: 4, reconnectPeriod: 0, clean: true, ...options });
  return new Promise((resolve, reject) => {
    client.on("error", () => undefined); // a broker that ends the connection is what many tests wait for
    client.once("connect", () => resolve(client));
    client.once("error", (error) => {
      client.end(true);
      reject(error);
    });
    client.once("close", () => reject(new Error("the connection was closed")));
  });
}

/**
 * An edge that a test drives by hand, over a real MQTT connection: one device `d` with the tags `count` and `label`. It
 * remembers what the cloud told it.
 */
export class WireEdge {
  readonly name: string;
  readonly map: EncodedDeviceMap;
  /** Sequence numbers that were acknowledged as committed, in the order in which they came. */
  readonly committed: number[] = [];
  readonly refused: { seq: number; reason: string }[] = [];
  readonly mapsStored: string[] = [];
  readonly mapsNeeded: string[] = [];
  #client: MqttClient | undefined;

  constructor(name: string) {
    this.name = name;
    const tags = ["count", "label"].map((tag) => ({ device: "d", name: tag, kind: "any" as const }));
    this.map = encodeDeviceMap({ edge: name, devices: [{ name: "d", protocol: "modbus-tcp" }], tags });
  }

  get connected(): boolean {
    return this.#client?.connected ?? false;
  }

  /** Resolves when the subscription to its acknowledgements is granted. */
  async connect(url: string, options: IClientOptions = {}): Promise<this> {
    const login = { username: this.name, password: `${this.name}-secret`, clientId: `millrace-edge-${this.name}` };
    const client = await connectMqtt(url, { ...login, ...options });
    client.on("message", (topic, payload) => {
      if (topic !== topics.acknowledgement(this.name)) return;
      const told = decodeAcknowledgement(payload);
      this.committed.push(...told.committed);
      this.refused.push(...told.refused);
      this.mapsStored.push(...told.mapsStored);
      this.mapsNeeded.push(...told.mapsNeeded);
    });
    await client.subscribeAsync(topics.acknowledgement(this.name), { qos: 1 });
    this.#client = client;
    return this;
  }

  /** Breaks the connection without a word. */
  drop(): void {
    this.#client?.end(true);
    this.#client = undefined;
  }

  /** Resolves when the broker has confirmed it; rejects when it ends the connection instead. */
  async publish(topic: string, payload: Uint8Array): Promise<void> {
    await this.#client!.publishAsync(topic, Buffer.from(payload), { qos: 1 });
  }

  sendMap(bytes: Uint8Array = this.map.bytes): Promise<void> {
    return this.publish(topics.upward(this.name, "map"), bytes);
  }

  send(frame: Uint8Array): Promise<void> {
    return this.publish(topics.upward(this.name, "frame"), frame);
  }

  /** Frame `seq` counts: it holds `seq` at second `seq`. */
  countFrame(seq: number, ofStream = stream): Uint8Array {
    return this.frame(seq, [{ tag: 0, time: t0 + seq * 1e6, value: seq }], [], ofStream);
  }

  frame(seq: number, rows: readonly Row[], gaps: readonly Gap[] = [], ofStream = stream): Uint8Array {
    return this.seal(seq, packContent(this.map.hash, columnsOf(rows), gaps), ofStream);
  }

  seal(seq: number, packed: PackedContent, ofStream = stream, edge = this.name): Uint8Array {
    return sealFrame({ edge, stream: ofStream, seq }, packed);
  }
}

/** The numbers 1 to `last`. */
export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}
