/**
 * A real OPC UA server in a process of its own, told what to do over the parent's IPC channel, so that a test can kill
 * it, stop it in mid-breath (SIGSTOP) and start it again on the same port.
 */
import { writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import {
  crypto_utils,
  DataChangeNotification,
  DataType,
  DataValue,
  MessageSecurityMode,
  PublishResponse,
  SecurityPolicy,
  type StatusCode,
  StatusCodes,
  Variant,
  VariantArrayType,
} from "node-opcua-client";
import { OPCUAServer } from "node-opcua-server";
import type { ServerOptions, Update, Variable } from "./server.ts";

const options: ServerOptions = JSON.parse(process.argv[2]!);

/** Writes a key and certificate into the process's own HOME, a temporary folder, so that no openssl is called. */
async function identity() {
  const privateKey = await crypto_utils.generatePrivateKey(2048);
  const { cert } = await crypto_utils.createSelfSignedCertificate({
    privateKey,
    applicationUri: "urn:millrace:test:server",
    dns: ["localhost", hostname()],
    validity: 365,
    purpose: crypto_utils.CertificatePurpose.ForApplication,
  });
  const { privPem } = await crypto_utils.privateKeyToPEM(privateKey);
  const certificateFile = join(process.env.HOME!, "certificate.pem");
  const privateKeyFile = join(process.env.HOME!, "key.pem");
  writeFileSync(certificateFile, cert);
  writeFileSync(privateKeyFile, privPem);
  return { certificateFile, privateKeyFile };
}

const server = new OPCUAServer({
  ...(await identity()),
  host: "127.0.0.1",
  hostname: "localhost",
  port: options.port ?? 0,
  serverInfo: { applicationUri: "urn:millrace:test:server" },
  securityModes: [options.security === "sign" ? MessageSecurityMode.Sign : MessageSecurityMode.None],
  // Users need a policy by which their passwords are encrypted, even where messages are not.
  securityPolicies: [
    ...(options.security === "sign" ? [] : [SecurityPolicy.None]),
    ...(options.security === "sign" || options.users ? [SecurityPolicy.Basic256Sha256] : []),
  ],
  allowAnonymous: options.users === undefined,
  userManager: { isValidUser: (user: string, password: string) => options.users?.[user] === password },
  serverCapabilities: {
    maxMonitoredItems: 100_000,
    maxMonitoredItemsPerSubscription: 100_000,
    maxMonitoredItemsQueueSize: 100_000,
    minSupportedSampleRate: 0,
    operationLimits: options.limits ?? {},
  },
});
await server.initialize();
const addressSpace = server.engine.addressSpace!;
const indexOf = new Map(options.namespaces.map((uri) => [uri, addressSpace.registerNamespace(uri).index]));

/** What the sampled variables hold. */
const held = new Map<string, DataValue>();

/** A variable whose value the server samples, with whatever status and time `update` gives it. */
function add({ namespace, ...first }: Variable) {
  update(first);
  const { name, dataType, value } = first;
  const variable = addressSpace.getNamespace(indexOf.get(namespace)!).addVariable({
    organizedBy: addressSpace.rootFolder.objects,
    browseName: name,
    nodeId: `s=${name}`,
    dataType,
    minimumSamplingInterval: 10,
    valueRank: Array.isArray(value) && !dataType.endsWith("Int64") ? 1 : -1,
  });
  variable.bindVariable({ timestamped_get: () => held.get(name)! }, true);
}

function update({ name, dataType, value, status = "Good", time, picoseconds = 0 }: Update) {
  const type = DataType[dataType as keyof typeof DataType];
  const arrayType =
    Array.isArray(value) && !dataType.endsWith("Int64") ? VariantArrayType.Array : VariantArrayType.Scalar;
  const sourceTimestamp = time === null ? null : new Date(time ?? Date.now());
  held.set(
    name,
    new DataValue({
      value: new Variant({ dataType: type, arrayType, value: revive(dataType, value) }),
      statusCode: StatusCodes[status as keyof typeof StatusCodes] as StatusCode,
      sourceTimestamp,
      sourcePicoseconds: picoseconds,
      serverTimestamp: new Date(),
    }),
  );
}

function revive(dataType: string, value: unknown): unknown {
  if (dataType === "DateTime") return new Date(value as string);
  if (dataType === "ByteString") return Buffer.from(value as string, "hex");
  if (value === "NaN") return Number.NaN;
  if (value === "Infinity") return Number.POSITIVE_INFINITY;
  return value;
}

for (const variable of options.variables ?? []) add(variable);

/** Variables that tell the server of each change, so that a burst reaches the queues of the items whole. */
const counters = Array.from({ length: options.counters ?? 0 }, (_, i) =>
  addressSpace.getNamespace(indexOf.get(options.namespaces[0]!)!).addVariable({
    organizedBy: addressSpace.rootFolder.objects,
    browseName: `counter${i}`,
    nodeId: `s=counter${i}`,
    dataType: "Double",
    minimumSamplingInterval: 0,
    value: { dataType: DataType.Double, value: 0 },
  }),
);

/** Raises each counter by one, `times` times over. */
function burst(times: number) {
  for (let n = 0; n < times; n++) {
    const time = new Date();
    for (const counter of counters) {
      const value = counter.readValue().value.value + 1;
      counter.setValueFromSource({ dataType: DataType.Double, value }, StatusCodes.Good, time);
    }
  }
}

/** How many values have been sent to all subscriptions. */
let published = 0;
server.on("response", (response) => {
  if (!(response instanceof PublishResponse)) return;
  for (const notification of response.notificationMessage.notificationData ?? []) {
    if (notification instanceof DataChangeNotification) published += notification.monitoredItems?.length ?? 0;
  }
});

process.on("message", (message: { id: number; do: string; with?: unknown }) => {
  const answer = (result?: unknown) => process.send!({ id: message.id, result });
  if (message.do === "update") {
    for (const one of message.with as Update[]) update(one);
    answer();
  } else if (message.do === "burst") {
    burst(message.with as number);
    answer();
  } else if (message.do === "add") {
    add(message.with as Variable);
    answer();
  } else if (message.do === "published") {
    answer(published);
  } else if (message.do === "counter") {
    answer(counters[0]!.readValue().value.value);
  } else if (message.do === "sessions") {
    answer({ sessions: server.engine.currentSessionCount, subscriptions: server.engine.currentSubscriptionCount });
  } else if (message.do === "shutdown") {
    void server.shutdown(0).then(() => process.exit(0));
  }
});
// An orphan must not outlive its test.
process.on("disconnect", () => process.exit(0));

await server.start();
const endpoint = server.endpoints[0]!;
const tellConnections = () => process.send?.({ connections: endpoint.currentChannelCount });
endpoint.on("newChannel", tellConnections);
endpoint.on("closeChannel", () => setImmediate(tellConnections));
if (options.ticking) setInterval(() => burst(1), 100);
const port = Number(new URL(endpoint.endpointDescriptions()[0]!.endpointUrl!.replace("opc.tcp", "http")).port);
process.send!({ ready: port });
