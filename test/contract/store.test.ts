import { afterAll, describe } from "vitest";
import { storeContract } from "./store.ts";
import { createServerDatabase, EmbeddedDatabases, serverUrl } from "./store-databases.ts";

const embedded = new EmbeddedDatabases();
storeContract("pglite", embedded.create);
afterAll(() => embedded.dispose());

if (serverUrl === undefined) {
  describe.skip("NOT TESTED: the store on PostgreSQL and TimescaleDB. Set MILLRACE_TEST_POSTGRES_URL to a superuser's URL", () => {});
} else {
  storeContract("postgresql", createServerDatabase, "plain");
  storeContract("timescaledb", createServerDatabase);
}
