/** Signing in from a page: a cookie that stands for a key, for the api's own pages only. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { startTestApi, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";
import { request } from "../../support/request.ts";

const [OLD, NEW] = ["the-old-key-0123456789", "the-new-key-0123456789"];
const JSON_TYPE = { "Content-Type": "application/json" };
const PAGE = { "Sec-Fetch-Site": "same-origin" };

describe.skipIf(whyNoRedis)("a session", () => {
  let redis: RedisServer;
  let api: TestApi;
  /** Another of the same service, whose configuration has lost the old key. */
  let newer: TestApi;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { api_keys: [OLD, NEW], bulk_roots: { photos: "/photos" } });
    newer = await startTestApi(redis.url, { api_keys: [NEW] });
  });
  afterAll(async () => {
    await Promise.all([api?.close(), newer?.close()]);
    await redis?.close();
  });

  const sign = (api_key: unknown, headers: Record<string, string> = PAGE) =>
    request("POST", `${api.url}/v1/session`, { ...JSON_TYPE, ...headers }, JSON.stringify({ api_key }));
  const cookieOf = async (key: string) => {
    const { headers } = await sign(key);
    return headers["set-cookie"]![0]!.split(";")[0]!;
  };

  test("is asked for without a key, and tells what needs none", async () => {
    const { status, body } = await request("GET", `${api.url}/v1/session`);
    expect(status).toBe(200);
    expect(body).toEqual({
      authentication: "api_key",
      signed_in: false,
      read_only: false,
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      public_path: "",
      bulk_roots: [],
    });
    const withKey = await request("GET", `${api.url}/v1/session`, { Authorization: `Bearer ${NEW}` });
    expect(withKey.body).toMatchObject({ signed_in: true, bulk_roots: ["photos"] });
    const wrong = await request("GET", `${api.url}/v1/session`, { Authorization: "Bearer nothing" });
    expect([wrong.status, wrong.body.signed_in]).toEqual([200, false]);
  });

  test("begins with a key, by a cookie that no script reads and no other site's call carries", async () => {
    const { status, headers, text } = await sign(OLD);
    expect([status, text]).toEqual([204, ""]);
    expect(headers["set-cookie"]).toHaveLength(1);
    const cookie = headers["set-cookie"]![0]!;
    expect(cookie).toMatch(/; Path=\/; .*HttpOnly; SameSite=Strict$/);
    expect(cookie).not.toContain("Secure");
    expect(cookie).not.toContain(OLD);
    const overTls = await sign(OLD, { ...PAGE, "X-Forwarded-Proto": "https" });
    expect(overTls.headers["set-cookie"]![0]).toContain("Secure");
  });

  test("opens all that a key does, to the api's own pages", async () => {
    const Cookie = await cookieOf(OLD);
    for (const path of ["/v1/models", "/docs", "/dashboard", "/metrics"])
      expect([path, (await request("GET", api.url + path, { Cookie })).status]).toEqual([path, 200]);
    expect((await request("GET", `${api.url}/v1/session`, { Cookie })).body.signed_in).toBe(true);
    const submit = (headers: Record<string, string>) =>
      request("POST", api.predictions(), { ...JSON_TYPE, Cookie, ...headers }, "{}");
    expect((await submit(PAGE)).status).toBe(202);
    expect((await submit({ Origin: api.url })).status).toBe(202);
    const others: Record<string, string>[] = [
      {},
      { "Sec-Fetch-Site": "same-site", Origin: "http://127.0.0.1:1" },
      { "Sec-Fetch-Site": "cross-site" },
      { Origin: "https://evil.example" },
    ];
    for (const headers of others) {
      const { status, body } = await submit(headers);
      expect([headers, status, body.code]).toEqual([headers, 403, "foreign_page"]);
    }
  });

  test("is known to every api that has its key, and ends with it", async () => {
    const ask = async (to: TestApi, Cookie: string) =>
      (await request("GET", `${to.url}/v1/models`, { Cookie })).status;
    const [byOld, byNew] = [await cookieOf(OLD), await cookieOf(NEW)];
    expect([await ask(api, byOld), await ask(newer, byOld)]).toEqual([200, 401]);
    expect([await ask(api, byNew), await ask(newer, byNew)]).toEqual([200, 200]);
  });

  test("can't be made up, changed or prolonged", async () => {
    const cookie = await cookieOf(OLD);
    const [name, value] = cookie.split("=") as [string, string];
    const [until, nonce, signature] = value.split(".") as [string, string, string];
    const later = (Number.parseInt(until, 36) + 1).toString(36);
    for (const forged of [
      "",
      "x",
      `${later}.${nonce}.${signature}`,
      `${until}.${nonce}.${"A".repeat(43)}`,
      `${until}.${"A".repeat(22)}.${signature}`,
      OLD,
    ]) {
      const answer = await request("GET", `${api.url}/v1/models`, { Cookie: `${name}=${forged}` });
      expect([forged, answer.status]).toEqual([forged, 401]);
    }
    const among = await request("GET", `${api.url}/v1/models`, { Cookie: `a=b; ${cookie}; c=d` });
    expect(among.status).toBe(200);
  });

  test("begins with nothing else than a key, sent by the api's own page as JSON", async () => {
    expect((await sign("the-wrong-key-0123456")).status).toBe(401);
    expect((await sign(7)).status).toBe(422);
    expect((await sign(OLD, { "Sec-Fetch-Site": "cross-site" })).status).toBe(403);
    expect((await sign(OLD, { "Content-Type": "text/plain" })).status).toBe(415);
    expect((await sign("x".repeat(20_000))).status).toBe(413);
  });

  test("ends where the page signs out", async () => {
    const { status, headers } = await request("DELETE", `${api.url}/v1/session`, PAGE);
    expect(status).toBe(204);
    expect(headers["set-cookie"]![0]).toMatch(/^infermill_session=; Path=\/; Expires=Thu, 01 Jan 1970/);
  });

  test("has no browser ask for a password beside the page's own form", async () => {
    const challenges = async (headers: Record<string, string>) =>
      (await request("GET", `${api.url}/v1/models`, headers)).headers["www-authenticate"];
    expect(await challenges({})).toContain("Basic");
    expect(await challenges({ "Sec-Fetch-Dest": "document" })).toContain("Basic");
    expect(await challenges({ "Sec-Fetch-Dest": "empty" })).toBe('Bearer realm="infermill"');
    expect(await challenges({ "X-Requested-With": "infermill-console" })).toBe('Bearer realm="infermill"');
  });

  test("is open where there are no keys", async () => {
    const open = await startTestApi(redis.url);
    expect((await request("GET", `${open.url}/v1/session`)).body).toMatchObject({
      authentication: "none",
      signed_in: true,
    });
    const signedIn = await request("POST", `${open.url}/v1/session`, JSON_TYPE, '{"api_key":"any"}');
    expect([signedIn.status, signedIn.headers["set-cookie"]]).toEqual([204, undefined]);
    await open.close();
  });
});
