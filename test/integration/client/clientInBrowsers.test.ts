/** The JavaScript client, bundled for browsers as a page would have it, in a real one, from pages of two origins. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { UnrecoverableError } from "bullmq";
import { build, stop } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, startTestApi, type TestApi } from "../../support/api.ts";
import { openBrowser, whyNoBrowser, type TestBrowser } from "../../support/browser.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const KEY = "a-key-of-the-tests";
/** As it is shipped. */
const CLIENT = fileURLToPath(new URL("../../../dist/client/client.js", import.meta.url));

/** A page's own code, in the JavaScript of browsers. */
const PAGE = `
import { InfermillClient } from ${JSON.stringify(CLIENT)};
const refusal = (promise) => promise.catch(({ code }) => code);
window.page = {
  async drawAndPredict(url, apiKey) {
    const canvas = new OffscreenCanvas(8, 8);
    canvas.getContext("2d").fillRect(0, 0, 8, 8);
    const picture = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
    return new InfermillClient(url, { apiKey }).predict("Echo", { Tid: "a page" }, { pictures: [picture] });
  },
  async useAll(url, apiKey) {
    const client = new InfermillClient(url, { apiKey });
    const ended = await client.wait(await client.submit("Echo", { Tid: "1" }));
    const waiting = await client.submit("Tiny", {}, { ttlMs: 60_000 });
    const cancelled = await client.cancel("Tiny", waiting.id);
    return {
      ended: ended.status,
      cancelled: cancelled.status,
      listed: (await client.list("Tiny", { status: "cancelled" })).some(({ id }) => id === waiting.id),
      failed: await client.predict("Echo", { Fid: "bad" }).catch((error) => error.message),
      unknown: await refusal(client.predict("None", {})),
      keyless: await refusal(new InfermillClient(url).list("Echo")),
    };
  },
  list: (url, apiKey) => refusal(new InfermillClient(url, { apiKey, retries: 0 }).list("Echo")),
  predictHere: (apiKey) => new InfermillClient(location.origin, { apiKey }).predict("Echo", { Tid: "own" }),
};`;

describe.skipIf(whyNoRedis ?? whyNoBrowser)("the client in a browser", () => {
  let redis: RedisServer;
  let api: TestApi;
  let consumer: { close(): Promise<void> };
  let friend: Server;
  let stranger: Server;
  let browser: TestBrowser;
  let bundleBytes: number;

  beforeAll(async () => {
    // esbuild fails here where something needs more than browsers have.
    const { outputFiles } = await build({
      stdin: { contents: PAGE, resolveDir: "." },
      bundle: true,
      minify: true,
      platform: "browser",
      format: "esm",
      write: false,
    });
    await stop();
    const script = outputFiles[0]!.contents;
    bundleBytes = script.byteLength;
    [friend, stranger] = await Promise.all([servePage(script), servePage(script)]);
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { api_keys: [KEY], cors_origins: [originOf(friend)] });
    consumer = consume(redis.url, api.config, "Echo", async ({ data }) => {
      if (data.request["Fid"] === "bad") throw new UnrecoverableError("bad_input: no picture");
      return { Tid: data.request.Tid, Img_url: data.inputs.map(() => "a picture") };
    });
    browser = await openBrowser(originOf(friend));
  });
  afterAll(async () => {
    await browser?.close();
    await consumer?.close();
    await api?.close();
    await redis?.close();
    for (const server of [friend, stranger]) {
      server?.closeAllConnections();
      server?.close();
    }
  });

  async function servePage(script: Uint8Array): Promise<Server> {
    const server = createServer((req, res) => {
      if (req.url === "/client.js") res.setHeader("Content-Type", "text/javascript").end(script);
      else res.setHeader("Content-Type", "text/html").end('<script type="module" src="/client.js"></script>');
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return server;
  }

  const originOf = (server: Server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function open(server: Server): Promise<void> {
    await browser.page.goto(originOf(server));
    await browser.page.waitForFunction("'page' in window");
  }

  /** Calls a function of the page with the server's address and key. */
  const call = (name: string, ...args: string[]) =>
    browser.page.evaluate(`page.${name}(...${JSON.stringify(args)})`);

  test("is small, and brings nothing along that only Node has", () => {
    expect(bundleBytes).toBeGreaterThan(0);
    expect(bundleBytes).toBeLessThan(16_000);
  });

  test("sends a picture that the page drew, and brings its response", async () => {
    await open(friend);
    expect(await call("drawAndPredict", api.url, KEY)).toMatchObject({
      Tid: "a page",
      Img_url: ["a picture"],
    });
  });

  test("submits, waits, lists and cancels, and tells what the server refuses with its code", async () => {
    await open(friend);
    expect(await call("useAll", api.url, KEY)).toEqual({
      ended: "succeeded",
      cancelled: "cancelled",
      listed: true,
      failed: expect.stringContaining("no picture"),
      unknown: "model_not_found",
      keyless: "unauthorized",
    });
  });

  test("reaches nothing from an origin that cors_origins doesn't name", async () => {
    await open(stranger);
    expect(await call("list", api.url, KEY)).toBe("server_unreachable");
  });

  test("needs no cors_origins on a page of the server's own origin", async () => {
    const { page } = browser;
    await page.route(`${api.url}/own-page`, (route) =>
      route.fulfill({ contentType: "text/html", body: '<script type="module" src="/client.js"></script>' }),
    );
    await page.route(`${api.url}/client.js`, async (route) =>
      route.fulfill({ response: await route.fetch({ url: `${originOf(friend)}/client.js` }) }),
    );
    await page.goto(`${api.url}/own-page`);
    await page.waitForFunction("'page' in window");
    expect(await call("predictHere", KEY)).toMatchObject({ Tid: "own" });
  });
});
