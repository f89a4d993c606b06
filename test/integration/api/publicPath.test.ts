/** An api that is served below a path of another site, by a proxy: every link and every page works there. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import express from "express";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { serveConsole } from "../../../src/api/console.ts";
import { findPublicPath } from "../../../src/api/publicPath.ts";
import { openBulkRuns } from "../../../src/bulk/runs.ts";
import { configSchema } from "../../../src/config/schema.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { openBrowser, whyNoBrowser } from "../../support/browser.ts";
import { startProxy, type TestProxy } from "../../support/proxy.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";
import { request } from "../../support/request.ts";

const KEY = "a-key-0123456789";
const PATH = "/tools/infermill";

/** The ways in which proxies are set up. */
const WAYS = {
  "takes the path off and says so": {
    config: {},
    proxy: { strips: true, headers: { "X-Forwarded-Prefix": `${PATH}/` } },
  },
  "takes the path off, which public_url has": {
    config: { public_url: `https://example.org${PATH}/` },
    proxy: { strips: true },
  },
  "leaves the path, which public_url has": {
    config: { public_url: `https://example.org${PATH}` },
    proxy: { strips: false },
  },
};

describe.skipIf(whyNoRedis).each(Object.entries(WAYS))("below a path, where the proxy %s", (_way, setUp) => {
  let redis: RedisServer;
  let api: TestApi;
  let proxy: TestProxy;
  let consumer: ReturnType<typeof consume>;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, setUp.config);
    proxy = await startProxy(api.url, PATH, setUp.proxy);
    consumer = consume(redis.url, api.config, "Echo", async () => ({ links: { self: "/its own" } }));
  });
  afterAll(async () => {
    await consumer?.close();
    await proxy?.close();
    await api?.close();
    await redis?.close();
  });

  const origin = () => new URL(proxy.url).origin;
  const get = async (url: string): Promise<Json> => {
    const answer = await send("GET", url);
    expect([url, answer.status]).toEqual([url, 200]);
    return answer.body;
  };
  const startsBelow = (links: Record<string, string>) => {
    for (const [name, link] of Object.entries(links))
      expect([name, link]).toEqual([name, expect.stringMatching(/^\/tools\/infermill\//)]);
  };

  test("links lead to where they say", async () => {
    const { links } = await get(`${proxy.url}/`);
    startsBelow(links);
    for (const link of Object.values(links) as string[]) {
      const { status } = await fetch(origin() + link);
      expect([link, status]).toEqual([link, link.endsWith("/health/ready") ? 503 : 200]);
    }
    const submitted = await send(
      "POST",
      `${proxy.url}/v1/models/Echo/predictions`,
      {},
      { Prefer: "wait=20" },
    );
    expect(submitted.body.status).toBe("succeeded");
    // What the loader said stays what it said.
    expect(submitted.body.result.links).toEqual({ self: "/its own" });
    const ofImil = await send("POST", `${proxy.url}/Echo`, {});
    expect([ofImil.status, ofImil.body.links]).toEqual([200, { self: "/its own" }]);
    startsBelow(submitted.body.links);
    expect((await get(origin() + submitted.body.links.self)).id).toBe(submitted.body.id);
    expect(await get(origin() + submitted.body.links.deliveries)).toEqual({ deliveries: [] });
    const later = await send("POST", `${proxy.url}/v1/models/Echo/predictions`, {});
    expect(later.headers.get("location")).toBe(later.body.links.self);
    for (const list of ["predictions", "models", "models/Echo/predictions"]) {
      const [first] = Object.values(await get(`${proxy.url}/v1/${list}`)).find(Array.isArray) as Json[];
      startsBelow(first.links);
    }
    const events = await (await fetch(origin() + submitted.body.links.events)).text();
    expect(events).toContain(`"self":"${PATH}/v1/models/Echo/`);
    expect((await get(`${proxy.url}/v1/session`)).public_path).toBe(PATH);
  });

  test("without the proxy they are what they always were, unless public_url has a path", async () => {
    const { links } = await get(`${api.url}/v1/models/Echo`);
    const self = "/v1/models/Echo";
    expect(links.self).toBe("public_url" in setUp.config ? PATH + self : self);
  });

  test("the pages find their files, and the document its server", async () => {
    const html = await (await fetch(`${proxy.url}/docs`)).text();
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file!);
    expect(files).toHaveLength(4);
    for (const file of files) expect([file, (await fetch(origin() + file)).status]).toEqual([file, 200]);
    expect(await (await fetch(`${proxy.url}/docs/start.js`)).text()).toContain(`"${PATH}/openapi.json"`);
    expect((await get(`${proxy.url}/openapi.json`)).servers).toEqual([{ url: PATH }]);

    const dashboard = await (await fetch(`${proxy.url}/dashboard`)).text();
    expect(dashboard).toContain(`<base href="${PATH}/dashboard/" />`);
    expect(dashboard).toContain(`href="${PATH}/favicon.ico"`);
    expect(dashboard).toContain(`"url":"${PATH}/docs"`);
    const { queues } = await get(`${proxy.url}/dashboard/api/queues?activeQueue=Echo&status=completed`);
    expect(queues[0].jobs[0].externalUrl.href).toMatch(
      /^\/tools\/infermill\/v1\/models\/Echo\/predictions\//,
    );
  });

  test("lines of a bulk run's results lead to its outputs", async () => {
    const runs = await openBulkRuns(api.config, redis.url);
    const { body: run } = await send("POST", `${proxy.url}/v1/bulk?model=Echo`, '{"request":{"Fid":"1"}}\n', {
      "Content-Type": "application/x-ndjson",
    });
    startsBelow(run.links);
    const file = runs.resultsFile(await runs.readSpec(run.id));
    const line = `{"index":0,"status":"succeeded","line":1,"outputs":[{"url":"/v1/bulk/${run.id}/outputs/0/mask?type=image%2Fpng"}]}\n`;
    await writeFile(file, line);
    await runs.close();
    const text = await (await fetch(`${origin()}${run.links.results}?follow=false`)).text();
    expect(JSON.parse(text).outputs[0].url).toBe(`${PATH}/v1/bulk/${run.id}/outputs/0/mask?type=image%2Fpng`);
    await send("DELETE", origin() + run.links.self);
  });

  test.skipIf(whyNoBrowser)("a browser shows the console, its documents and the dashboard", async () => {
    const browser = await openBrowser(origin());
    const { page, complaints } = browser;
    try {
      await page.goto(`${proxy.url}/#/models`);
      await page.getByRole("heading", { name: "Echo" }).first().waitFor();
      await page.goto(`${proxy.url}/docs`);
      await page.getByText("List the models").first().waitFor();
      await page.goto(`${proxy.url}/dashboard`);
      await page.getByText("Echo").first().waitFor();
      expect(complaints).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});

describe.skipIf(whyNoRedis)("a path", () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startTestRedis();
  });
  afterAll(() => redis?.close());

  test("that no trusted proxy names, or that is none, is ignored", async () => {
    const api = await startTestApi(redis.url, { trusted_proxies: ["10.0.0.0/8"] });
    const trusting = await startTestApi(redis.url);
    const linkOf = async (to: TestApi, prefix: string) =>
      (await request("GET", `${to.url}/v1/models/Echo`, { "X-Forwarded-Prefix": prefix })).body.links.self;
    expect(await linkOf(api, "/evil")).toBe("/v1/models/Echo");
    expect(await linkOf(trusting, "/good, /outer")).toBe("/good/v1/models/Echo");
    for (const prefix of ["//evil.example", "https://evil.example", '/"><script>', "/a/../b?", "good", "/"])
      expect([prefix, await linkOf(trusting, prefix)]).toEqual([prefix, "/v1/models/Echo"]);
    await Promise.all([api.close(), trusting.close()]);
  });

  test("is where the cookie of a session goes", async () => {
    const api = await startTestApi(redis.url, {
      api_keys: [KEY],
      public_url: "https://example.org/infermill",
    });
    const headers = { "Content-Type": "application/json", "Sec-Fetch-Site": "same-origin" };
    const answer = await request(
      "POST",
      `${api.url}/infermill/v1/session`,
      { ...headers, Host: "example.org" },
      JSON.stringify({ api_key: KEY }),
    );
    expect(answer.status).toBe(204);
    expect(answer.headers["set-cookie"]![0]).toMatch(
      /; Path=\/infermill\/; .*HttpOnly; Secure; SameSite=Strict$/,
    );
    await api.close();
  });

  test("without its last slash leads to the one with it", async () => {
    const api = await startTestApi(redis.url, { public_url: "https://example.org/infermill" });
    const { status, headers } = await request("GET", `${api.url}/infermill`);
    expect([status, headers.location]).toEqual([308, "/infermill/"]);
    await api.close();
  });

  test.each(["https://example.org/v1", "https://example.org/Echo/x", "https://example.org/Docs"])(
    "such as that of %s would hide some of the api",
    (public_url) => {
      const checked = configSchema.safeParse({ public_url, models: { Echo: { loader: "EchoModelLoader" } } });
      expect(checked.error?.issues).toMatchObject([{ path: ["public_url"] }]);
    },
  );
});

describe("the console", () => {
  let folder: string;
  let proxy: TestProxy;
  let direct: string;
  let close: () => Promise<unknown>;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "infermill-console-"));
    await mkdir(join(folder, "assets"));
    await writeFile(
      join(folder, "index.html"),
      "<!doctype html><html><head><title>console</title></head></html>",
    );
    await writeFile(join(folder, "assets/index-abc123.js"), "export {};");
    await writeFile(join(folder, "logo.svg"), "<svg/>");
    const app = express();
    const config = configSchema.parse({ models: { Echo: { loader: "EchoModelLoader" } } });
    app.set("trust proxy", config.trusted_proxies);
    app.use(findPublicPath({ ...config, file: "" }));
    app.use(serveConsole(`${folder}/`));
    app.use((_req, res) => res.status(404).json({ from: "behind" }));
    const server = app.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    direct = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
    proxy = await startProxy(direct, PATH, { strips: true, headers: { "X-Forwarded-Prefix": PATH } });
    close = () => new Promise((resolve) => server.close(resolve));
  });
  afterAll(async () => {
    await proxy?.close();
    await close?.();
    await rm(folder, { recursive: true });
  });

  const HTML = { Accept: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" };

  test("is what browsers get at /, with the path that its files are below", async () => {
    const page = await request("GET", `${direct}/`, HTML);
    expect(page.status).toBe(200);
    expect(page.text).toContain('<head>\n    <base href="/">');
    expect(page.headers).toMatchObject({
      "cache-control": "no-cache",
      "content-type": "text/html; charset=utf-8",
    });
    const policy = String(page.headers["content-security-policy"]);
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self';");
    expect(policy).not.toContain("unsafe");
    const below = await request("GET", `${proxy.url}/`, HTML);
    expect(below.text).toContain(`<base href="${PATH}/">`);
  });

  test("leaves / to whoever asks for no HTML", async () => {
    for (const headers of [{}, { Accept: "*/*" }, { Accept: "application/json" }] as Record<string, string>[])
      expect([headers, (await request("GET", `${direct}/`, headers)).body]).toEqual([
        headers,
        { from: "behind" },
      ]);
  });

  test("has its files kept for good where their names change with them, and no others", async () => {
    const asset = await request("GET", `${proxy.url}/console/assets/index-abc123.js`);
    expect([asset.status, asset.headers["cache-control"]]).toEqual([
      200,
      "public, max-age=31536000, immutable",
    ]);
    expect(asset.headers["content-type"]).toContain("javascript");
    const logo = await request("GET", `${direct}/console/logo.svg`);
    expect([logo.status, logo.headers["cache-control"]]).toEqual([200, "no-cache"]);
    for (const path of [
      "/console/assets/none.js",
      "/console/../package.json",
      "/console/assets/%2e%2e/%2e%2e/x",
    ])
      expect([path, (await request("GET", direct + path)).status]).toEqual([path, 404]);
  });
});

describe.skipIf(whyNoRedis)("the sample photo", () => {
  test("is a picture that anyone may look at", async () => {
    const redis = await startTestRedis();
    const api = await startTestApi(redis.url, { api_keys: [KEY] });
    const answer = await fetch(`${api.url}/console/sample.jpg`);
    expect([answer.status, answer.headers.get("Content-Type")]).toEqual([200, "image/jpeg"]);
    expect(
      Buffer.from(await answer.arrayBuffer())
        .subarray(0, 3)
        .toString("hex"),
    ).toBe("ffd8ff");
    await api.close();
    await redis.close();
  });
});
