/**
 * A bare node-opcua client that subscribes to the nodes and only counts what arrives, as the library's documentation
 * shows it. Arguments: endpoint, period of the counters in ms, node ids. Sends { values, cpuSeconds } every second.
 */
import { AttributeIds, ClientSubscription, OPCUAClient, TimestampsToReturn } from "node-opcua-client";

const [endpoint, periodMs, ...nodeIds] = process.argv.slice(2);
const client = OPCUAClient.create({ endpointMustExist: false, clientName: "bare" });
await client.connect(endpoint!);
const session = await client.createSession();
const namespaces = await session.readNamespaceArray();
const namespace = namespaces.indexOf("urn:millrace:plant");
const subscription = ClientSubscription.create(session, {
  requestedPublishingInterval: 100,
  requestedLifetimeCount: 1000,
  requestedMaxKeepAliveCount: 20,
  maxNotificationsPerPublish: 0,
  publishingEnabled: true,
});
let values = 0;
const items = nodeIds.map((id) => ({ nodeId: `ns=${namespace};s=${id}`, attributeId: AttributeIds.Value }));
const queueSize = Math.ceil(2000 / Number(periodMs)) + 10;
const group = await subscription.monitorItems(
  items,
  { samplingInterval: 0, queueSize, discardOldest: true },
  TimestampsToReturn.Both,
);
group.on("changed", () => {
  values++;
});
setInterval(() => {
  const { user, system } = process.cpuUsage();
  process.send!({ values, cpuSeconds: (user + system) / 1e6 });
}, 1000);
process.once("disconnect", () => process.exit(0));
