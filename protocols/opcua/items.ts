import {
  AttributeIds,
  DataChangeFilter,
  DataChangeTrigger,
  DeadbandType,
  type MonitoredItemCreateRequestOptions,
  MonitoringMode,
  NodeId,
  TimestampsToReturn,
} from "node-opcua-client";
import { isBad, Quality } from "../reading.ts";
import type { OpcuaDevice } from "./config.ts";
import { type Connection, statusNameOf } from "./connection.ts";
import { Status } from "./decode.ts";
import { type NodeAddress, parseNodeAddress } from "./nodeid.ts";
import { monitoring } from "./plan.ts";

/** How many items one call creates at most: small PLCs take many small calls far better than one large one. */
const itemsPerCall = 200;

/** Why a server may refuse a deadband though it knows the node. */
const filterRefusals: ReadonlySet<number> = new Set([
  Status.BadFilterNotAllowed,
  Status.BadMonitoredItemFilterInvalid,
  Status.BadMonitoredItemFilterUnsupported,
  Status.BadDeadbandFilterInvalid,
]);

/** A tag whose node the server does not watch, and why. */
export interface Refusal {
  /** The tag's place in the device's list. */
  readonly tag: number;
  readonly status: Quality;
  readonly detail: string;
}

/** What became of the tags of one attempt: accepted and refused together are those asked for. */
export interface Outcome {
  readonly accepted: readonly number[];
  readonly refused: readonly Refusal[];
  /** Those of the accepted that the server samples more slowly than asked. */
  readonly slower: readonly Slower[];
}

export interface Slower {
  readonly tag: number;
  readonly samplingMs: number;
}

/** What the server says of one item. */
interface Answer {
  readonly status: Quality;
  readonly samplingMs: number;
}

/**
 * Asks the server to watch nodes. The client handle of an item is its tag's place in the device's list, so that a value
 * finds its tag without a search.
 */
export class MonitoredItems {
  readonly #device: OpcuaDevice;
  readonly #connection: Connection;
  readonly #addresses: readonly NodeAddress[];
  #perCall = itemsPerCall;

  constructor(device: OpcuaDevice, connection: Connection) {
    this.#device = device;
    this.#connection = connection;
    this.#addresses = device.tags.map((tag) => parseNodeAddress(tag.node)!);
  }

  /**
   * Watches the nodes of these tags; namespace URIs are looked up in what the server has now. A deadband that the
   * server does not apply is left out: the edge applies it as well.
   * @throws LinkError
   */
  async create(subscriptionId: number, tags: readonly number[]): Promise<Outcome> {
    const namespaces = await this.#connection.namespaces();
    this.#perCall = Math.min(itemsPerCall, (await this.#connection.maxItemsPerCall()) ?? itemsPerCall);
    const unknown = tags.filter((tag) => this.#namespaceOf(tag, namespaces) < 0);
    const refused: Refusal[] = unknown.map((tag) => ({
      tag,
      status: Quality.BadNodeIdUnknown,
      detail: `the server has no namespace ${this.#addresses[tag]!.namespace}`,
    }));
    const known = unknown.length === 0 ? tags : tags.filter((tag) => this.#namespaceOf(tag, namespaces) >= 0);
    const answers = await this.#ask(subscriptionId, known, namespaces, true);
    const unfiltered = known.filter((_, at) => filterRefusals.has(answers[at]!.status));
    const again = await this.#ask(subscriptionId, unfiltered, namespaces, false);
    const second = new Map(unfiltered.map((tag, at) => [tag, again[at]!]));

    const accepted: number[] = [];
    const slower: Slower[] = [];
    known.forEach((tag, at) => {
      const { status, samplingMs } = second.get(tag) ?? answers[at]!;
      if (isBad(status)) {
        refused.push({ tag, status, detail: `the server refuses ${this.#device.tags[tag]!.node}` });
        return;
      }
      accepted.push(tag);
      const { samplingMs: askedMs } = monitoring(this.#device, this.#device.tags[tag]!);
      if (askedMs > 0 && samplingMs > askedMs) slower.push({ tag, samplingMs });
    });
    return { accepted, refused, slower };
  }

  #namespaceOf(tag: number, namespaces: readonly string[]): number {
    const { namespace } = this.#addresses[tag]!;
    return typeof namespace === "number" ? namespace : namespaces.indexOf(namespace);
  }

  /** What the server says of each tag's item, in the order of `tags`. */
  async #ask(
    subscriptionId: number,
    tags: readonly number[],
    namespaces: readonly string[],
    filtered: boolean,
  ): Promise<Answer[]> {
    const answers: Answer[] = [];
    while (answers.length < tags.length) {
      const portion = tags.slice(answers.length, answers.length + this.#perCall);
      const itemsToCreate = portion.map((tag) => this.#itemOf(tag, this.#namespaceOf(tag, namespaces), filtered));
      try {
        const { results } = await this.#connection.request("create monitored items", (session) =>
          session.createMonitoredItems({ subscriptionId, timestampsToReturn: TimestampsToReturn.Both, itemsToCreate }),
        );
        for (let at = 0; at < portion.length; at++) {
          const { statusCode, revisedSamplingInterval } = results?.[at] ?? {};
          answers.push({ status: statusCode?.value ?? Quality.Bad, samplingMs: revisedSamplingInterval ?? 0 });
        }
      } catch (error) {
        // A server that does not tell its limit, or keeps to a lower one, is asked for less.
        if (
          this.#perCall === 1 ||
          !/^Bad(TooManyOperations|RequestTooLarge|EncodingLimits)/.test(statusNameOf(error) ?? "")
        ) {
          throw error;
        }
        this.#perCall = Math.ceil(Math.min(this.#perCall, portion.length) / 2);
      }
    }
    return answers;
  }

  #itemOf(tag: number, namespace: number, filtered: boolean): MonitoredItemCreateRequestOptions {
    const { samplingMs, queue, discardOldest, deadband } = monitoring(this.#device, this.#device.tags[tag]!);
    const filter =
      filtered && deadband !== null
        ? new DataChangeFilter({
            trigger: DataChangeTrigger.StatusValue,
            deadbandType: DeadbandType.Absolute,
            deadbandValue: deadband,
          })
        : null;
    return {
      itemToMonitor: { nodeId: nodeIdOf(this.#addresses[tag]!, namespace), attributeId: AttributeIds.Value },
      monitoringMode: MonitoringMode.Reporting,
      requestedParameters: { clientHandle: tag, samplingInterval: samplingMs, queueSize: queue, discardOldest, filter },
    };
  }
}

const { NodeIdType } = NodeId;

function nodeIdOf({ kind, identifier }: NodeAddress, namespace: number): NodeId {
  switch (kind) {
    case "i":
      return new NodeId(NodeIdType.NUMERIC, Number(identifier), namespace);
    case "s":
      return new NodeId(NodeIdType.STRING, identifier, namespace);
    case "g":
      return new NodeId(NodeIdType.GUID, identifier, namespace);
    case "b":
      return new NodeId(NodeIdType.BYTESTRING, Buffer.from(identifier, "base64"), namespace);
  }
}
