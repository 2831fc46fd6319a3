/**
 * A real OPC UA server in a process of its own, told what to do over the parent's IPC channel, so that a test can kill
 * it, stop it in mid-breath (SIGSTOP) and start it again on the same port.
 */
import { writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { crypto_utils, DataType, MessageSecurityMode, SecurityPolicy, StatusCodes, Variant } from "node-opcua-client";
import { OPCUAServer } from "node-opcua-server";
import type { ServerOptions, Update } from "./server.ts";

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
  securityPolicies: [options.security === "sign" ? SecurityPolicy.Basic256Sha256 : SecurityPolicy.None],
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

// biome-ignore lint/suspicious/noExplicitAny: the type of a variable is not among what the server package exports
const variables = new Map<string, any>();

function add(namespace: string, name: string, dataType: keyof typeof DataType, value: unknown) {
  const ns = addressSpace.getNamespace(indexOf.get(namespace)!);
  const variable = ns.addVariable({
    organizedBy: addressSpace.rootFolder.objects,
    browseName: name,
    nodeId: `s=${name}`,
    dataType,
    minimumSamplingInterval: name.startsWith("counter") ? 0 : 10,
    ...(Array.isArray(value) && dataType !== "Int64" && dataType !== "UInt64" ? { valueRank: 1 } : {}),
  });
  variables.set(name, variable);
  update({ name, dataType, value });
}

function update({ name, dataType, value, status, time, picoseconds }: Update) {
  const variable = variables.get(name);
  const variant = new Variant({
    dataType: DataType[dataType as keyof typeof DataType],
    value: revive(dataType, value),
  });
  const statusCode = status === undefined ? StatusCodes.Good : statusFrom(status);
  const sourceTimestamp = time === null ? null : time === undefined ? new Date() : new Date(time);
  if (time === null || picoseconds !== undefined) {
    variable._internal_set_dataValue(
      Object.assign(variable.readValue().clone(), {
        value: variant,
        statusCode,
        sourceTimestamp,
        sourcePicoseconds: picoseconds ?? 0,
      }),
    );
  } else variable.setValueFromSource(variant, statusCode, sourceTimestamp);
}

function revive(dataType: string, value: unknown): unknown {
  if (dataType === "DateTime") return new Date(value as string);
  if (dataType === "ByteString") return Buffer.from(value as string, "hex");
  if (value === "NaN") return Number.NaN;
  if (value === "Infinity") return Number.POSITIVE_INFINITY;
  return value;
}

function statusFrom(status: string) {
  return StatusCodes[status as keyof typeof StatusCodes];
}

for (const { namespace, name, dataType, value } of options.variables ?? [])
  add(namespace, name, dataType as never, value);
for (let i = 0; i < (options.counters ?? 0); i++) add(options.namespaces[0]!, `counter${i}`, "Double", 0);

/** Raises each counter by one, `times` times over. */
function burst(times: number) {
  for (let n = 0; n < times; n++) {
    const now = new Date();
    for (let i = 0; i < (options.counters ?? 0); i++) {
      const variable = variables.get(`counter${i}`);
      const value = variable.readValue().value.value + 1;
      variable.setValueFromSource({ dataType: DataType.Double, value }, StatusCodes.Good, now);
    }
  }
}

process.on("message", (message: { id: number; do: string; with?: unknown }) => {
  const answer = (result?: unknown) => process.send!({ id: message.id, result });
  if (message.do === "update") {
    for (const one of message.with as Update[]) update(one);
    answer();
  } else if (message.do === "burst") {
    burst(message.with as number);
    answer();
  } else if (message.do === "add") {
    const { namespace, name, dataType, value } = message.with as Update & { namespace: string };
    add(namespace, name, dataType as never, value);
    answer();
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
