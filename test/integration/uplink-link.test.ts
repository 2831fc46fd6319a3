import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MqttClient } from "mqtt";
import { pino } from "pino";
import { afterEach, describe, expect, it } from "vitest";
import { EmbeddedBroker } from "../../cloud/broker.ts";
import { ConfigError } from "../../protocols/errors.ts";
import { Secret } from "../../protocols/secret.ts";
import { keepUplink, type UplinkAddress, type UplinkHandlers } from "../../protocols/uplink/link.ts";
import { topics } from "../../protocols/uplink/topics.ts";
import { testLog } from "../unit/edge/parts.ts";
import { freePort } from "./rig/port.ts";

const cleanups: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const soon = { timeout: 10_000, interval: 10 };

async function embedded(password = "right", port = 0) {
  const broker = new EmbeddedBroker({
    host: "127.0.0.1",
    port,
    edges: [{ name: "line-3", password: new Secret(password) }],
    service: { user: "cloud", password: new Secret("cloud") },
    log: pino({ level: "silent" }),
  });
  const url = await broker.start();
  cleanups.push(() => broker.stop());
  return { broker, url, port: Number(new URL(url).port) };
}

/** A link that is kept until the test ends, and what came of it. */
function keep(url: string, address: Partial<UplinkAddress> = {}, handlers: Partial<UplinkHandlers> = {}) {
  const { log, said } = testLog();
  const stopping = new AbortController();
  const heard: string[] = [];
  const state = { connections: 0, lost: 0, client: undefined as MqttClient | undefined, receiveMaximum: 0 };
  const kept = keepUplink(
    { url, user: "line-3", password: new Secret("right"), mqttVersion: "auto", clientId: "edge-line-3", ...address },
    {
      subscriptions: [topics.acknowledgement("line-3")],
      message: (topic, payload, taken) => {
        heard.push(`${topic} ${payload}`);
        taken();
      },
      connected: (client, receiveMaximum) => {
        state.connections++;
        state.client = client;
        state.receiveMaximum = receiveMaximum;
      },
      lost: () => {
        state.lost++;
      },
      ...handlers,
    },
    log,
    stopping.signal,
  );
  const stop = async () => {
    stopping.abort();
    await kept;
  };
  cleanups.push(() => stop().catch(() => undefined));
  return { kept, said, heard, state, stop };
}

describe("a link to the embedded broker", () => {
  it("tries MQTT 5, which is refused, and goes on with 3.1.1, at once and without a word of complaint", async () => {
    const { url } = await embedded();
    const { state, said } = keep(url);
    await expect.poll(() => state.connections, soon).toBe(1);
    expect(state.client!.options.protocolVersion).toBe(4);
    expect(said).toEqual(["info connected to the broker"]);
  });

  it("that insists on MQTT 5 is told so", async () => {
    const { url } = await embedded();
    const { said, state } = keep(url, { mqttVersion: "5" });
    await expect.poll(() => said, soon).toEqual([expect.stringMatching(/^warn .*protocol version/i)]);
    expect(state.connections).toBe(0);
  });

  it("says a wrong password once, goes on trying, and connects when it is mended", async () => {
    const { broker, url, port } = await embedded("wrong");
    const { state, said } = keep(url, { mqttVersion: "3.1.1" });
    await expect.poll(() => said.length, soon).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 1500)); // several attempts
    expect(said).toEqual([expect.stringMatching(/^warn no connection to the broker: .*(password|authorized)/i)]);
    await broker.stop();
    await embedded("right", port);
    await expect.poll(() => state.connections, soon).toBe(1);
    expect(said.at(-1)).toBe("info connected to the broker");
  });

  it("says which subscription is refused", async () => {
    const { url } = await embedded();
    const { said, state } = keep(url, { mqttVersion: "3.1.1" }, { subscriptions: [topics.acknowledgement("line-4")] });
    await expect
      .poll(() => said, soon)
      .toEqual([expect.stringContaining(`${topics.acknowledgement("line-4")}: check its ACL`)]);
    expect(state).toMatchObject({ connections: 0, lost: 0 });
  });

  it("comes back after each loss, tells of it once when losses follow each other, and stops at once", async () => {
    const { url } = await embedded();
    const { state, said, stop } = keep(url);
    for (let n = 1; n <= 4; n++) {
      await expect.poll(() => state.connections, soon).toBe(n);
      state.client!.stream.destroy();
      await expect.poll(() => state.lost, soon).toBe(n);
    }
    await expect.poll(() => state.connections, soon).toBe(5);
    expect(said).toEqual([
      "info connected to the broker",
      "warn no connection to the broker: the connection was closed",
      expect.stringMatching(/^warn .*time and again: is another client/),
    ]);
    const began = performance.now();
    await stop();
    expect(performance.now() - began).toBeLessThan(200);
    expect(state.lost).toBe(5);
  });

  it("that has lasted for a while is said to be there again", async () => {
    const { url } = await embedded();
    const { state, said } = keep(url);
    await expect.poll(() => state.connections, soon).toBe(1);
    state.client!.stream.destroy();
    await expect.poll(() => said.length, soon).toBe(3);
    expect(said.at(-1)).toBe("info connected to the broker");
  });
});

describe("a link to nowhere", () => {
  it("is said once, and given up within moments", async () => {
    const { said, stop } = keep(`mqtt://127.0.0.1:${await freePort()}`);
    await expect.poll(() => said.length, soon).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(said).toEqual([expect.stringMatching(/ECONNREFUSED/)]);
    await stop();
  });

  it("that takes the connection and says nothing does not keep the agent from stopping", async () => {
    const server = createServer((socket) => socket.on("error", () => undefined)).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    cleanups.push(() => new Promise((resolve) => server.close(resolve)));
    const connected = new Promise((resolve) => server.once("connection", resolve));
    const { stop } = keep(`mqtt://127.0.0.1:${(server.address() as { port: number }).port}`);
    await connected;
    const began = performance.now();
    await stop();
    expect(performance.now() - began).toBeLessThan(200);
  });

  it.each([
    ["is missing", () => "/nowhere/ca.pem"],
    [
      "is no certificate",
      () => {
        const folder = mkdtempSync(join(tmpdir(), "millrace-ca-"));
        cleanups.push(() => rmSync(folder, { recursive: true }));
        writeFileSync(join(folder, "ca.pem"), "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n");
        return join(folder, "ca.pem");
      },
    ],
  ])("because the certificate authority %s is a ConfigError", async (_, file) => {
    const ca = file();
    const { kept } = keep("mqtts://127.0.0.1:1", { ca });
    await expect(kept).rejects.toThrow(ConfigError);
    await expect(kept).rejects.toThrow(ca);
  });
});

const mosquittoPath = "/usr/sbin/mosquitto";
const withMosquitto = existsSync(mosquittoPath);
if (!withMosquitto) console.warn(`SKIPPED: the link to an MQTT 5 broker needs ${mosquittoPath}`);

describe.skipIf(!withMosquitto)("a link to mosquitto (MQTT 5)", () => {
  async function mosquitto(settings = "") {
    const folder = mkdtempSync(join(tmpdir(), "millrace-mosquitto-"));
    cleanups.push(() => rmSync(folder, { recursive: true }));
    const passwords = join(folder, "passwords");
    writeFileSync(passwords, "line-3:right\n");
    spawnSync("mosquitto_passwd", ["-U", passwords]);
    const acl =
      "user line-3\ntopic write millrace/v1/edge/line-3/frame\ntopic readwrite millrace/v1/edge/line-3/acknowledgement\n";
    writeFileSync(join(folder, "acl"), acl);
    const port = await freePort();
    const config = `listener ${port} 127.0.0.1\nuser root\npassword_file ${passwords}\nacl_file ${join(folder, "acl")}\n${settings}`;
    writeFileSync(join(folder, "mosquitto.conf"), config);
    const child = spawn(mosquittoPath, ["-c", join(folder, "mosquitto.conf")], { stdio: "ignore" });
    cleanups.push(() => ended(child));
    await expect.poll(() => connects(port), soon).toBe(true);
    return { url: `mqtt://127.0.0.1:${port}`, child };
  }

  it("speaks MQTT 5, and hears how much the broker takes at once", async () => {
    const { url } = await mosquitto("max_inflight_messages 7\n");
    const { state, heard } = keep(url);
    await expect.poll(() => state.connections, soon).toBe(1);
    expect(state.client!.options.protocolVersion).toBe(5);
    expect(state.receiveMaximum).toBe(7);
    await state.client!.publishAsync(topics.acknowledgement("line-3"), "hello", { qos: 1 });
    await expect.poll(() => heard, soon).toEqual([`${topics.acknowledgement("line-3")} hello`]);
  });

  it("that another client of the same name throws out again and again says what to look for", async () => {
    const { url } = await mosquitto();
    const { state, said, stop } = keep(url);
    await expect.poll(() => state.connections, soon).toBe(1);
    const twin = keep(url);
    await expect
      .poll(() => said, soon)
      .toContainEqual(expect.stringContaining("is another client with this client id connected"));
    await stop();
    await twin.stop();
    // The two threw each other out again and again; that is no reason to fill the log.
    expect(said.length).toBeLessThanOrEqual(3);
  });

  it("comes back when the broker is killed and started again", async () => {
    const first = await mosquitto();
    const { state, said } = keep(first.url);
    await expect.poll(() => state.connections, soon).toBe(1);
    await ended(first.child);
    await expect.poll(() => state.lost, soon).toBe(1);
    expect(said.at(-1)).toMatch(/^warn no connection/);
  });
});

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });
}
