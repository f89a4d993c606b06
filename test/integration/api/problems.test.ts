/** Refusals: what clients are told, with which status, and that a lost Redis is told at once. */
import { request as httpRequest } from "node:http";
import { json as readJson } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const problemType = "application/problem+json; charset=utf-8";

describe.skipIf(whyNoRedis)("problems", () => {
  let redis: RedisServer;
  let api: TestApi;

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, {
      max_body_bytes: 100_000,
      max_request_bytes: 10_000,
      max_pictures_per_request: 2,
    });
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
  });

  test("an unknown route is a 404 problem", async () => {
    const { status, headers, body } = await send("GET", `${api.url}/v3/models`);
    expect([status, headers.get("Content-Type")]).toEqual([404, problemType]);
    expect(body).toMatchObject({ type: "urn:infermill:problem:not_found", status: 404, code: "not_found" });
  });

  test("an unknown model is named together with those that there are", async () => {
    for (const [method, path] of [
      ["GET", ""],
      ["POST", "/predictions"],
      ["GET", "/predictions/x"],
    ]) {
      const { status, body } = await send(
        method!,
        `${api.url}/v1/models/Nope${path}`,
        method === "POST" ? {} : undefined,
      );
      expect([status, body.code]).toEqual([404, "model_not_found"]);
      expect(body.detail).toContain("Echo, Tiny");
    }
  });

  test("an unknown prediction is a 404 problem in every call", async () => {
    for (const [method, suffix] of [
      ["GET", ""],
      ["GET", "?wait=1"],
      ["GET", "/events"],
      ["DELETE", ""],
    ]) {
      const { status, body } = await send(method!, `${api.predictions()}/pred_none${suffix}`);
      expect([status, body.code]).toEqual([404, "prediction_not_found"]);
    }
  });

  test("a wrong method is answered with 405 and Allow", async () => {
    const { status, headers, body } = await send("PATCH", `${api.predictions()}/x`, {});
    expect([status, headers.get("Allow"), body.code]).toEqual([
      405,
      "PUT, GET, DELETE, HEAD, OPTIONS",
      "method_not_allowed",
    ]);
    expect((await send("DELETE", api.predictions())).headers.get("Allow")).toBe("POST, GET, HEAD, OPTIONS");
    expect((await send("OPTIONS", api.predictions())).status).toBe(204);
  });

  test.each([
    ["text/plain", "application/x-ndjson"],
    ["", "multipart/form-data"],
    ["application/xml", "application/json"],
    ["image/jxl", "JPEG, PNG, WebP"],
    ["image/svg+xml", "JPEG, PNG, WebP"],
    ["image/jp2", "JPEG, PNG, WebP"],
  ])("the Content-Type %j is refused with 415", async (type, reason) => {
    const response = await fetch(api.predictions(), {
      method: "POST",
      headers: { "Content-Type": type },
      body: new Uint8Array(10),
    });
    const body = (await response.json()) as Json;
    expect([response.status, body.code]).toEqual([415, "unsupported_media_type"]);
    expect(body.detail).toContain(reason);
  });

  test("a body with a Content-Encoding is refused with 415", async () => {
    const { status } = await send("POST", api.predictions(), {}, { "Content-Encoding": "gzip" });
    expect(status).toBe(415);
  });

  test.each([
    ['{"Tid": "1",}', 12, 1],
    ['{"Tid": x}', 8, 1],
    ['{\n  "Tid": "1"\n  "Did": "2"}', 17, 3],
    ['{"Tid": "1"', 11, 1],
    ["", 0, 1],
  ])("malformed JSON %j is refused with the place of its fault", async (text, position, line) => {
    const { status, body } = await send("POST", api.predictions(), text);
    expect([status, body.code]).toEqual([400, "malformed_body"]);
    expect(body.detail).toContain(`at position ${position} (line ${line},`);
  });

  test.each([
    ["/v1/models/Echo/predictions", "application/json", ""],
    ["/v1/models/Echo/predictions", "application/json", '{"a":'],
    ["/v1/bulk", "application/json", '{"model":"Echo","folder":"x","request":'],
    ["/v1/bulk?model=Echo", "application/x-ndjson", '{"request":'],
    ["/Echo", "application/json", '{"Prompt":'],
    ["/v2/models/Echo/infer", "application/json", '{"inputs":'],
    ["/v1/embeddings", "application/json", '{"model":"Echo","input":'],
  ])("JSON that nests thousands deep is no 500 at %s (%s, %s)", async (path, type, beginning) => {
    for (const depth of [4125, 40_000]) {
      const nested = "[".repeat(depth) + "]".repeat(depth);
      const body = beginning === "" ? nested : `${beginning}${nested}}`;
      const answer = await fetch(`${api.url}${path}`, {
        method: "POST",
        headers: { "Content-Type": type },
        body,
      });
      const text = await answer.text();
      expect([400, 422], text.slice(0, 300)).toContain(answer.status);
      expect(text).toMatch(/nests? deeper than \d+ levels/);
    }
  });

  test("JSON that is no UTF-8 is refused with 400", async () => {
    const response = await fetch(api.predictions(), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: new Uint8Array([0x22, 0xff, 0x22]),
    });
    expect(response.status).toBe(400);
  });

  test("a broken percent-encoding in a path is refused with 400", async () => {
    const { status, body } = await send("GET", `${api.url}/v1/models/%E0%A4%A`);
    expect([status, body.code, body.title]).toEqual([400, "malformed_path", "The path can't be read"]);
    expect(body.detail).toContain("%E0%A4%A");
  });

  test("all faulty keys of a dictionary are named in one answer", async () => {
    const { status, body } = await send("POST", api.predictions(), {
      Tid: { nested: true },
      C_threshold: "high",
      Mtp: "nowhere",
      Base_64: 7,
      Unknown: { is: "kept" },
    });
    expect([status, body.code]).toEqual([422, "bad_input"]);
    expect(body.errors.map((fault: Json) => fault.key).toSorted()).toEqual([
      "Base_64",
      "C_threshold",
      "Mtp",
      "Tid",
    ]);
    expect(body.detail).toContain(
      'C_threshold must be a number from 0 to 1 (or one in a string), got "high"',
    );
  });

  test("what IMIL's own client sends is taken", async () => {
    const request = {
      Tid: "1", Did: "DeviceId", Fid: "1163", Per: null, Ts: "", Ts_ntp: "", Inf_ver: "", Msg_ver: "", Model: "m", Ad: " ",
      Ffp: "", Ltsize: "", Lfp: "", Mtp: [{ Stime: "a", Etime: "b", Src: "c" }], Base_64: ["aGFsbG8="], C_threshold: 0.5,
      I_fn: "", Msk_img: [""], Rep_img: null, Prompt: [["a cat"]], Hp: null, Roi_c: [],
    }; // prettier-ignore
    expect((await send("POST", api.predictions(), request)).status).toBe(202);
  });

  test.each<[string, unknown, string]>([
    ["a list entry that is no base64", { Base_64: ["aGFsbG8=", "not base64!"] }, "Base_64[1]"],
    ["an entry that is no string", { Base_64: ["aGFsbG8=", 7] }, "Base_64[1]"],
    ["too many pictures", { Base_64: ["YQ==", "YQ==", "YQ=="] }, "at most 2 pictures"],
    ["pictures in both keys", { Base_64: "YQ==", image: "a/b" }, "got both"],
    ["no object", "a string", "JSON object"],
  ])("a dictionary with %s is refused with 422", async (_name, request, reason) => {
    const { status, body } = await send("POST", api.predictions(), JSON.stringify(request));
    expect(status).toBe(422);
    expect(body.detail).toContain(reason);
  });

  test.each(["Ad", "Base_64", "image", "Tid"])(
    "too deep a nesting in %s is refused with 422",
    async (key) => {
      for (const [levels, what] of [
        [65, "a request must not nest deeper than 64 levels"],
        [5000, "the body must not nest deeper than 100 levels"],
      ] as const) {
        const text = `{"${key}":${"[".repeat(levels)}${"]".repeat(levels)}}`;
        const { status, body } = await send("POST", api.predictions(), text);
        expect([status, body.detail]).toEqual([422, what]);
      }
    },
  );

  test("all faulty query parameters are named in one answer", async () => {
    const { status, body } = await send(
      "POST",
      `${api.predictions()}?priority=urgent&ttl_ms=0&timeout_ms=soon&webhook=nowhere&colour=red`,
      {},
    );
    expect(status).toBe(422);
    const faults = Object.fromEntries(body.errors.map((fault: Json) => [fault.key, fault.problem]));
    expect(Object.keys(faults)).toEqual(["priority", "ttl_ms", "timeout_ms", "webhook", "colour"]);
    expect(faults.priority).toBe('must be high, normal or low, got "urgent"');
    expect(faults.webhook).toBe(
      'must be an http:// or https:// URL of at most 2048 characters, got "nowhere"',
    );
  });

  test.each(["61", "-1", "long"])("?wait=%s is refused with 422", async (wait) => {
    const { body: prediction } = await send("POST", api.predictions(), {});
    const { status, body } = await send("GET", `${api.url}${prediction.links.self}?wait=${wait}`);
    expect([status, body.errors[0].key]).toEqual([422, "wait"]);
  });

  test("what nobody expected is answered with 500 and an id, without its details, and leaves no slot behind", async () => {
    const broken = await startTestApi(redis.url, {
      data_dir: "/dev/null",
      models: { Echo: { loader: "EchoModelLoader", max_queue_length: 1 } },
    });
    try {
      for (let round = 0; round < 3; round++) {
        const { status, body } = await send("POST", broken.predictions(), { Base_64: "aGFsbG8=" });
        expect([status, body.code]).toEqual([500, "internal_error"]);
        expect(body.id).toMatch(/^[0-9a-f-]{36}$/);
        expect(JSON.stringify(body)).not.toContain("/dev/null");
      }
    } finally {
      await broken.close();
    }
  });

  test.each([
    ["application/json", '{"Tid":"'],
    ["application/x-ndjson", '{"Tid":"'],
    ["image/jpeg", ""],
    [
      "multipart/form-data; boundary=x",
      '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n',
    ],
  ])("a body of %s that exceeds max_body_bytes is refused with 413, told or not", async (type, start) => {
    const before = await api.storedInputs();
    const body = Buffer.from(start + "x".repeat(200_000));
    for (const isTold of [true, false]) {
      const answer = await post(api.predictions(), type, body, isTold);
      expect([answer.status, answer.body.code]).toEqual([413, "body_too_large"]);
      expect(answer.body.detail).toContain("100000");
      await expect.poll(() => api.storedInputs()).toEqual(before);
    }
  });

  test("a request that is large without its pictures is refused with 413, alone among many", async () => {
    const large = { Msk_img: ["x".repeat(20_000)] };
    const refusal = {
      status: 413,
      code: "body_too_large",
      detail: "the request without its pictures, as JSON, must be at most 10000 bytes (max_request_bytes)",
    };
    const picture = { Base_64: Buffer.alloc(20_000, "x").toString("base64") };
    expect(await send("POST", api.predictions(), { ...large, ...picture })).toMatchObject({
      status: 413,
      body: refusal,
    });
    const { status, body } = await send("POST", api.predictions(), [picture, large]);
    expect([status, body.predictions]).toMatchObject([202, [{ status: "queued" }, refusal]]);
  });

  /** With node:http, since fetch tells no length only for streams. */
  function post(
    url: string,
    type: string,
    body: Buffer,
    isLengthTold: boolean,
  ): Promise<{ status: number; body: Json }> {
    return new Promise((resolve, reject) => {
      const headers = { "Content-Type": type, ...(isLengthTold && { "Content-Length": body.length }) };
      const request = httpRequest(url, { method: "POST", headers }, (response) => {
        readJson(response).then((answer) => resolve({ status: response.statusCode!, body: answer }), reject);
      });
      request.on("error", reject);
      for (let start = 0; start < body.length; start += 20_000)
        request.write(body.subarray(start, start + 20_000));
      request.end();
    });
  }
});

describe.skipIf(whyNoRedis)("without Redis", () => {
  const calls: [string, string, unknown?][] = [
    ["POST", "/v1/models/Echo/predictions", { Base_64: "aGFsbG8=" }],
    ["POST", "/v1/models/Echo/predictions", [{}, {}]],
    ["PUT", "/v1/models/Echo/predictions/mine", {}],
    ["GET", "/v1/models/Echo/predictions/mine"],
    ["GET", "/v1/models/Echo/predictions/mine?wait=30"],
    ["DELETE", "/v1/models/Echo/predictions/mine"],
    ["GET", "/v1/models"],
  ];

  test("every call is answered with 503 and Retry-After at once when Redis is gone", async () => {
    const redis = await startTestRedis();
    const api = await startTestApi(redis.url);
    try {
      await redis.close();
      for (const [method, path, body] of calls) {
        const start = Date.now();
        const answer = await send(method, api.url + path, body);
        expect([path, answer.status, answer.body.code]).toEqual([path, 503, "redis_unavailable"]);
        expect(Number(answer.headers.get("Retry-After"))).toBeGreaterThan(0);
        expect(Date.now() - start).toBeLessThan(1000);
      }
      expect((await send("GET", `${api.url}/health/live`)).status).toBe(200);
      const ready = await send("GET", `${api.url}/health/ready`);
      expect([ready.status, ready.body.status]).toEqual([503, "not_ready"]);
      expect((await send("GET", `${api.url}/v1/models/Echo/ready`)).status).toBe(503);
      expect(await (await fetch(`${api.url}/metrics`)).text()).toContain("infermill_redis_up 0");
      expect(await api.storedInputs()).toEqual([]);
    } finally {
      await api.close();
    }
  });

  test("a Redis that hangs is told within seconds, and all is well once it answers again", async () => {
    const redis = await startTestRedis();
    const api = await startTestApi(redis.url);
    const connection = openRedis(redis.url);
    const pid = Number(/process_id:(\d+)/.exec(await connection.info("server"))![1]);
    connection.disconnect();
    try {
      process.kill(pid, "SIGSTOP");
      const start = Date.now();
      const answers = await Promise.all(
        calls.map(([method, path, body]) => send(method, api.url + path, body)),
      );
      expect(answers.map(({ status }) => status)).toEqual(calls.map(() => 503));
      expect(Date.now() - start).toBeLessThan(8000);
      process.kill(pid, "SIGCONT");
      await expect
        .poll(async () => (await send("POST", api.predictions(), {})).status, { timeout: 10_000 })
        .toBe(202);
    } finally {
      process.kill(pid, "SIGCONT");
      await api.close();
      await redis.close();
    }
  });
});
