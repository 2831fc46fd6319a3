import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { schemaFiles } from "./json-schema.ts";

// Writes the JSON Schemas for editors: `npm run generate`, to be run after every change of a configuration schema.
for (const [path, text] of Object.entries(schemaFiles())) {
  const file = join(import.meta.dirname, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
