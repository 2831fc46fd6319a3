import type { Problem } from "../../api/problem.ts";

/** A question that got no usable answer; the message is for the person before the screen. */
export class NoAnswer extends Error {
  override name = "NoAnswer";
}

const timeoutMs = 5000;

/** Asks the service, and keeps its clock: ages must not depend on the clock of the computer that shows them. */
export class Service {
  #aheadMs = 0;
  #answeredAt: number | null = null;

  /** When the service last gave a usable answer, by `performance.now()`; null before the first. */
  get answeredAt(): number | null {
    return this.#answeredAt;
  }

  /** The service's time, in milliseconds since 1970; true to about a second. */
  nowMs(): number {
    return Date.now() + this.#aheadMs;
  }

  /** @throws NoAnswer */
  async ask<T>(path: string): Promise<T> {
    let response: Response;
    try {
      response = await fetch(path, { signal: AbortSignal.timeout(timeoutMs), headers: { accept: "application/json" } });
    } catch (error) {
      throw new NoAnswer("The service does not answer.", { cause: error });
    }
    this.#keepClock(response);
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok) throw new NoAnswer((body as Problem | null)?.detail ?? `The service answers ${response.status}.`);
    if (body === null) throw new NoAnswer("The service's answer broke off.");
    this.#answeredAt = performance.now();
    return body as T;
  }

  /** Asks for all pages of a list. Stops early after `most` items. @throws NoAnswer */
  async askAll<T>(path: string, most = Number.POSITIVE_INFINITY): Promise<T[]> {
    const items: T[] = [];
    let cursor: string | null = null;
    do {
      const query: string = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
      const page: { items: T[]; next: string | null } = await this.ask(path + query);
      items.push(...page.items);
      cursor = page.next;
    } while (cursor !== null && items.length < most);
    return items;
  }

  #keepClock(response: Response): void {
    const serverMs = Date.parse(response.headers.get("date") ?? "");
    // The header is cut to whole seconds: half a second more is right on average.
    if (!Number.isNaN(serverMs)) this.#aheadMs = serverMs + 500 - Date.now();
  }
}
