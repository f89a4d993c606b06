/** Every route of an api whose configuration names no endpoints of its own. */
import { tableOfRoutes } from "../../src/api/app.ts";
import { configSchema } from "../../src/config/schema.ts";
import { protocols } from "../../src/protocols/protocols.ts";

const config = configSchema.parse({ models: { Echo: { loader: "EchoModelLoader" } } });

export const routes = tableOfRoutes({ ...config, file: "infermill.json" }, protocols);
