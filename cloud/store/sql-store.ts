import type { Logger } from "pino";
import { ConfigError, LinkError, messageOf } from "../../protocols/errors.ts";
import type { DeviceMap } from "../../protocols/uplink/frame.ts";
import type { Database } from "./database.ts";
import { DeviceMaps } from "./device-maps.ts";
import { applyFeatures, type FeatureChoice } from "./features.ts";
import { migrate, oneAtATime } from "./migrate.ts";
import * as queries from "./queries.ts";
import { keepRefused, refusedMessages } from "./refused.ts";
import { applyRetention } from "./retention.ts";
import { needsPerson } from "./sql-error.ts";
import type {
  GapFilter,
  IncomingFrame,
  ReadingRange,
  RefusedMessage,
  RetentionLimits,
  Store,
  StoreFeatures,
  TagFilter,
} from "./store.ts";
import { FrameWriter } from "./write.ts";

/** The store on any database that speaks PostgreSQL's SQL. */
export class SqlStore implements Store {
  readonly #database: Database;
  readonly #choice: FeatureChoice;
  readonly #log: Logger;
  readonly #maps: DeviceMaps;
  readonly #writer: FrameWriter;
  #features: StoreFeatures | undefined;

  constructor(database: Database, choice: FeatureChoice, log: Logger) {
    this.#database = database;
    this.#choice = choice;
    this.#log = log;
    this.#maps = new DeviceMaps(database);
    this.#writer = new FrameWriter(database, this.#maps);
  }

  get features(): StoreFeatures {
    if (this.#features === undefined) throw new Error("The features are known after migrate()");
    return this.#features;
  }

  async migrate(): Promise<void> {
    try {
      await oneAtATime(this.#database, async () => {
        await migrate(this.#database);
        this.#features = await applyFeatures(this.#database, this.#choice, this.#log);
      });
    } catch (error) {
      if (!needsPerson(error)) throw error;
      throw new ConfigError(`The database refuses: ${messageOf(error)}. Check its user, password, name and rights.`, {
        cause: error,
      });
    }
  }

  saveDeviceMap(hash: string, map: DeviceMap, raw: Uint8Array) {
    return this.#maps.save(hash, map, raw);
  }

  async write(frames: readonly IncomingFrame[]) {
    try {
      return await this.#writer.write(frames);
    } catch (error) {
      // The database that comes back may be one restored from a backup, with other numbers.
      if (error instanceof LinkError) this.#maps.forget();
      throw error;
    }
  }

  keepRefused(messages: readonly RefusedMessage[]) {
    return keepRefused(this.#database, messages);
  }

  refusedMessages(limit: number) {
    return refusedMessages(this.#database, limit);
  }

  edges() {
    return queries.edges(this.#database);
  }

  tags(filter: TagFilter) {
    return queries.tags(this.#database, filter);
  }

  tag(name: string) {
    return queries.tag(this.#database, name);
  }

  readings(tag: string, range: ReadingRange) {
    return queries.readings(this.#database, tag, range);
  }

  gaps(filter: GapFilter) {
    return queries.gaps(this.#database, filter);
  }

  applyRetention(limits: RetentionLimits) {
    return applyRetention(this.#database, this.features, limits);
  }

  async ping() {
    await this.#database.query("SELECT 1");
  }

  close() {
    return this.#database.close();
  }
}
