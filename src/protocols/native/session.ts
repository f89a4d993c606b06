/** `/v1/session`: what a page may do here, signing in with a key for a cookie that scripts can't read, signing out. */
import { z } from "zod";

export const sessionSchema = z
  .object({
    authentication: z
      .enum(["none", "api_key"])
      .meta({ description: "api_key where the configuration has api_keys." }),
    signed_in: z.boolean().meta({ description: "Whether this call may do what needs a key." }),
    read_only: z.boolean().meta({ description: "Whether pages may change nothing (console.read_only)." }),
    version: z.string(),
    public_path: z
      .string()
      .meta({ description: "Path under which the api is reached, such as /infermill; empty for none." }),
    bulk_roots: z.array(z.string()).meta({ description: "Names of the bulk_roots; none until signed in." }),
  })
  .meta({ id: "Session" });
