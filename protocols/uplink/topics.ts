/**
 * The MQTT topics. An edge publishes `frame` and `map` and subscribes to `acknowledgement`, all below its own
 * name, which is also its MQTT user: a broker's ACL needs no more than that (see README.md).
 */
const root = "millrace/v1";

/** What an edge publishes. */
export const upwardKinds = ["frame", "map"] as const;
export type UpwardKind = (typeof upwardKinds)[number];

export const topics = {
  upward: (edge: string, kind: UpwardKind) => `${root}/edge/${edge}/${kind}`,
  acknowledgement: (edge: string) => `${root}/edge/${edge}/acknowledgement`,
  /** The cloud says here that it has begun to listen: edges then send again at once what is not acknowledged. */
  cloudReady: `${root}/cloud/ready`,
  /** The subscriptions of the cloud. */
  upwardFilters: upwardKinds.map((kind) => `${root}/edge/+/${kind}`),
} as const;

/** Takes an upward topic apart; undefined for any other topic. */
export function parseUpward(topic: string): { edge: string; kind: UpwardKind } | undefined {
  const match = /^millrace\/v1\/edge\/([^/]+)\/([a-z]+)$/.exec(topic);
  const kind = upwardKinds.find((known) => known === match?.[2]);
  return match && kind ? { edge: match[1]!, kind } : undefined;
}

/** May this edge publish there? */
export function edgeMayPublish(edge: string, topic: string): boolean {
  return parseUpward(topic)?.edge === edge;
}

/** May this edge subscribe to this filter? Wildcards are never allowed. */
export function edgeMaySubscribe(edge: string, filter: string): boolean {
  return filter === topics.acknowledgement(edge) || filter === topics.cloudReady;
}
