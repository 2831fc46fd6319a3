import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer, type Server as NetServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, LinkError, messageOf } from "../../protocols/errors.ts";
import { type DeviceInput, Reader } from "./opcua/reader.ts";
import { Server, type ServerOptions } from "./opcua/server.ts";

const plant = "urn:plant:r1";
const other = "urn:plant:other";
const tags = [{ name: "level", node: `nsu=${plant};s=level` }];
const options: ServerOptions = {
  namespaces: [plant],
  variables: [{ namespace: plant, name: "level", dataType: "Double", value: 1 }],
};

describe("OPC UA, when something goes wrong", () => {
  const frees: (() => Promise<unknown>)[] = [];
  let server: Server;
  const start = async (more: Partial<ServerOptions>) => {
    const one = await Server.start({ ...options, ...more });
    frees.unshift(() => one.kill());
    return one;
  };
  const reader = (device: Omit<DeviceInput, "tags">) => {
    const one = new Reader({ tags, ...device });
    frees.unshift(() => one.close());
    return one;
  };
  const failure = (one: Reader) => one.connect().catch((error) => error);

  beforeAll(async () => {
    server = await Server.start(options);
  });
  afterAll(() => server.kill());
  afterEach(async () => {
    for (const free of frees.splice(0)) await free();
  });

  it("finds its nodes again when the server has renumbered its namespaces", async () => {
    const before = await start({ namespaces: [plant, other] });
    const one = await reader({ endpoint: before.endpoint }).start();
    await one.atLeast("level", 1);
    await before.shutdown();
    expect(await one.end()).toBeInstanceOf(LinkError);

    const after = await start({ namespaces: [other, plant], port: before.port });
    const again = await reader({ endpoint: after.endpoint }).start();
    expect((await again.atLeast("level", 1))[0]).toMatchObject({ value: 1, quality: 0 });
  });

  it("notices a server that vanishes without closing anything, and lets go of it at once", async () => {
    const one = await reader({ endpoint: server.endpoint }).start();
    await one.atLeast("level", 1);
    server.signal("SIGSTOP");
    const stopped = performance.now();
    const lost = await one.end();
    expect(lost).toBeInstanceOf(LinkError);
    expect(messageOf(lost)).toContain("no sign of life");
    expect(performance.now() - stopped).toBeLessThan(one.driver.quietMs);
    const closing = performance.now();
    await one.driver.close();
    expect(performance.now() - closing).toBeLessThan(500);
    server.signal("SIGCONT");
    const again = await reader({ endpoint: server.endpoint }).start();
    await again.atLeast("level", 1);
  });

  it("closes in time though the server has just vanished", async () => {
    const one = await reader({ endpoint: server.endpoint }).start();
    await one.atLeast("level", 1);
    server.signal("SIGSTOP");
    const closing = performance.now();
    await one.close();
    expect(performance.now() - closing).toBeLessThan(3000);
    server.signal("SIGCONT");
  });

  it("logs in with user and password, and says what is wrong when it cannot", async () => {
    const { endpoint } = await start({ users: { gateway: "secret" } });
    const login = { user: "gateway", password: "secret" };
    const one = await reader({ endpoint, login }).start();
    await one.atLeast("level", 1);

    const refused = await failure(reader({ endpoint, login: { ...login, password: "wrong" } }));
    expect(refused).toBeInstanceOf(ConfigError);
    expect(messageOf(refused)).toContain("the user gateway");
    expect(messageOf(refused)).not.toContain("wrong");

    const anonymous = await failure(reader({ endpoint }));
    expect(anonymous).toBeInstanceOf(ConfigError);
    expect(messageOf(anonymous)).toMatch(/does not offer an anonymous session.*It offers: .*UserName/);
  });

  it("never settles for less than was asked: a server that wants security is a matter of configuration", async () => {
    const { endpoint } = await start({ security: "sign" });
    const error = await failure(reader({ endpoint }));
    expect(error).toBeInstanceOf(ConfigError);
    expect(messageOf(error)).toContain("Sign Basic256Sha256");
  });

  const peers: [name: string, answer: (socket: Socket) => void][] = [
    ["accepts and says nothing", () => {}],
    ["speaks another protocol", (socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(40))],
    ["hangs up", (socket) => socket.destroy()],
  ];
  it.each(peers)("reports a peer that %s as a lost link", async (_name, answer) => {
    const peer = await listen(answer);
    frees.push(() => peer.close());
    const one = reader({ endpoint: `opc.tcp://127.0.0.1:${peer.port}`, timeout: "500 ms" });
    const before = performance.now();
    expect(await failure(one)).toBeInstanceOf(LinkError);
    expect(performance.now() - before).toBeLessThan(1500);
    await one.close();
    await expect.poll(() => peer.sockets()).toBe(0);
  });

  it("leaves nothing behind: the process ends by itself, silent, and its home stays empty", async () => {
    const home = await mkdtemp(join(tmpdir(), "millrace-home-"));
    frees.push(() => rm(home, { recursive: true }));
    const program = fileURLToPath(new URL("./opcua/read-once.ts", import.meta.url));
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [program, server.endpoint], {
      env: { PATH: "", HOME: home, XDG_CONFIG_HOME: home },
      timeout: 10_000,
    });
    expect({ stdout, stderr }).toEqual({ stdout: "1\n", stderr: "" });
    expect(await readdir(home)).toEqual([]);
  });
});

async function listen(answer: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server: NetServer = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    socket.resume();
    answer(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as { port: number }).port,
    sockets: () => sockets.size,
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}
