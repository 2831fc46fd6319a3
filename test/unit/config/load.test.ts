import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { ConfigFileError, loadCloud, loadEdge } from "../../../config/load.ts";
import { ConfigError } from "../../../protocols/errors.ts";
import { folderOf, rest } from "./files.ts";

function edge(text: string, env: Record<string, string> = {}, files: Record<string, string> = {}) {
  return loadEdge(join(folderOf({ ...files, "edge.yaml": text }), "edge.yaml"), env);
}

const drive = "devices: [{ name: d, protocol: modbus-tcp, host: h, tags: [{ name: t, register: coil 1 }] }]\n";

describe("what a file means", () => {
  test("defaults, durations in milliseconds, sizes in bytes", () => {
    const config = edge(`${rest}${drive}`);
    expect(config).toMatchObject({
      uplink: { mqtt_version: "auto", window: 16, acknowledge_timeout: 10_000 },
      buffer: { max_size: 1024 ** 3, when_full: "drop_oldest" },
      frame: { max_readings: 8192, linger: 1000 },
      reconnect: { first: 1000, longest: 30_000 },
      log: { level: "info" },
    });
    expect(config.http).toBeUndefined();
    expect(config.uplink.user).toBeUndefined();
  });

  test("paths are relative to the file", () => {
    const folder = folderOf({ "plant/edge.yaml": `${rest}${drive}` });
    expect(loadEdge(join(folder, "plant/edge.yaml"), {}).buffer.path).toBe(join(folder, "plant/buffer"));
  });

  test("a byte order mark, CRLF and comments", () => {
    const text = `\uFEFF# the edge\r\n${`${rest}site: pune # here\n${drive}`.replaceAll("\n", "\r\n")}`;
    expect(edge(text).site).toBe("pune");
  });

  test("anchors, aliases and merge keys; own keys win", () => {
    const config = edge(`${rest}devices:
  - &first { name: a, protocol: modbus-tcp, host: h, port: 503, tags: &tags [{ name: t, register: coil 1 }] }
  - { <<: *first, name: b, port: 504 }
  - { name: c, protocol: modbus-tcp, host: i, tags: *tags }
`);
    expect(config.devices).toMatchObject([
      { name: "a", host: "h", port: 503 },
      { name: "b", host: "h", port: 504, tags: [{ name: "t" }] },
      { name: "c", host: "i", port: 502, tags: [{ name: "t" }] },
    ]);
  });

  test("keys that JavaScript knows are keys like others", () => {
    expect(() => edge(`${rest}${drive}__proto__: { a: 1 }\n`)).toThrow('unknown key "__proto__"');
    expect(() => edge(`${rest}${drive}constructor: 1\n`)).toThrow('unknown key "constructor"');
  });

  test("the cloud's file, embedded and with servers elsewhere", () => {
    const folder = folderOf({
      "small.yaml": "broker: { embedded: {} }\nstore: { embedded: { path: db } }\n",
      "large.yaml":
        'broker: { url: "mqtts://b", user: c, password: p, mqtt_version: 5 }\nstore: { url: "postgres://d/m", password: q }\n',
    });
    expect(loadCloud(join(folder, "small.yaml"), {})).toMatchObject({
      broker: { embedded: { host: "127.0.0.1", port: 1883 }, user: "cloud" },
      edges: [],
      store: { embedded: { path: join(folder, "db") } },
      http: { host: "127.0.0.1", port: 8080 },
      retention: { frame_log: 30 * 86_400_000 },
      ingest: { max_rows_per_transaction: 200_000, max_pending: 64 * 1024 ** 2 },
    });
    const large = loadCloud(join(folder, "large.yaml"), {});
    expect(large.broker).toMatchObject({ url: "mqtts://b", user: "c", mqtt_version: 5 });
    expect("url" in large.store && large.store.password?.reveal()).toBe("q");
  });
});

describe("interpolation", () => {
  const withPassword = (value: string) =>
    `edge: line-1\nuplink:\n  url: mqtt://127.0.0.1\n  password: ${value}\nbuffer: { path: b }\n${drive}`;

  test("a plain value is what YAML makes of the result, a quoted one is text", () => {
    const env = { PORT: "8080", SITE: "0x10" };
    const config = edge(`${rest}http:\n  port: \${env:PORT}\nsite: "\${env:SITE}"\n${drive}`, env);
    expect(config.http?.port).toBe(8080);
    expect(config.site).toBe("0x10");
  });

  test("where the schema takes only one of text and number, it is that", () => {
    expect(edge(`${rest}http: { port: "\${env:PORT}" }\n${drive}`, { PORT: "8080" }).http?.port).toBe(8080);
    expect(edge(`${rest}site: \${env:SITE}\n${drive}`, { SITE: "0411" }).site).toBe("0411");
    for (const password of ["0123", "1e5", "true", "null", "~", " "]) {
      expect(edge(withPassword(`\${env:PW}`), { PW: password }).uplink.password?.reveal()).toBe(password);
    }
  });

  test("a file's content without its last line break, relative to the YAML file", () => {
    const read = (content: string) =>
      edge(withPassword(`"\${file:secrets/pw}"`), {}, { "secrets/pw": content }).uplink.password?.reveal();
    expect(read("hunter2\n")).toBe("hunter2");
    expect(read("hunter2\r\n")).toBe("hunter2");
    expect(read("two\nlines\n\n")).toBe("two\nlines\n");
  });

  test("several in one value, and $${ for the characters themselves", () => {
    const env = { HOST: "broker", PORT: "1884" };
    const config = edge(`${rest.replace("127.0.0.1:1883", "${env:HOST}:${env:PORT}")}site: a $\${b}\n${drive}`, env);
    expect(config.uplink.url).toBe("mqtt://broker:1884");
    expect(config.site).toBe("a ${b}");
  });

  test("an interpolated value is never interpolated again", () => {
    expect(edge(withPassword(`\${env:PW}`), { PW: "${env:OTHER}", OTHER: "x" }).uplink.password?.reveal()).toBe(
      "${env:OTHER}",
    );
  });

  test("a secret is not shown by printing the configuration", () => {
    const config = edge(withPassword("hunter2"));
    expect(JSON.stringify(config) + inspect(config, { depth: 9 }) + String(config.uplink.password)).not.toContain(
      "hunter2",
    );
  });
});

describe("what is no file", () => {
  test.each([
    ["a missing file", (folder: string) => join(folder, "nowhere.yaml"), "1:1 no such file"],
    ["a folder", (folder: string) => folder, "1:1 a folder, not a file"],
  ])("%s", (_, path, message) => {
    const file = path(folderOf({}));
    expect(() => loadEdge(file, {})).toThrow(message);
    expect(() => loadCloud(file, {})).toThrow(ConfigFileError);
    expect(() => loadCloud(file, {})).toThrow(ConfigError);
  });

  test("a file behind ${file:…} that is a folder", () => {
    const folder = folderOf({ "edge.yaml": `${rest}site: "\${file:sub}"\n${drive}` });
    mkdirSync(join(folder, "sub"));
    expect(() => loadEdge(join(folder, "edge.yaml"), {})).toThrow("site: ${file:sub}: a folder, not a file");
  });
});

describe("files that are made to hang the reader", () => {
  const soon = { timeout: 10_000 };

  test("twenty thousand opening brackets", soon, () => {
    expect(() => edge("[".repeat(20_000))).toThrow(ConfigFileError);
    expect(() => edge("{a: ".repeat(20_000))).toThrow(ConfigFileError);
    expect(() => edge(`${rest}devices: ${"[".repeat(3000)}${"]".repeat(3000)}\n`)).toThrow("nested too deep");
  });

  test("fifty thousand keys in one mapping", soon, () => {
    const keys = Array.from({ length: 50_000 }, (_, index) => `key${index}: 1\n`).join("");
    expect(() => edge(`${rest}${drive}${keys}`)).toThrow('unknown key "key49999"');
  });

  test("templates that multiply", soon, () => {
    const uses = (name: string) => `tags: [${Array(20).fill(`{ template: ${name} }`).join(", ")}]`;
    const text = `${rest}templates:
  a: { tags: [{ name: t, register: coil 1 }] }
  b: { ${uses("a")} }
  c: { ${uses("b")} }
  d: { ${uses("c")} }
  e: { ${uses("d")} }
  f: { ${uses("e")} }
devices: [{ name: d, protocol: modbus-tcp, host: h, ${uses("f")} }]
`;
    expect(() => edge(text)).toThrow("the templates make more than");
  });
});
