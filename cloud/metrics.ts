import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { IncomingFrame, WriteOutcome } from "./store/store.ts";

const outcomes = ["stored", "duplicate", "unknown_map", "refused", "deferred"] as const;

/** What ingest counts. */
export class IngestMetrics {
  readonly #registry: Registry;
  readonly #frames: Counter<"outcome">;
  readonly #readings: Counter;
  readonly #commit: Histogram;

  constructor(registry: Registry) {
    this.#registry = registry;
    const registers = [registry];
    this.#frames = new Counter({
      name: "millrace_ingest_frames_total",
      help: "Messages of edges by outcome: stored, duplicate (in the ledger already), unknown_map (asked for again), refused (kept aside), deferred (left to the edge to send again)",
      labelNames: ["outcome"],
      registers,
    });
    for (const outcome of outcomes) this.#frames.inc({ outcome }, 0); // a rate needs a beginning
    this.#readings = new Counter({ name: "millrace_ingest_readings_total", help: "Readings committed", registers });
    this.#commit = new Histogram({
      name: "millrace_ingest_commit_duration_seconds",
      help: "Time from a group of frames to its COMMIT, in seconds",
      buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers,
    });
  }

  /** @param bytes tells how many bytes of memory the frames take that wait to be committed */
  observePending(bytes: () => number): void {
    new Gauge({
      name: "millrace_ingest_pending_bytes",
      help: "Memory of frames that wait to be committed, in bytes",
      registers: [this.#registry],
      collect() {
        this.set(bytes());
      },
    });
  }

  committed(frames: readonly IncomingFrame[], outcomes: readonly WriteOutcome[], seconds: number): void {
    this.#commit.observe(seconds);
    for (const [index, outcome] of outcomes.entries()) {
      this.#frames.inc({ outcome });
      if (outcome === "stored") this.#readings.inc(frames[index]!.content.readings.count);
    }
  }

  refused(): void {
    this.#frames.inc({ outcome: "refused" });
  }

  deferred(): void {
    this.#frames.inc({ outcome: "deferred" });
  }
}
