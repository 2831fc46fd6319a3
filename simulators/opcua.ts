import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OPCUACertificateManager } from "node-opcua-certificate-manager";
import { DataType, MessageSecurityMode, SecurityPolicy, StatusCodes } from "node-opcua-client";
import { OPCUAServer } from "node-opcua-server";

/** The namespace of every node of the plant. Its index may differ from one start to the next; its URI does not. */
export const namespaceUri = "urn:millrace:plant";

/** One variable of the server. */
export interface PlantVariable {
  /** Folder and name, joined by a dot; also the string of the node id: `reactor-1.temperature`. */
  readonly id: string;
  readonly description?: string;
  readonly type: "Double" | "Float" | "Int32" | "UInt32" | "Boolean" | "String";
  /** Engineering unit and range: a variable with both is an AnalogDataItem. */
  readonly unit?: string;
  readonly range?: readonly [number, number];
}

export interface OpcUaServerOptions {
  readonly host: string;
  /** 0: any free port; once chosen it stays. */
  readonly port: number;
  readonly variables: readonly PlantVariable[];
}

type Value = number | boolean | string;
type Sample = { readonly value: Value | null; readonly time: Date };
/** The part of node-opcua's UAVariable that is used here; its package is not one of ours. */
type Node = ReturnType<NonNullable<OPCUAServer["engine"]["addressSpace"]>["getOwnNamespace"]>["addVariable"] extends (
  ...args: never[]
) => infer Variable
  ? Variable
  : never;

/**
 * Common codes of UN/ECE Recommendation 20 for the units in use: OPC UA clients know a unit by the number that the
 * bytes of its code make (OPC 10000-8, 5.6.3).
 */
const unitCodes: Record<string, string> = {
  degC: "CEL",
  bar: "BAR",
  Pa: "PAL",
  "%": "P1",
  kg: "KGM",
  "kg/h": "E93",
  "m3/h": "MQH",
  rpm: "RPM",
  kW: "KWT",
  "N.m": "NU",
  s: "SEC",
};

/**
 * An OPC UA server for the plant's variables: anonymous, without security or with Basic256Sha256 for any client
 * certificate. Values are set from outside with their own time; a client that samples at 0 gets each of them.
 */
export class OpcUaServer {
  readonly #options: OpcUaServerOptions;
  readonly #samples = new Map<string, Sample>();
  readonly #nodes = new Map<string, Node>();
  readonly #types: ReadonlyMap<string, DataType>;
  #server: OPCUAServer | undefined;
  #pki: string | undefined;
  #port: number;

  constructor(options: OpcUaServerOptions) {
    this.#options = options;
    this.#port = options.port;
    this.#types = new Map(options.variables.map(({ id, type }) => [id, DataType[type]]));
  }

  /** The port listened on; 0 before the first start. */
  get port(): number {
    return this.#port;
  }

  /** Gives a variable its value (null: its sensor has failed) and the time at which it was taken. */
  set(id: string, value: Value | null, time: Date): void {
    const sample = { value, time };
    this.#samples.set(id, sample);
    const node = this.#nodes.get(id);
    if (node) this.#apply(id, node, sample);
  }

  /** Begins to listen. Also after `stop`, and then on the same port and with the last values. */
  async start(): Promise<void> {
    if (this.#server) return;
    // The keys live in a folder of their own: node-opcua would put them into the user's home.
    this.#pki = await mkdtemp(join(tmpdir(), "millrace-plant-"));
    const { host } = this.#options;
    const anywhere = host === "0.0.0.0" || host === "::";
    const certificates = new OPCUACertificateManager({
      rootFolder: this.#pki,
      automaticallyAcceptUnknownCertificate: true,
    });
    const server = new OPCUAServer({
      host,
      ...(anywhere ? {} : { hostname: host }),
      port: this.#port,
      serverInfo: { applicationUri: "urn:millrace:simulator", applicationName: { text: "Millrace plant" } },
      buildInfo: { productName: "Millrace simulated plant" },
      serverCertificateManager: certificates,
      userCertificateManager: certificates,
      securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
      securityModes: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
      // 0: a client that asks for a sampling interval of 0 is told every change, however fast.
      serverCapabilities: { minSupportedSampleRate: 0, maxSessions: 50 },
      maxConnectionsPerEndpoint: 50,
    });
    this.#server = server;
    try {
      await server.initialize();
      this.#addVariables(server);
      await server.start();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#port = server.endpoints[0]!.port;
  }

  /** Ends every session and refuses new ones. */
  async stop(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    this.#server = undefined;
    this.#nodes.clear();
    await server.shutdown();
    if (this.#pki) await rm(this.#pki, { recursive: true, force: true });
  }

  #addVariables(server: OPCUAServer): void {
    const { addressSpace } = server.engine;
    if (!addressSpace) throw new Error("the OPC UA server has no address space after initialize()");
    const namespace = addressSpace.registerNamespace(namespaceUri);
    const folders = new Map<string, ReturnType<typeof namespace.addFolder>>();
    for (const variable of this.#options.variables) {
      const dot = variable.id.indexOf(".");
      const folderName = variable.id.slice(0, dot);
      const folder = folders.get(folderName) ?? namespace.addFolder("ObjectsFolder", { browseName: folderName });
      folders.set(folderName, folder);
      const common = {
        componentOf: folder,
        browseName: variable.id.slice(dot + 1),
        nodeId: `s=${variable.id}`,
        dataType: DataType[variable.type],
        ...(variable.description ? { description: variable.description } : {}),
      };
      const { range } = variable;
      const code = unitCodes[variable.unit ?? ""];
      const node =
        range && code
          ? namespace.addAnalogDataItem({
              ...common,
              engineeringUnitsRange: { low: range[0], high: range[1] },
              engineeringUnits: unitInformation(variable.unit!, code),
            })
          : namespace.addVariable(common);
      this.#nodes.set(variable.id, node);
      const sample = this.#samples.get(variable.id);
      if (sample) this.#apply(variable.id, node, sample);
    }
  }

  #apply(id: string, node: Node, { value, time }: Sample): void {
    if (value === null) {
      node.setValueFromSource({ dataType: DataType.Null }, StatusCodes.BadSensorFailure, time);
      return;
    }
    node.setValueFromSource({ dataType: this.#types.get(id)!, value }, StatusCodes.Good, time);
  }
}

function unitInformation(symbol: string, code: string) {
  const unitId = [...Buffer.from(code, "ascii")].reduce((number, byte) => number * 256 + byte, 0);
  return {
    namespaceUri: "http://www.opcfoundation.org/UA/units/un/cefact",
    unitId,
    displayName: { text: symbol },
    description: { text: symbol },
  };
}
