import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { Faults } from "./faults.ts";
import { FaultError } from "./plant/fault.ts";

export interface ControlOptions {
  /** On the loopback address only; 0: any free port. */
  readonly port: number;
  readonly faults: Faults;
  /** What `GET /state` answers. */
  state(): object;
}

type Answer = { status: number; body?: object };
const longestBody = 4096; // bytes

/**
 * The plant's control desk over HTTP: `GET /state`, `GET /faults`, `POST /faults` with `{"fault": "kind:target"}`,
 * `DELETE /faults/kind:target`. Faults answer once they have taken effect.
 */
export async function startControl(options: ControlOptions): Promise<{ port: number; stop(): Promise<void> }> {
  const server: Server = createServer(async (request, response) => {
    const { status, body } = await answer(request, options).catch(failure);
    response.writeHead(status, { "content-type": "application/json" });
    response.end(body && `${JSON.stringify(body)}\n`);
  });
  server.listen(options.port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    port: address && typeof address === "object" ? address.port : options.port,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

async function answer(request: IncomingMessage, { faults, state }: ControlOptions): Promise<Answer> {
  const path = new URL(request.url ?? "/", "http://localhost").pathname;
  const route = `${request.method} ${path}`;
  if (route === "GET /state") return { status: 200, body: state() };
  if (route === "GET /faults") return { status: 200, body: { active: faults.active, known: faults.known } };
  if (route === "POST /faults") {
    await faults.set(await faultOf(request));
    return { status: 201, body: { active: faults.active } };
  }
  if (request.method === "DELETE" && path.startsWith("/faults/")) {
    const fault = decodeURIComponent(path.slice("/faults/".length));
    if (await faults.clear(fault)) return { status: 200, body: { active: faults.active } };
    return { status: 404, body: { error: `the fault "${fault}" is not set` } };
  }
  const routes = "GET /state, GET /faults, POST /faults, DELETE /faults/{fault}";
  return { status: 404, body: { error: `there is no ${route}; there are ${routes}` } };
}

async function faultOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > longestBody) throw new FaultError("the request is too long");
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new FaultError('send JSON such as {"fault": "stuck:reactor-1.temperature"}', { cause: error });
  }
  const fault = (body as { fault?: unknown } | null)?.fault;
  if (typeof fault !== "string") throw new FaultError('send JSON such as {"fault": "stuck:reactor-1.temperature"}');
  return fault;
}

function failure(error: unknown): Answer {
  const message = error instanceof Error ? error.message : String(error);
  return { status: error instanceof FaultError || error instanceof URIError ? 400 : 500, body: { error: message } };
}
