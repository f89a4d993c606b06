/** The JavaScript client, against the api on a real Redis, and against servers that fail on the way. */
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { UnrecoverableError } from "bullmq";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  ApiError,
  InfermillClient,
  PredictionFailedError,
  ServerUnreachableError,
} from "../../../src/client/client.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, startTestApi, type TestApi } from "../../support/api.ts";
import { plainPicture } from "../../support/pictures.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const KEY = "a-key-of-the-tests";

describe.skipIf(whyNoRedis)("the client", () => {
  let redis: RedisServer;
  let api: TestApi;
  let consumer: { close(): Promise<void> };
  let client: InfermillClient;
  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { api_keys: [KEY] });
    consumer = consume(redis.url, api.config, "Echo", async ({ data }) => {
      if (data.request["Fid"] === "bad") throw new UnrecoverableError("bad_input: no picture");
      return { Tid: data.request.Tid, Img_url: data.inputs.map(() => "a picture") };
    });
    client = new InfermillClient(api.url, { apiKey: KEY });
  });
  afterAll(async () => {
    await consumer?.close();
    await api?.close();
    await redis?.close();
  });

  test("brings the response of a request, with pictures or without", async () => {
    expect(await client.predict("Echo", { Tid: "1" })).toMatchObject({ Tid: "1", Img_url: [] });
    const pictures = [await plainPicture(1, 2, 3), await plainPicture(3, 2, 1)].map(
      (each) => new Uint8Array(each),
    );
    expect(await client.predict("Echo", { Tid: "2" }, { pictures })).toMatchObject({
      Tid: "2",
      Img_url: ["a picture", "a picture"],
    });
  });

  test("throws the prediction that failed", async () => {
    const failure = await client.predict("Echo", { Fid: "bad" }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(PredictionFailedError);
    expect((failure as PredictionFailedError).prediction).toMatchObject({
      status: "failed",
      error: { code: "bad_input", detail: "no picture" },
    });
  });

  test("submits, reads, waits, lists and cancels", async () => {
    const accepted = await client.submit("Tiny", {}, { ttlMs: 60_000, priority: "high" });
    expect(accepted).toMatchObject({ model: "Tiny", status: "queued" });
    expect(await client.get("Tiny", accepted.id)).toEqual(accepted);
    expect(await client.cancel("Tiny", accepted.id)).toMatchObject({ status: "cancelled" });
    expect(await client.wait(accepted)).toMatchObject({ status: "cancelled" });
    expect((await client.list("Tiny", { status: "cancelled", limit: 5 })).map(({ id }) => id)).toEqual([
      accepted.id,
    ]);
  });

  test("the same key and request are the same prediction, and each call has a key of its own", async () => {
    const options = { idempotencyKey: "once" };
    const [first, second] = [
      await client.submit("Echo", {}, options),
      await client.submit("Echo", {}, options),
    ];
    expect(second.id).toBe(first.id);
    expect((await client.submit("Echo", {})).id).not.toBe((await client.submit("Echo", {})).id);
  });

  test("tells what the server refuses with its code", async () => {
    const refusal = (promise: Promise<unknown>) => promise.catch((error: unknown) => error);
    expect(await refusal(client.predict("None", {}))).toMatchObject({ code: "model_not_found", status: 404 });
    const stranger = new InfermillClient(api.url);
    expect(await refusal(stranger.list("Echo"))).toMatchObject({ code: "unauthorized", status: 401 });
    expect(await refusal(client.startBulkRun({ model: "Echo", folder: "none" }))).toBeInstanceOf(ApiError);
    const nowhere = new InfermillClient("http://127.0.0.1:9", { retries: 0 });
    expect(await refusal(nowhere.list("Echo"))).toBeInstanceOf(ServerUnreachableError);
  });

  async function withServer(listener: RequestListener, work: (url: string) => Promise<void>): Promise<void> {
    const server = createServer(listener).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    try {
      await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}/below/a/path`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test("submits again under the same key where the connection broke or the queue was full, as long as it is asked to wait", async () => {
    const calls: { at: number; path: string | undefined; key: string | undefined }[] = [];
    const flaky: RequestListener = (req, res) => {
      calls.push({ at: Date.now(), path: req.url, key: req.headers["idempotency-key"] as string });
      req.resume();
      if (calls.length === 1) req.socket.destroy();
      else if (calls.length === 2) res.writeHead(429, { "Retry-After": "1" }).end();
      else res.writeHead(202, { "Content-Type": "application/json" }).end('{"id":"pred_1"}');
    };
    await withServer(flaky, async (url) => {
      expect(await new InfermillClient(url).submit("M", {})).toEqual({ id: "pred_1" });
    });
    expect(calls.map(({ path }) => path)).toEqual(Array(3).fill("/below/a/path/v1/models/M/predictions"));
    expect(new Set(calls.map(({ key }) => key)).size).toBe(1);
    expect(calls[2]!.at - calls[1]!.at).toBeGreaterThanOrEqual(950);
  });

  test("gives up after its retries, and asks for a bulk run under one key each time", async () => {
    let calls = 0;
    const keys: unknown[] = [];
    const away: RequestListener = (req, res) => {
      calls++;
      keys.push(req.headers["idempotency-key"]);
      req.resume();
      res.writeHead(503).end();
    };
    await withServer(away, async (url) => {
      const patient = new InfermillClient(url, { retries: 1 });
      await expect(patient.list("M")).rejects.toMatchObject({ status: 503 });
      expect(calls).toBe(2);
      await expect(patient.startBulkRun({ model: "M", folder: "f" })).rejects.toMatchObject({ status: 503 });
      expect(calls).toBe(4);
      expect(keys[2]).toEqual(expect.any(String));
      expect(keys[3]).toBe(keys[2]);
    });
  });
});
