/** `/v1/session`: what a page may do here, signing in with a key for a cookie that scripts can't read, signing out. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { Api, Route } from "../../api/api.ts";
import { createKeyComparison, signedInBy } from "../../api/authorize.ts";
import { readJson } from "../../api/body/read.ts";
import { jsonAnswer, problemAnswers, problemSchema } from "../../api/operations.ts";
import { UnauthorizedError } from "../../api/problems.ts";
import { publicPathOf } from "../../api/publicPath.ts";
import { clearSessionCookie, createSessions, setSessionCookie } from "../../api/sessions.ts";
import { parseWith } from "../../core/faults.ts";
import { version } from "../../version.ts";

const MAX_BODY_BYTES = 16_384;

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

const signInSchema = z
  .strictObject({ api_key: z.string({ error: "must be one of the api_keys" }) })
  .meta({ id: "SignIn" });

function getSession({ config }: Api, _req: Request, res: Response): void {
  const signedIn = signedInBy(res) !== "none";
  const session: z.output<typeof sessionSchema> = {
    authentication: config.api_keys.length > 0 ? "api_key" : "none",
    signed_in: signedIn,
    read_only: config.console.read_only,
    version,
    public_path: publicPathOf(res),
    bulk_roots: signedIn ? Object.keys(config.bulk_roots) : [],
  };
  res.set("Cache-Control", "no-store").json(session);
}

async function signIn({ config }: Api, req: Request, res: Response): Promise<void> {
  const { api_key: key } = parseWith(signInSchema, await readJson(req, MAX_BODY_BYTES));
  if (config.api_keys.length > 0) {
    if (!createKeyComparison(config.api_keys)(key))
      throw new UnauthorizedError("the key is none of the api_keys");
    setSessionCookie(req, res, createSessions(config.api_keys).create(key), config.public_url);
  }
  res.set("Cache-Control", "no-store").status(204).end();
}

function signOut(_api: Api, _req: Request, res: Response): void {
  clearSessionCookie(res);
  res.set("Cache-Control", "no-store").status(204).end();
}

export const sessionRoutes: readonly Route[] = [
  {
    method: "get",
    path: "/v1/session",
    handler: getSession,
    operation: {
      operationId: "getSession",
      summary: "What a page may do here",
      tags: ["operations"],
      responses: { 200: jsonAnswer("The session.", sessionSchema) },
    },
  },
  {
    method: "post",
    path: "/v1/session",
    handler: signIn,
    operation: {
      operationId: "signIn",
      summary: "Sign in with a key",
      description:
        "For pages: the answer sets a cookie that scripts can't read, and that stands for the key for 24 hours in calls of the api's own pages. Other clients send the key as a bearer token.",
      tags: ["operations"],
      requestBody: { required: true, content: { "application/json": { schema: signInSchema } } },
      responses: {
        204: { description: "Signed in." },
        ...problemAnswers([400]),
        401: {
          description: "The key is none of the api_keys.",
          content: { "application/problem+json": { schema: problemSchema } },
        },
        ...problemAnswers([413, 415, 422]),
      },
    },
  },
  {
    method: "delete",
    path: "/v1/session",
    handler: signOut,
    operation: {
      operationId: "signOut",
      summary: "Sign out",
      tags: ["operations"],
      responses: { 204: { description: "The cookie is taken back." } },
    },
  },
];
