/** What pages of other sites can do through a visitor's browser: nothing, unless the configuration names them. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { startTestApi, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";
import { request } from "../../support/request.ts";

const KEY = "a-key-0123456789";
const FRIEND = "https://app.example.org";
const JSON_TYPE = { "Content-Type": "application/json" };

describe.skipIf(whyNoRedis)("an api without keys", () => {
  let redis: RedisServer;
  let api: TestApi;
  let publicApi: TestApi;
  let readOnly: TestApi;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url);
    publicApi = await startTestApi(redis.url, {
      public_url: "https://infermill.example.org",
      allowed_hosts: ["gpu.example.net", "*.lab.example.net"],
      cors_origins: [FRIEND],
    });
    readOnly = await startTestApi(redis.url, { console: { read_only: true } });
  });
  afterAll(async () => {
    await Promise.all([api, publicApi, readOnly].map((each) => each?.close()));
    await redis?.close();
  });

  const callAs = (host: string, to = api, path = "/v1/models") =>
    request("GET", to.url + path, { Host: host });
  const submit = (headers: Record<string, string>, to = api) =>
    request("POST", to.predictions(), { ...JSON_TYPE, ...headers }, "{}");

  test.each([
    "127.0.0.1:8448",
    "localhost",
    "LOCALHOST:1",
    "[::1]:8448",
    "10.1.2.3",
    "models.localhost:8448",
    "gpu1:8448",
    "infermill.default.svc.cluster.local",
  ])("may be called as %s", async (host) => {
    expect((await callAs(host)).status).toBe(200);
  });

  test.each([
    "evil.example",
    "evil.example:8448",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a.b:c",
  ])("may not be called as %s, whatever a proxy seems to say", async (host) => {
    const { status, body } = await callAs(host);
    expect([status, body.code]).toEqual([403, "host_not_allowed"]);
    expect(body.detail).toContain("allowed_hosts");
    const forged = { Host: host, "X-Forwarded-Host": "localhost" };
    expect((await request("POST", api.predictions(), { ...forged, ...JSON_TYPE }, "{}")).status).toBe(403);
    expect((await callAs(host, api, "/dashboard/api/queues")).status).toBe(403);
    expect((await callAs(host, api, "/health/live")).status).toBe(200);
  });

  test("may be called as public_url and allowed_hosts say, and not otherwise", async () => {
    for (const host of ["infermill.example.org", "gpu.example.net:80", "a.lab.example.net", "localhost"])
      expect([host, (await callAs(host, publicApi)).status]).toEqual([host, 200]);
    for (const host of ["lab.example.net", "b.gpu.example.net", "example.org"])
      expect([host, (await callAs(host, publicApi)).status]).toEqual([host, 403]);
  });

  test.each([
    ["no browser", {}],
    ["its own page", { "Sec-Fetch-Site": "same-origin", Origin: "http://127.0.0.1" }],
    ["the user's own doing", { "Sec-Fetch-Site": "none" }],
  ])("takes a prediction of %s", async (_whose, headers) => {
    expect((await submit(headers)).status).toBe(202);
  });

  test.each([
    ["another site", { "Sec-Fetch-Site": "cross-site", Origin: "https://evil.example" }],
    ["another port of this host", { "Sec-Fetch-Site": "same-site", Origin: "http://127.0.0.1:1" }],
    ["another site, in an old browser", { Origin: "https://evil.example" }],
    ["a frame without an origin", { Origin: "null" }],
  ])("refuses a prediction of a page of %s, in every form", async (_whose, headers) => {
    const forms = {
      "application/json": "{}",
      "multipart/form-data; boundary=x": "--x--\r\n",
      "text/plain": "{}",
      "image/jpeg": "x",
    };
    for (const [type, body] of Object.entries(forms)) {
      const answer = await request("POST", api.predictions(), { ...headers, "Content-Type": type }, body);
      expect([type, answer.status, answer.body.code]).toEqual([type, 403, "foreign_page"]);
    }
    for (const path of [
      "/Echo",
      "/v1/bulk",
      "/v2/models/Echo/infer",
      "/v1/models/Echo/load",
      "/v1/embeddings",
    ])
      expect([path, (await request("POST", api.url + path, headers, "{}")).status]).toEqual([path, 403]);
    expect((await request("DELETE", `${api.predictions()}/pred_1`, headers)).status).toBe(403);
    expect((await request("GET", `${api.url}/v1/models`, headers)).status).toBe(200);
  });

  test("takes its own page by its Origin, also where a proxy ends TLS and renames it", async () => {
    const { host } = new URL(api.url);
    expect((await submit({ Origin: `http://${host}` })).status).toBe(202);
    expect((await submit({ Origin: `https://${host}` })).status).toBe(202);
    expect((await submit({ Origin: "https://infermill.example.org" }, publicApi)).status).toBe(202);
    const forwarded = { Origin: "https://outside.example.org", "X-Forwarded-Host": "outside.example.org" };
    expect((await submit(forwarded)).status).toBe(202);
  });

  test("takes a request dictionary only as what it says it is", async () => {
    for (const path of ["/Echo", "/v1/bulk", "/v1/embeddings"]) {
      const answer = await request("POST", api.url + path, {}, "{}");
      expect([path, answer.status]).toEqual([path, 415]);
    }
  });

  test("shares with no other origin", async () => {
    const { headers } = await request("GET", `${api.url}/v1/models`, { Origin: FRIEND });
    expect(headers["access-control-allow-origin"]).toBeUndefined();
    const preflight = { Origin: FRIEND, "Access-Control-Request-Method": "POST" };
    const answer = await request("OPTIONS", api.predictions(), preflight);
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
    expect(answer.headers["allow"]).toBe("POST, GET, HEAD, OPTIONS");
  });

  test("shares with cors_origins: preflight, answer and error", async () => {
    const preflight = await request("OPTIONS", publicApi.predictions(), {
      Origin: FRIEND,
      "Access-Control-Request-Method": "POST",
      "Access-Control-Request-Headers": "content-type,prefer",
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers).toMatchObject({
      "access-control-allow-origin": FRIEND,
      "access-control-allow-methods": expect.stringContaining("DELETE"),
      "access-control-allow-headers": expect.stringContaining("Idempotency-Key"),
    });
    const friend = { Origin: FRIEND, "Sec-Fetch-Site": "cross-site" };
    const accepted = await submit(friend, publicApi);
    expect(accepted.status).toBe(202);
    expect(accepted.headers).toMatchObject({
      "access-control-allow-origin": FRIEND,
      "access-control-expose-headers": expect.stringContaining("Location"),
      vary: expect.stringContaining("Origin"),
    });
    const missing = await request("GET", `${publicApi.url}/v1/models/None`, friend);
    expect([missing.status, missing.headers["access-control-allow-origin"]]).toEqual([404, FRIEND]);
    const other = { Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site" };
    expect((await submit(other, publicApi)).status).toBe(403);
  });

  test("in read-only mode its pages may look and clients do as before", async () => {
    const page = { "Sec-Fetch-Site": "same-origin" };
    const refused = await submit(page, readOnly);
    expect([refused.status, refused.body.code]).toEqual([403, "read_only"]);
    expect((await request("GET", `${readOnly.url}/v1/models`, page)).status).toBe(200);
    expect((await request("GET", `${readOnly.url}/v1/session`, page)).body.read_only).toBe(true);
    expect((await submit({}, readOnly)).status).toBe(202);
  });

  test("with keys may be called by every name, since a foreign page has none", async () => {
    const withKeys = await startTestApi(redis.url, { api_keys: [KEY] });
    expect((await callAs("evil.example", withKeys)).status).toBe(401);
    const headers = { Host: "models.example.org", Authorization: `Bearer ${KEY}` };
    expect((await request("GET", `${withKeys.url}/v1/models`, headers)).status).toBe(200);
    // In a header only: an address with a key in it ends up in logs and histories.
    for (const query of [`?api_key=${KEY}`, `?key=${KEY}`, `?access_token=${KEY}`])
      expect((await request("GET", `${withKeys.url}/v1/models${query}`)).status).toBe(401);
    // A browser adds a password by itself, also to what another site's page sends.
    const password = `Basic ${Buffer.from(`me:${KEY}`).toString("base64")}`;
    const foreign = { Authorization: password, "Sec-Fetch-Site": "cross-site" };
    expect((await submit(foreign, withKeys)).status).toBe(403);
    await withKeys.close();
  });

  test("says nowhere what it is made with", async () => {
    for (const path of ["/", "/docs", "/dashboard", "/dashboard/api/queues"]) {
      const { headers } = await request("GET", api.url + path);
      expect([path, headers["x-powered-by"]]).toEqual([path, undefined]);
    }
  });
});
