/** The OpenAPI 3.1 document, made from the table of routes and the schemas that check requests. */
import { createDocument, type ZodOpenApiPathsObject } from "zod-openapi";
import { version } from "../version.ts";
import type { Route } from "./api.ts";

export function createOpenApi(routes: readonly Route[]): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const { method, path, operation } of routes) paths[path] = { ...paths[path], [method]: operation };
  return createDocument({
    openapi: "3.1.1",
    info: {
      title: "infermill",
      version,
      description:
        "Batch inference through a job queue. Errors are application/problem+json with a stable code.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    tags: [{ name: "predictions" }, { name: "webhooks" }, { name: "models" }, { name: "operations" }],
    paths,
  });
}
