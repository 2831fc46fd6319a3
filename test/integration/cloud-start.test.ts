import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { startCloud } from "../../cloud/main.ts";
import { openStore } from "../../cloud/store/open.ts";
import { type CloudConfig, cloudSchema } from "../../config/cloud.ts";
import { ConfigError } from "../../protocols/errors.ts";
import { upTo, WireEdge } from "./rig/wire-edge.ts";

const log = pino({ level: "silent" });

describe("starting and stopping the cloud service", () => {
  let folder: string;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "millrace-start-"));
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const config = (over: Record<string, unknown> = {}): CloudConfig =>
    cloudSchema(folder).parse({
      broker: { embedded: { port: 0 } },
      edges: [{ name: "line-1", password: "line-1-secret" }],
      store: { embedded: { path: "./db" } },
      http: { port: 0 },
      ...over,
    });
  const listen = async (accept: (socket: Socket) => void = () => undefined): Promise<[Server, number]> => {
    const server = createServer(accept).listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => server.close());
    return [server, (server.address() as { port: number }).port];
  };
  const refused = async (port: number) => {
    const socket = connect(port, "127.0.0.1");
    const [error] = await once(socket, "error");
    return (error as NodeJS.ErrnoException).code;
  };

  it("leaves nothing behind when its HTTP port is taken: neither database nor broker", async () => {
    const [, httpPort] = await listen();
    const [placeholder, brokerPort] = await listen();
    await new Promise((resolve) => placeholder.close(resolve));
    const broken = config({ broker: { embedded: { port: brokerPort } }, http: { port: httpPort } });
    await expect(startCloud(broken, { log, version: "test" })).rejects.toThrow(ConfigError);
    expect(await refused(brokerPort)).toBe("ECONNREFUSED");
    const store = await openStore({ embedded: { path: join(folder, "db") } }, { log });
    await store.close();
  });

  it("leaves no broker behind when the database's folder is in use", async () => {
    const store = await openStore({ embedded: { path: join(folder, "db") } }, { log });
    cleanups.push(() => store.close());
    const [placeholder, brokerPort] = await listen();
    await new Promise((resolve) => placeholder.close(resolve));
    const attempt = startCloud(config({ broker: { embedded: { port: brokerPort } } }), { log, version: "test" });
    await expect(attempt).rejects.toThrow(/in use by process/);
    expect(await refused(brokerPort)).toBe("ECONNREFUSED");
  });

  it("counts in /metrics what it ingests, and can be started again in the same process", async () => {
    const edge = new WireEdge("line-1");
    for (const start of [1, 2]) {
      const cloud = await startCloud(config(), { log, version: "test" });
      cleanups.push(() => cloud.stop());
      await expect
        .poll(async () => (await fetch(`${cloud.addresses.http}/health/ready`)).status, { timeout: 10_000 })
        .toBe(200);
      await edge.connect(cloud.addresses.broker!);
      await edge.sendMap();
      edge.committed.length = 0;
      await Promise.all(upTo(5).map((seq) => edge.send(edge.countFrame(seq))));
      await edge.send(new Uint8Array([1, 2, 3]));
      await expect.poll(() => edge.committed.length).toBe(5);
      const metrics = async () => (await fetch(`${cloud.addresses.http}/metrics`)).text();
      await expect.poll(metrics).toContain('millrace_ingest_frames_total{outcome="refused"} 1\n');
      const text = await metrics();
      expect(text).toContain(`millrace_ingest_frames_total{outcome="stored"} ${start === 1 ? 5 : 0}\n`);
      expect(text).toContain(`millrace_ingest_frames_total{outcome="duplicate"} ${start === 1 ? 0 : 5}\n`);
      expect(text).toContain(`millrace_ingest_readings_total ${start === 1 ? 5 : 0}\n`);
      expect(text).toContain("millrace_ingest_pending_bytes 0\n");
      expect(text).toMatch(/millrace_ingest_commit_duration_seconds_count [1-9]/);
      edge.drop();
      await cloud.stop();
      await cloud.finished;
    }
  });

  it("demands TLS of the database, checked by the certificate authority in the file of store.ca", async () => {
    await writeFile(join(folder, "ca.pem"), rootCertificates[0]!);
    const heard: Buffer[] = [];
    const [, port] = await listen((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (request: Buffer) => {
        heard.push(request);
        socket.once("data", (hello: Buffer) => {
          heard.push(hello);
          socket.destroy();
        });
        socket.write("S"); // TLS is welcome
      });
    });
    const store = { url: `postgres://127.0.0.1:${port}/x`, ca: "./ca.pem" };
    const cloud = await startCloud(config({ store }), { log, version: "test" });
    cleanups.push(() => cloud.stop());
    await expect.poll(() => heard.length, { timeout: 5000 }).toBeGreaterThan(1);
    expect(heard[0]!.toString("hex")).toBe("0000000804d2162f"); // SSLRequest
    expect(heard[1]![0]).toBe(0x16); // a TLS handshake
  });
});
