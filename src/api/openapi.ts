/** The OpenAPI 3.1 document, made from the table of routes and the schemas that check requests. */
import { createDocument, type ZodOpenApiPathsObject } from "zod-openapi";
import type { Config } from "../config/schema.ts";
import { version } from "../version.ts";
import type { Route } from "./api.ts";
import { OPEN_PATHS } from "./authorize.ts";
import { problemSchema } from "./operations.ts";

const UNAUTHORIZED = {
  description: "The key is missing or none of the api_keys.",
  content: { "application/problem+json": { schema: problemSchema } },
};

export function createOpenApi(routes: readonly Route[], { api_keys, models }: Config): object {
  const needsKey = api_keys.length > 0;
  const paths: ZodOpenApiPathsObject = {};
  for (const { method, path, operation } of routes) {
    const isOpen = !needsKey || OPEN_PATHS.has(path);
    const described = isOpen
      ? { ...operation, security: [] }
      : { ...operation, responses: { 401: UNAUTHORIZED, ...operation.responses } };
    paths[path] = { ...paths[path], [method]: described };
  }
  const document = createDocument({
    openapi: "3.1.1",
    info: {
      title: "infermill",
      version,
      description:
        "Batch inference through a job queue. Errors are application/problem+json with a stable code.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    tags: [
      { name: "predictions" },
      { name: "webhooks" },
      { name: "models" },
      { name: "open inference protocol" },
      { name: "operations" },
    ],
    paths,
    ...(needsKey && {
      components: { securitySchemes: { apiKey: { type: "http" as const, scheme: "bearer" } } },
      security: [{ apiKey: [] }],
    }),
  });
  nameModel(document, Object.keys(models)[0]!);
  return document;
}

/** The page of the document fills in the examples, so that its calls work with the models that are served. */
function nameModel({ paths }: ReturnType<typeof createDocument>, model: string): void {
  for (const { parameters } of Object.values(paths ?? {}).flatMap((path) => Object.values(path ?? {}))) {
    for (const { name, schema } of (parameters ?? []) as { name?: string; schema?: { example?: string } }[])
      if (/^model$/i.test(name ?? "") && schema) schema.example = model;
  }
}
