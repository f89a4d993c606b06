/** What callers must bring where the configuration names `api_keys`. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { runInfermill } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const [OLD, NEW] = ["the-old-key-0123456789", "the-new-key-0123456789"];

describe.skipIf(whyNoRedis)("an api with keys", () => {
  let redis: RedisServer;
  let api: TestApi;
  const photos = mkdtempSync(join(tmpdir(), "infermill-photos-"));
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { api_keys: [OLD, NEW], bulk_roots: { photos } });
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
    rmSync(photos, { recursive: true });
  });

  const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
  const get = async (path: string, authorization?: string) => {
    return fetch(api.url + path, { headers: { ...(authorization && { Authorization: authorization }) } });
  };

  test.each([
    ["POST", "/v1/models/Echo/predictions"],
    ["POST", "/Echo"],
    ["GET", "/v1/models"],
    ["GET", "/v1/bulk"],
    ["GET", "/metrics"],
    ["GET", "/openapi.json"],
    ["GET", "/docs"],
    ["GET", "/dashboard"],
    ["GET", "/nowhere"],
  ])("refuses %s %s without one", async (method, path) => {
    const answer = await fetch(api.url + path, { method });
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toMatch(/^Bearer .*Basic /);
    expect(await answer.json()).toMatchObject({ code: "unauthorized", status: 401 });
  });

  test.each([
    ["a wrong one", "Bearer the-old-key-0123456780"],
    ["the beginning of one", "Bearer the-old-key"],
    ["an empty one", "Bearer "],
    ["one as the user name", basic(`${OLD}:`)],
    ["one without its scheme", OLD],
  ])("refuses %s", async (_what, authorization) => {
    expect((await get("/v1/models", authorization)).status).toBe(401);
  });

  test.each([
    ["as a bearer token", `Bearer ${OLD}`],
    ["in any case of the scheme", `bearer ${NEW}`],
    ["as a browser's password", basic(`me:${NEW}`)],
  ])("takes each of them, %s", async (_how, authorization) => {
    expect((await get("/v1/models", authorization)).status).toBe(200);
    expect((await get("/dashboard", authorization)).status).toBe(200);
  });

  test("takes a prediction with one", async () => {
    const headers = { Authorization: `Bearer ${OLD}`, "Content-Type": "application/json" };
    expect((await send("POST", api.predictions(), "{}", headers)).status).toBe(202);
  });

  test("takes a bulk run of the command line with one, which tells how to cancel it with one", async () => {
    const args = [
      "bulk",
      "photos",
      "--model",
      "Echo",
      "--server",
      api.url,
      "--out",
      join(photos, "out.ndjson"),
    ];
    const without = runInfermill(args, { env: { PATH: process.env["PATH"] } });
    expect((await without.exited).code).toBe(2);
    expect(without.output()).toContain("set INFERMILL_API_KEY");

    const env = { PATH: process.env["PATH"], INFERMILL_API_KEY: NEW };
    const command = runInfermill(args, { env });
    await command.printed(/bulk_\w+: Echo over photos/);
    command.child.kill("SIGINT");
    await command.exited;
    const [, cancel] = /to cancel it: (curl .*)/.exec(command.output())!;
    const { stdout } = await promisify(execFile)("sh", ["-c", `${cancel} --silent`], { env });
    expect(JSON.parse(stdout)).toMatchObject({ status: "cancelled" });
  });

  test("answers health probes without one", async () => {
    expect((await get("/health/live")).status).toBe(200);
    expect((await get("/health/ready")).status).toBe(503);
  });

  test("says so in its OpenAPI document", async () => {
    const document = (await (await get("/openapi.json", `Bearer ${OLD}`)).json()) as Json;
    expect(document).toMatchObject({
      security: [{ apiKey: [] }],
      components: { securitySchemes: { apiKey: { type: "http", scheme: "bearer" } } },
    });
    expect(document.paths["/v1/models"].get.responses).toHaveProperty("401");
    expect(document.paths["/health/live"].get.security).toEqual([]);
  });
});
