/** Writes the JSON Schema of the configuration, which editors complete from: `npm run schema`. */
import { writeFileSync } from "node:fs";
import { configJsonSchema } from "../src/config/jsonSchema.ts";

writeFileSync(
  new URL("../config/infermill.schema.json", import.meta.url),
  `${JSON.stringify(configJsonSchema(), null, 2)}\n`,
);
