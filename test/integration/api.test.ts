import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Micros, Quality } from "../../protocols/reading.ts";
import type { DeviceMap, MappedTag } from "../../protocols/uplink/frame.ts";
import { Feeder, type MappedReading, micros, openTestApi, type TestApi } from "./api-plant.ts";

interface Page<T> {
  items: T[];
  next: string | null;
}
interface Item {
  time: string;
  value: number | boolean | string | null;
  quality: { severity: string; code: number; name: string };
}

const t0 = micros("2026-03-01T08:00:00.000000Z");
const [reactor, drives] = ["reactor-1", "drives"];
const burst = 250;

const tags: MappedTag[] = [
  {
    device: reactor,
    name: "temperature",
    kind: "number",
    unit: "degC",
    equipment: "pune/api/reactor-1",
    range: [0, 200],
    description: "Mass temperature",
  },
  { device: reactor, name: "batch_id", kind: "text", equipment: "pune/api/reactor-1" },
  { device: reactor, name: "valve", kind: "boolean", equipment: "pune/api/reactor-1" },
  { device: drives, name: "speed", kind: "number", unit: "rpm", equipment: "pune/api/reactor-10" },
  { device: drives, name: "burst", kind: "number" },
  { device: drives, name: "silent", kind: "any" },
];
const temperature = "line-3.reactor-1.temperature";

const line3: DeviceMap = {
  edge: "line-3",
  site: "pune",
  devices: [
    { name: reactor, protocol: "opcua" },
    { name: drives, protocol: "modbus-tcp" },
  ],
  tags,
};
const line4: DeviceMap = {
  edge: "line-4",
  devices: [{ name: drives, protocol: "modbus-tcp" }],
  tags: [{ device: drives, name: "speed", kind: "number" }],
};

/** Numbers that tell whether doubles survive: exact to the last bit, or not at all. */
const awkward = [0.1, 1 / 3, 5e-324, Number.MAX_VALUE, -1.5e-7, 2 ** 53, 123456789.12345679];

function good(tag: number, time: Micros, value: MappedReading["value"]): MappedReading {
  return { tag, time, value, quality: Quality.Good };
}

let api: TestApi;

beforeAll(async () => {
  api = await openTestApi();
  const feeder = new Feeder(api.store, line3);
  await feeder.saveMap();
  await feeder.write([
    ...awkward.map((value, i) => good(0, t0 + i, value)),
    { tag: 0, time: t0 + 1_000_000, value: null, quality: Quality.BadSensorFailure },
    { tag: 0, time: t0 + 2_000_000, value: 71.25, quality: Quality.UncertainLastUsableValue },
    good(1, t0, "B-2026-0001"),
    good(1, t0 + 5, 'quoted "text", Ünïcödé 🧪 and a\nline'),
    good(2, t0, true),
    good(2, t0 + 1, false),
    good(3, t0, 1480),
  ]);
  // Readings of one and the same time: in one frame, and in several.
  for (let frame = 0; frame < 5; frame++) {
    await feeder.write(Array.from({ length: burst / 5 }, (_, i) => good(4, t0, frame * 1000 + i)));
  }
  feeder.lose(2);
  await feeder.write(
    [],
    [
      {
        device: drives,
        tag: null,
        reason: "device_down",
        from: t0,
        to: t0 + 60_000_000,
        detail: "connect ECONNREFUSED",
      },
      { device: drives, tag: "silent", reason: "tag_bad", from: t0 + 5, to: null, detail: "exception 2" },
      ...Array.from({ length: 6 }, (_, i) => ({
        device: reactor,
        tag: `tag-${i}`,
        reason: "overflow" as const,
        from: t0 + 1000,
        to: t0 + 2000,
        detail: "",
      })),
    ],
  );
  const other = new Feeder(api.store, line4, "0195f3c2a6b17c3e8d4f5a6b7c8d9e10");
  await other.saveMap();
  await other.write([good(0, t0, 1)]);
});

afterAll(() => api.close());

async function get(url: string) {
  const response = await api.app.inject({ url });
  return { status: response.statusCode, headers: response.headers, body: response.json() };
}

/** Follows `next` to the end, by cursor or by the Link header. */
async function pages<T>(url: string): Promise<{ items: T[]; sizes: number[] }> {
  const [items, sizes]: [T[], number[]] = [[], []];
  for (let next: string | undefined = url; next !== undefined; ) {
    const { status, headers, body } = await get(next);
    expect(status).toBe(200);
    const page = body as Page<T>;
    items.push(...page.items);
    sizes.push(page.items.length);
    const link = /^<(.*)>; rel="next"$/.exec(String(headers.link ?? ""))?.[1];
    expect(link !== undefined && new URL(link, "http://x").searchParams.get("cursor")).toBe(page.next ?? false);
    next = link;
  }
  return { items, sizes };
}

const whole = `from=2026-03-01T08:00:00Z&to=2026-03-01T09:00:00Z`;

describe("edges", () => {
  test("are listed with the account of their streams", async () => {
    const { status, body } = await get("/api/v1/edges");
    expect(status).toBe(200);
    expect(body.next).toBeNull();
    expect(body.items).toMatchObject([
      {
        edge: "line-3",
        site: "pune",
        frames: 7,
        whole: false,
        streams: [
          { stream: "0195f3c2a6b17c3e8d4f5a6b7c8d9e0f", frames: 7, last_seq: 9, whole: false, missing: [[7, 8]] },
        ],
      },
      { edge: "line-4", site: null, frames: 1, whole: true, streams: [{ last_seq: 1, whole: true, missing: [] }] },
    ]);
    expect(body.items[0].last_frame_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  });
});

describe("tags", () => {
  const names = async (query: string) =>
    ((await get(`/api/v1/tags?${query}`)).body as Page<{ tag: string }>).items.map(({ tag }) => tag);

  test("come in order of their names, with all there is to know of them", async () => {
    const { items } = (await get("/api/v1/tags")).body;
    expect(items.map(({ tag }: { tag: string }) => tag)).toEqual([
      "line-3.drives.burst",
      "line-3.drives.silent",
      "line-3.drives.speed",
      "line-3.reactor-1.batch_id",
      "line-3.reactor-1.temperature",
      "line-3.reactor-1.valve",
      "line-4.drives.speed",
    ]);
    expect(items[4]).toEqual({
      tag: temperature,
      edge: "line-3",
      device: reactor,
      name: "temperature",
      kind: "number",
      description: "Mass temperature",
      unit: "degC",
      equipment: "pune/api/reactor-1",
      range: [0, 200],
      latest: {
        time: "2026-03-01T08:00:02.000000Z",
        value: 71.25,
        quality: { severity: "uncertain", code: Quality.UncertainLastUsableValue, name: "UncertainLastUsableValue" },
      },
    });
    expect(items[1]).toMatchObject({ latest: null, unit: null, equipment: null, range: null, description: null });
  });

  test("are filtered by edge, device and equipment", async () => {
    expect(await names("edge=line-4")).toEqual(["line-4.drives.speed"]);
    expect(await names("edge=line-3&device=drives")).toHaveLength(3);
    expect(await names("device=drives")).toHaveLength(4);
    expect(await names("equipment=pune/api/reactor-1")).toHaveLength(3);
    expect(await names("equipment=pune%2Fapi")).toHaveLength(4);
    expect(await names("equipment=une")).toEqual([]);
    expect(await names("edge=nobody")).toEqual([]);
  });

  test.each([1, 2, 3, 7, 8])("come once each in pages of %d", async (limit) => {
    const { items, sizes } = await pages<{ tag: string }>(`/api/v1/tags?limit=${limit}`);
    expect(items.map(({ tag }) => tag)).toEqual(await names(""));
    expect(sizes).toHaveLength(Math.ceil(7 / limit));
  });

  test("one is found by its name", async () => {
    expect((await get(`/api/v1/tags/${temperature}`)).body).toMatchObject({ tag: temperature, unit: "degC" });
  });
});

describe("readings", () => {
  const values = async (tag: string, query = whole) =>
    ((await get(`/api/v1/tags/${tag}/readings?${query}`)).body as Page<Item>).items;

  test("numbers come back exactly, bad ones as null with their status", async () => {
    const items = await values(temperature);
    expect(items.slice(0, awkward.length).map(({ value }) => value)).toEqual(awkward);
    expect(items.slice(awkward.length)).toEqual([
      {
        time: "2026-03-01T08:00:01.000000Z",
        value: null,
        quality: { severity: "bad", code: 0x808c0000, name: "BadSensorFailure" },
      },
      {
        time: "2026-03-01T08:00:02.000000Z",
        value: 71.25,
        quality: { severity: "uncertain", code: 0x40900000, name: "UncertainLastUsableValue" },
      },
    ]);
    expect(items[3]!.time).toBe("2026-03-01T08:00:00.000003Z");
  });

  test("texts and booleans keep their type", async () => {
    expect((await values("line-3.reactor-1.valve")).map(({ value }) => value)).toEqual([true, false]);
    expect((await values("line-3.reactor-1.batch_id")).map(({ value }) => value)).toEqual([
      "B-2026-0001",
      'quoted "text", Ünïcödé 🧪 and a\nline',
    ]);
  });

  test("from is inclusive, to exclusive, both to the microsecond", async () => {
    const at = (i: number) => `2026-03-01T08:00:00.00000${i}Z`;
    expect((await values(temperature, `from=${at(2)}&to=${at(4)}`)).map(({ time }) => time)).toEqual([at(2), at(3)]);
    expect(await values(temperature, `from=${at(2)}&to=${at(2)}`)).toEqual([]);
    expect(
      await values(temperature, "from=2026-03-01T13:30:00%2B05:30&to=2026-03-01T13:30:00.000001+05:30"),
    ).toHaveLength(1);
  });

  test.each([1, 7, 50, 100, 249, 250, 251])("of one time come once each in pages of %d", async (limit) => {
    const { items, sizes } = await pages<Item>(`/api/v1/tags/line-3.drives.burst/readings?${whole}&limit=${limit}`);
    const expected = Array.from({ length: burst }, (_, i) => Math.floor(i / 50) * 1000 + (i % 50));
    expect(items.map(({ value }) => value)).toEqual(expected);
    expect(sizes).toHaveLength(Math.ceil(burst / limit));
  });

  test("the last hour is the default, and all its pages cover the same hour", async () => {
    const feeder = new Feeder(api.store, { ...line4, edge: "line-5" }, "0195f3c2a6b17c3e8d4f5a6b7c8d9e11");
    await feeder.saveMap();
    const nowUs = Date.now() * 1000;
    const ages = [3700e6, 3590e6, 1800e6, 60e6];
    await feeder.write(ages.map((age, i) => good(0, nowUs - age, i)));
    const url = "/api/v1/tags/line-5.drives.speed/readings";
    expect((await pages<Item>(url)).items.map(({ value }) => value)).toEqual([1, 2, 3]);
    const first = (await get(`${url}?limit=1&from=-65 min`)).body as Page<Item>;
    await feeder.write([good(0, Date.now() * 1000, 4)]);
    const rest = (await get(`${url}?from=-65 min&cursor=${first.next}`)).body as Page<Item>;
    expect([...first.items, ...rest.items].map(({ value }) => value)).toEqual([0, 1, 2, 3]);
  });

  test("a tag without readings is empty; one that does not exist is not found", async () => {
    expect(await values("line-3.drives.silent")).toEqual([]);
    const { status, body } = await get("/api/v1/tags/line-3.drives.nothing/readings");
    expect(status).toBe(404);
    expect(body).toMatchObject({ type: "urn:millrace:problem:unknown_tag", status: 404 });
    expect(body.detail).toContain("line-3.drives.nothing");
  });
});

describe("gaps", () => {
  const gaps = async (query: string) => (await get(`/api/v1/gaps?${query}`)).body.items;

  test("come latest first, open ones without an end", async () => {
    const items = await gaps("device=drives");
    expect(items).toEqual([
      {
        edge: "line-3",
        device: drives,
        tag: "silent",
        reason: "tag_bad",
        from: "2026-03-01T08:00:00.000005Z",
        to: null,
        detail: "exception 2",
      },
      {
        edge: "line-3",
        device: drives,
        tag: null,
        reason: "device_down",
        from: "2026-03-01T08:00:00.000000Z",
        to: "2026-03-01T08:01:00.000000Z",
        detail: "connect ECONNREFUSED",
      },
    ]);
  });

  test("are filtered by edge, device, tag, reason and time", async () => {
    expect(await gaps("")).toHaveLength(8);
    expect(await gaps("edge=line-4")).toEqual([]);
    expect(await gaps("device=reactor-1&tag=tag-3")).toHaveLength(1);
    expect(await gaps("device=drives&tag=speed")).toMatchObject([{ reason: "device_down" }]);
    expect(await gaps("reason=tag_bad")).toHaveLength(1);
    expect(await gaps("from=now")).toMatchObject([{ to: null }]);
    expect(await gaps("from=2026-03-01T08:00:01Z&to=2026-03-01T08:00:02Z")).toHaveLength(2);
    expect(await gaps("to=2026-03-01T08:00:00.000005Z")).toMatchObject([{ reason: "device_down" }]);
  });

  test.each([1, 2, 3, 5, 7, 8])("come once each in pages of %d, also those that began together", async (limit) => {
    const { items, sizes } = await pages(`/api/v1/gaps?limit=${limit}`);
    expect(items).toEqual(await gaps(""));
    expect(sizes).toHaveLength(Math.ceil(8 / limit));
  });
});

describe("what is wrong with a request is said by name", () => {
  const readings = `/api/v1/tags/${temperature}/readings`;
  test.each([
    ["/api/v1/tags?limit=0", "limit", /whole number from 1 to 10000/],
    ["/api/v1/tags?limit=10001", "limit", /from 1 to 10000/],
    ["/api/v1/tags?limit=1e3", "limit", /whole number/],
    ["/api/v1/tags?limit=", "limit", /whole number/],
    ["/api/v1/tags?limit=1&limit=2", "limit", /once/],
    ["/api/v1/tags?edge=line%203", "edge", /a name of letters/],
    ["/api/v1/tags?equipment=/pune/", "equipment", /equipment path such as/],
    ["/api/v1/tags?cursor=nonsense", "cursor", /`next`/],
    [`/api/v1/tags?cursor=${"x".repeat(3000)}`, "cursor", /`next`/],
    ["/api/v1/tags?egde=line-3", "egde", /there are edge, device, equipment, limit, cursor/],
    ["/api/v1/edges?edge=line-3", "edge", /no parameter is taken/],
    ["/api/v1/tags/temperature", "tag", /edge\.device\.tag/],
    ["/api/v1/tags/a.b.c.d/readings", "tag", /edge\.device\.tag/],
    [`/api/v1/tags/${"x".repeat(300)}`, "tag", /edge\.device\.tag/],
    [`${readings}?from=yesterday`, "from", /RFC 3339/],
    [`${readings}?from=10000-01-01T00:00:00Z`, "from", /RFC 3339/],
    [`${readings}?to=9999-12-31T23:59:59Z`, "to", /1685 and 2254/],
    [`${readings}?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z`, "from", /not after to/],
    ["/api/v1/gaps?from=now&to=-1h", "from", /not after to/],
    ["/api/v1/gaps?reason=laziness", "reason", /device_down, tag_bad/],
  ])("%s", async (url, parameter, detail) => {
    const { status, headers, body } = await get(url);
    expect(status).toBe(400);
    expect(headers["content-type"]).toMatch(/^application\/problem\+json/);
    expect(body).toMatchObject({ type: "urn:millrace:problem:invalid_request", status: 400, instance: url });
    const error = body.errors.find((one: { parameter: string }) => one.parameter === parameter);
    expect(error.detail).toMatch(detail);
    expect(body.detail).toContain(`${parameter}: `);
  });

  test("all mistakes at once", async () => {
    const { body } = await get(`${readings}?from=x&to=y&limit=z&foo=1`);
    expect(body.errors.map(({ parameter }: { parameter: string }) => parameter)).toEqual([
      "from",
      "to",
      "limit",
      "foo",
    ]);
  });

  test("a cursor of another query", async () => {
    const { next } = (await get("/api/v1/tags?limit=1&edge=line-3")).body;
    const { status, body } = await get(`/api/v1/tags?limit=1&edge=line-4&cursor=${next}`);
    expect(status).toBe(400);
    expect(body.errors[0].detail).toMatch(/of this very query/);
  });
});

describe("any text in any place", () => {
  const hostile = [
    "' OR '1'='1",
    "'; DROP TABLE reading; --",
    '"; SELECT pg_sleep(10); --',
    "1) UNION SELECT raw FROM frame_log --",
    "$1",
    "%",
    "_",
    "\\",
    "\u0000",
    "\ud83e\uddea",
    "../../etc/passwd",
    "9".repeat(500),
    "-1",
    "",
  ];
  const places = [
    (text: string) => `/api/v1/tags/${text}`,
    (text: string) => `/api/v1/tags/line-3.drives.${text}`,
    (text: string) => `/api/v1/tags/${text}/readings`,
    ...["from", "to", "limit", "cursor"].map(
      (name) => (text: string) => `/api/v1/tags/${temperature}/readings?${name}=${text}`,
    ),
    ...["edge", "device", "equipment", "limit", "cursor"].map(
      (name) => (text: string) => `/api/v1/tags?${name}=${text}`,
    ),
    ...["edge", "device", "tag", "reason", "from", "to", "limit", "cursor"].map(
      (name) => (text: string) => `/api/v1/gaps?${name}=${text}`,
    ),
    (text: string) => `/api/v1/edges?${text}`,
    (text: string) => `/${text}`,
  ];

  test.each(places)("%s", async (place) => {
    for (const text of hostile) {
      const url = place(encodeURIComponent(text));
      const { statusCode } = await api.app.inject({ url });
      expect([200, 400, 404], `${url} answers ${statusCode}`).toContain(statusCode);
    }
  });

  test("and the readings are still there", async () => {
    const { body } = await get(`/api/v1/tags/line-3.drives.burst/readings?${whole}`);
    expect(body.items).toHaveLength(burst);
  });

  test.each([
    ["a path that is no valid UTF-8", "/api/v1/tags/%E0%A4%A", "", 400, "invalid_request", /percent-encoded/],
    ["a path that is not percent-encoded", "/api/v1/tags/50%", "", 400, "invalid_request", /write "%25"/],
    ["a name that is too long", `/api/v1/tags/${"9".repeat(1001)}`, "", 414, "path_too_long", /No name/],
    ["a body that is too large", "/api/v1/tags", " ".repeat(65_537), 413, "body_too_large", /no body/],
    ["a body that is no JSON", "/api/v1/tags", "{", 400, "invalid_request", /JSON/],
  ])("%s is a problem of ours too", async (_case, url, payload, status, kind, detail) => {
    const headers = { "content-type": "application/json" };
    const response = await api.app.inject(payload === "" ? { url } : { method: "POST", url, headers, payload });
    expect(response.statusCode).toBe(status);
    expect(response.headers["content-type"]).toMatch(/^application\/problem\+json/);
    expect(response.headers["x-request-id"]).toBeTruthy();
    const problem = { type: `urn:millrace:problem:${kind}`, status, instance: url };
    expect(response.json()).toMatchObject({ ...problem, detail: expect.stringMatching(detail) });
  });
});
