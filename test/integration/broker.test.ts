import { type EventEmitter, once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import type { IClientOptions, MqttClient } from "mqtt";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { EmbeddedBroker, urlOf } from "../../cloud/broker.ts";
import { ConfigError } from "../../protocols/errors.ts";
import { Secret } from "../../protocols/secret.ts";
import { topics } from "../../protocols/uplink/topics.ts";
import { type LogLine, recordedLog, service } from "./rig/cloud.ts";
import { connectMqtt } from "./rig/wire-edge.ts";

const frameOf = (edge: string) => topics.upward(edge, "frame");
const silent = pino({ level: "silent" });

describe("the embedded broker", () => {
  let broker: EmbeddedBroker;
  let url: string;
  let port: number;
  let lines: LogLine[];
  const clients: { end(force: true): void }[] = [];
  const sockets: Socket[] = [];

  beforeAll(async () => {
    const recorded = recordedLog();
    lines = recorded.lines;
    const edges = [
      { name: "line-1", password: new Secret("line-1-secret") },
      { name: "line-2", password: new Secret("line-2-secret") },
      { name: "no-password" },
    ];
    broker = new EmbeddedBroker({ host: "127.0.0.1", port: 0, edges, service, log: recorded.log });
    url = await broker.start();
    port = Number(new URL(url).port);
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.end(true);
    for (const socket of sockets.splice(0)) socket.destroy();
  });
  afterAll(() => broker?.stop());

  const login = async (username: string | undefined, password: string | undefined, options: IClientOptions = {}) => {
    const client = await connectMqtt(url, { username, password, ...options });
    clients.push(client);
    return client;
  };
  const edge = (name: string, options?: IClientOptions) => login(name, `${name}-secret`, options);
  const cloud = () => login(service.user, service.password.reveal());
  /** The cloud's client, and what it hears of everything there is. */
  const listen = async () => {
    const client = await cloud();
    const heard: { topic: string; text: string; retain: boolean }[] = [];
    client.on("message", (topic, payload, { retain }) => heard.push({ topic, text: String(payload), retain }));
    await client.subscribeAsync("#", { qos: 1 });
    return { client, heard };
  };
  const closed = (client: MqttClient) =>
    new Promise<void>((resolve) => (client.connected ? client.once("close", resolve) : resolve()));
  const raw = async () => {
    const socket = connect(port, "127.0.0.1");
    sockets.push(socket);
    socket.on("error", () => undefined);
    await once(socket, "connect");
    return socket;
  };
  /** An honest edge can still send and the cloud hears it. */
  const expectAtWork = async () => {
    const { heard } = await listen();
    const honest = await edge("line-1");
    await honest.publishAsync(frameOf("line-1"), "still here", { qos: 1 });
    await expect.poll(() => heard.map(({ text }) => text)).toEqual(["still here"]);
  };

  describe("lets in nobody but whom it knows", () => {
    it.each([
      ["an unknown user", "line-9", "line-1-secret"],
      ["a wrong password", "line-1", "line-2-secret"],
      ["the beginning of a password", "line-1", "line-1-secre"],
      ["more than a password", "line-1", "line-1-secret "],
      ["an empty password", "line-1", ""],
      ["no password", "line-1", undefined],
      ["no user", undefined, undefined],
      ["an edge that has no password", "no-password", ""],
      ["an edge that has no password, with one", "no-password", "no-password-secret"],
      ["the service with a wrong password", "cloud", "cloud"],
    ])("%s", async (_, user, password) => {
      lines.length = 0;
      await expect(login(user, password)).rejects.toMatchObject({ code: 4 });
      expect(lines.filter(({ level }) => level === 40)).toMatchObject([
        { msg: "the broker refuses a login: unknown user or wrong password", from: "127.0.0.1" },
      ]);
      expect(JSON.stringify(lines)).not.toContain("secret");
    });

    it("whoever asks for a persistent session, which would be kept for ever", async () => {
      await expect(edge("line-1", { clean: false, clientId: "x" })).rejects.toMatchObject({ code: 5 });
    });

    it("whoever speaks MQTT 5, and says so, for the client to try 3.1.1", async () => {
      await expect(edge("line-1", { protocolVersion: 5 })).rejects.toMatchObject({ code: 1 });
    });
  });

  interface Publication {
    readonly topic: string;
    readonly retain?: boolean;
    readonly qos?: 1 | 2;
  }

  describe("lets an edge publish", () => {
    it("its frames and device maps", async () => {
      const { heard } = await listen();
      const client = await edge("line-1");
      await client.publishAsync(topics.upward("line-1", "frame"), "a", { qos: 1 });
      await client.publishAsync(topics.upward("line-1", "map"), "b", { qos: 0 });
      await expect
        .poll(() => heard.map(({ topic }) => topic))
        .toEqual(["millrace/v1/edge/line-1/frame", "millrace/v1/edge/line-1/map"]);
    });

    it.each<[string, Publication]>([
      ["another edge's topic", { topic: frameOf("line-2") }],
      ["its own acknowledgements", { topic: topics.acknowledgement("line-1") }],
      ["another's acknowledgements", { topic: topics.acknowledgement("line-2") }],
      ["the cloud's topic", { topic: topics.cloudReady }],
      ["below its own frames", { topic: `${frameOf("line-1")}/x` }],
      ["its own name without a kind", { topic: "millrace/v1/edge/line-1/" }],
      ["any other topic", { topic: "plant/setpoint" }],
      ["a topic of the broker's own", { topic: "$SYS/x" }],
      ["a retained frame", { topic: frameOf("line-1"), retain: true }],
      ["a frame of QoS 2", { topic: frameOf("line-1"), qos: 2 }],
    ])("not %s, and ends its connection", async (_, { topic, retain = false, qos = 1 }) => {
      const { heard } = await listen();
      const client = await edge("line-1");
      lines.length = 0;
      client.publish(topic, "forged", { qos, retain });
      await closed(client);
      expect(lines.filter(({ level }) => level === 40)).toMatchObject([
        { user: "line-1", topic, msg: "the broker refuses a message: not this user's to publish" },
      ]);
      const honest = await edge("line-2");
      await honest.publishAsync(frameOf("line-2"), "honest", { qos: 1 });
      await expect.poll(() => heard.map(({ text }) => text)).toEqual(["honest"]);
    });

    it.each([
      ["a topic not its own", { topic: frameOf("line-2"), retain: false }],
      ["its own, retained", { topic: frameOf("line-1"), retain: true }],
    ])("no will to %s", async (_, { topic, retain }) => {
      const { heard } = await listen();
      const client = await edge("line-1", { will: { topic, retain, payload: Buffer.from("last will"), qos: 1 } });
      client.stream.destroy();
      await closed(client);
      // The same edge's allowed will goes through, after the forbidden one would have.
      const allowed = await edge("line-1", {
        will: { topic: frameOf("line-1"), payload: Buffer.from("allowed will"), qos: 1, retain: false },
      });
      allowed.stream.destroy();
      await expect.poll(() => heard.map(({ text }) => text)).toEqual(["allowed will"]);
    });
  });

  describe("lets an edge subscribe", () => {
    it("to its own acknowledgements and to the cloud's beginning", async () => {
      const client = await edge("line-1");
      const granted = await client.subscribeAsync([topics.acknowledgement("line-1"), topics.cloudReady], { qos: 1 });
      expect(granted.map(({ qos }) => qos)).toEqual([1, 1]);
    });

    it.each([
      "#",
      "+/#",
      "millrace/#",
      "millrace/v1/edge/+/acknowledgement",
      "millrace/v1/edge/line-1/#",
      "millrace/v1/edge/line-1/+",
      topics.acknowledgement("line-2"),
      frameOf("line-1"),
      frameOf("line-2"),
      "millrace/v1/cloud/+",
      "$SYS/#",
      `$share/all/${topics.acknowledgement("line-2")}`,
    ])("not to %s, but keeps its connection", async (filter) => {
      const client = await edge("line-1");
      const heard: string[] = [];
      client.on("message", (topic) => heard.push(topic));
      // The client reports the refusal (a granted QoS of 128) as an error.
      await expect(client.subscribeAsync(filter, { qos: 1 })).rejects.toThrow();
      const service = await cloud();
      await service.publishAsync(topics.acknowledgement("line-2"), "not for line-1", { qos: 1 });
      await client.subscribeAsync(topics.cloudReady, { qos: 1 });
      await service.publishAsync(topics.cloudReady, "for all", { qos: 1 });
      await expect.poll(() => heard).toEqual([topics.cloudReady]);
      expect(client.connected).toBe(true);
    });
  });

  it("keeps no message of the cloud's for an edge that comes later", async () => {
    const service = await cloud();
    await service.publishAsync(topics.acknowledgement("line-1"), "gone", { qos: 1 });
    const client = await edge("line-1");
    const heard: string[] = [];
    client.on("message", (_, payload) => heard.push(String(payload)));
    await client.subscribeAsync(topics.acknowledgement("line-1"), { qos: 1 });
    await service.publishAsync(topics.acknowledgement("line-1"), "now", { qos: 1 });
    await expect.poll(() => heard).toEqual(["now"]);
  });

  describe("sessions", () => {
    it("ends the first connection of an edge when a second one takes over its client id", async () => {
      const first = await edge("line-1", { clientId: "the-edge" });
      const second = await edge("line-1", { clientId: "the-edge" });
      await closed(first);
      await second.publishAsync(frameOf("line-1"), "x", { qos: 1 });
    });

    it("lets no edge take over another's client id, or the cloud's", async () => {
      const victim = await edge("line-1", { clientId: "the-edge" });
      const service = await login(serviceLogin.user, serviceLogin.password, { clientId: "the-cloud" });
      await edge("line-2", { clientId: "the-edge" });
      await edge("line-2", { clientId: "the-cloud" });
      await victim.publishAsync(frameOf("line-1"), "x", { qos: 1 });
      await service.publishAsync(topics.cloudReady, "x", { qos: 1 });
      expect([victim.connected, service.connected]).toEqual([true, true]);
    });
  });

  describe("goes on", () => {
    it.each([
      ["random bytes", Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 197 + 31) % 256))],
      ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
      ["a TLS handshake", Buffer.from("16030100c8010000c40303", "hex")],
      ["a packet that announces 256 MiB", Buffer.from("30ffffff7f", "hex")],
      ["a login that announces 100 KB", Buffer.from("10a08d06", "hex")],
      ["an impossible length", Buffer.from("10ffffffffffff", "hex")],
      ["a frame without a login", Buffer.concat([Buffer.from("300a0004", "hex"), Buffer.from("a/b/hello")])],
      ["two logins", Buffer.concat([connectPacket("a", "line-1"), connectPacket("b", "line-1")])],
    ])("when a client sends %s, and ends that connection", async (_, bytes) => {
      const socket = await raw();
      // At once, and not when the time for a login is over.
      const ended = once(socket, "close", { signal: AbortSignal.timeout(3000) });
      socket.write(bytes);
      if (bytes[0] === 0x16) socket.end(); // these bytes are a packet that goes on: the client gives up
      socket.resume();
      await ended;
      await expectAtWork();
    });

    it("when an edge sends a packet larger than any frame, which it ends before it has arrived", async () => {
      const client = await edge("line-2");
      lines.length = 0;
      client.publish(frameOf("line-2"), Buffer.alloc(9 * 1024 * 1024), { qos: 1 });
      await closed(client);
      expect(lines.filter(({ level }) => level === 40)).toMatchObject([
        { user: "line-2", msg: expect.stringContaining("announces a packet of more than 8454144 bytes") },
      ]);
      await expectAtWork();
    });

    it("when an edge sends the largest frame there is", async () => {
      const { heard } = await listen();
      const client = await edge("line-2");
      await client.publishAsync(frameOf("line-2"), Buffer.alloc(8 * 1024 * 1024, "x"), { qos: 1 });
      await expect.poll(() => heard.length).toBe(1);
      expect(heard[0]!.text.length).toBe(8 * 1024 * 1024);
    });

    it("when clients connect and say nothing, or break off in the middle of a login", async () => {
      for (let i = 0; i < 50; i++) (await raw()).write(connectPacket("x", "line-1").subarray(0, i % 20));
      await expectAtWork();
    });

    it("for one edge while another floods it", { timeout: 20_000 }, async () => {
      const { heard } = await listen();
      const flooder = await edge("line-2");
      let flooding = true;
      const flood = (async () => {
        const noise = Buffer.alloc(256 * 1024);
        while (flooding) {
          await Promise.all(
            Array.from({ length: 20 }, () => flooder.publishAsync(frameOf("line-2"), noise, { qos: 1 })),
          );
        }
      })();
      const honest = await edge("line-1");
      const waits: number[] = [];
      for (let i = 0; i < 50; i++) {
        const started = performance.now();
        await honest.publishAsync(frameOf("line-1"), `${i}`, { qos: 1 });
        waits.push(performance.now() - started);
      }
      flooding = false;
      await flood;
      expect(waits.sort((a, b) => a - b)[25]).toBeLessThan(500);
      await expect
        .poll(() => heard.filter(({ topic }) => topic === frameOf("line-1")).map(({ text }) => text))
        .toEqual(Array.from({ length: 50 }, (_, i) => `${i}`));
    });

    it("for one edge while another reads nothing of what it is sent", async () => {
      const stuck = await edge("line-2");
      await stuck.subscribeAsync(topics.acknowledgement("line-2"), { qos: 1 });
      stuck.stream.pause();
      const service = await cloud();
      for (let i = 0; i < 40; i++) {
        service.publish(topics.acknowledgement("line-2"), Buffer.alloc(1024 * 1024), { qos: 0 });
      }
      const client = await edge("line-1");
      const heard: string[] = [];
      client.on("message", (_, payload) => heard.push(String(payload)));
      await client.subscribeAsync(topics.acknowledgement("line-1"), { qos: 1 });
      await service.publishAsync(topics.acknowledgement("line-1"), "for line-1", { qos: 1 });
      await expect.poll(() => heard).toEqual(["for line-1"]);
    });
  });
});

const serviceLogin = { user: service.user, password: service.password.reveal() };

/** An MQTT 3.1.1 CONNECT with a clean session, to the byte. */
function connectPacket(clientId: string, user: string): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)]);
  const body = Buffer.concat([
    text("MQTT"),
    Buffer.from([4, 0b1100_0010, 0, 60]),
    text(clientId),
    text(user),
    text(`${user}-secret`),
  ]);
  return Buffer.concat([Buffer.from([0x10, body.length]), body]);
}

describe("starting and stopping the embedded broker", () => {
  const options = { host: "127.0.0.1", port: 0, edges: [], service, log: silent };

  it("says which address is taken, and can be started there once it is free", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    const broker = new EmbeddedBroker({ ...options, port });
    const attempt = broker.start();
    await expect(attempt).rejects.toThrow(ConfigError);
    await expect(attempt).rejects.toThrow(`127.0.0.1:${port}: choose another broker.embedded.host or port`);
    await broker.stop();
    await new Promise((resolve) => other.close(resolve));
    const second = new EmbeddedBroker({ ...options, port });
    expect(await second.start()).toBe(`mqtt://127.0.0.1:${port}`);
    await second.stop();
  });

  it("says which address is not this machine's", async () => {
    const broker = new EmbeddedBroker({ ...options, host: "192.0.2.1" });
    await expect(broker.start()).rejects.toThrow(/192\.0\.2\.1:0/);
  });

  it("refuses two users of one name", async () => {
    const edges = [{ name: "cloud", password: new Secret("x") }];
    await expect(new EmbeddedBroker({ ...options, edges }).start()).rejects.toThrow(
      "the broker's user cloud is named twice",
    );
  });

  it("stops at once, though clients are connected and others have not logged in", async () => {
    const broker = new EmbeddedBroker({
      ...options,
      edges: [{ name: "line-1", password: new Secret("line-1-secret") }],
    });
    const url = await broker.start();
    const client = await connectMqtt(url, { username: "line-1", password: "line-1-secret" });
    const silent = connect(Number(new URL(url).port), "127.0.0.1");
    await once(silent, "connect");
    const gone = (end: EventEmitter) => new Promise((resolve) => end.once("close", resolve));
    const ended = [gone(client as unknown as EventEmitter), gone(silent)];
    const started = performance.now();
    await broker.stop();
    await Promise.all(ended);
    expect(performance.now() - started).toBeLessThan(1000);
    await broker.stop();
  });

  it("gives an address that a program on this machine can use", () => {
    expect(urlOf("mqtt", { address: "0.0.0.0", port: 1883 })).toBe("mqtt://127.0.0.1:1883");
    expect(urlOf("http", { address: "::", port: 80 })).toBe("http://[::1]:80");
    expect(urlOf("http", { address: "fe80::1", port: 80 })).toBe("http://[fe80::1]:80");
    expect(urlOf("http", { address: "10.0.0.7", port: 80 })).toBe("http://10.0.0.7:80");
  });
});
