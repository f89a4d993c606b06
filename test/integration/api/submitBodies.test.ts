/** The body forms of a submission, and what becomes of their pictures. */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PredictionJobData } from "../../../src/queue/jobs.ts";
import { createNames } from "../../../src/queue/names.ts";
import { publishWorkerReport, removeWorkerReport } from "../../../src/queue/workerReports.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const picture = Buffer.from("\xff\xd8\xff not really a JPEG, which the api doesn't look into", "latin1");
const other = Buffer.from("another picture");

describe.skipIf(whyNoRedis)("submitting", () => {
  let redis: RedisServer;
  let api: TestApi;
  let connection: Redis;
  let queue: Queue<PredictionJobData>;

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, {
      max_pictures_per_request: 3,
      max_predictions_per_call: 50,
      bulk_roots: { photos: "/srv/photos" },
    });
    connection = openRedis(redis.url);
    queue = new Queue("Echo", {
      connection,
      prefix: createNames(api.config.redis_prefix).queuePrefix("Echo"),
    });
  });
  afterAll(async () => {
    await queue?.close();
    connection?.disconnect();
    await api?.close();
    await redis?.close();
  });

  async function jobData(id: string): Promise<PredictionJobData> {
    return (await queue.getJob(id))!.data;
  }

  async function storedPictures(id: string): Promise<Buffer[]> {
    const { inputs } = await jobData(id);
    return Promise.all(
      inputs.map((ref) => readFile(join(api.config.data_dir, "inputs", (ref as { file: string }).file))),
    );
  }

  function postPicture(query = "", type = "image/jpeg", body = new Uint8Array(picture)) {
    return fetch(`${api.predictions()}${query}`, { method: "POST", headers: { "Content-Type": type }, body });
  }

  async function postForm(parts: Record<string, (string | Blob)[]>) {
    const form = new FormData();
    for (const [name, values] of Object.entries(parts)) {
      for (const value of values) form.append(name, value);
    }
    const response = await fetch(api.predictions(), { method: "POST", body: form });
    return { status: response.status, body: (await response.json()) as Json };
  }

  test("a raw picture is answered with 202, its Location and a queued prediction", async () => {
    const response = await postPicture();
    expect(response.status).toBe(202);
    const prediction = (await response.json()) as Json;
    expect(response.headers.get("Location")).toBe(`/v1/models/Echo/predictions/${prediction.id}`);
    expect(response.headers.get("Retry-After")).toBe("1");
    expect(prediction).toMatchObject({
      model: "Echo",
      status: "queued",
      started_at: null,
      finished_at: null,
      attempts: 0,
      result: null,
      error: null,
    });
    expect(prediction.links.events).toBe(`/v1/models/Echo/predictions/${prediction.id}/events`);
    expect(await storedPictures(prediction.id)).toEqual([picture]);
    expect((await send("GET", api.url + prediction.links.self)).body).toEqual(prediction);
  });

  test("no cache keeps a prediction, nor that there is none", async () => {
    const { body } = await send("POST", api.predictions(), {});
    for (const [url, status] of [
      [api.url + body.links.self, 200],
      [`${api.predictions()}/pred_none`, 404],
    ] as const) {
      const answer = await send("GET", url);
      expect([answer.status, answer.headers.get("Cache-Control")]).toEqual([status, "no-store"]);
    }
  });

  test("query parameters beside a raw picture are keys of the dictionary, and Prompt becomes a list of lists", async () => {
    const first = (await (
      await postPicture("?Fid=7&C_threshold=0.3&priority=high&Prompt=cat&Prompt=dog")
    ).json()) as Json;
    expect((await jobData(first.id)).request).toEqual({
      Fid: "7",
      C_threshold: "0.3",
      Prompt: [["cat", "dog"]],
    });
    expect((await queue.getJob(first.id))!.priority).toBe(1);
    const second = (await (await postPicture(`?Prompt=${encodeURIComponent('[["a cat"]]')}`)).json()) as Json;
    expect((await jobData(second.id)).request).toEqual({ Prompt: [["a cat"]] });
  });

  test("a dictionary loses its Base_64 and keeps every other key as it came", async () => {
    const rest = {
      Tid: "1",
      Per: null,
      Ad: " ",
      C_threshold: "0.5",
      Hp: { deep: [1] },
      Roi_c: [],
      Fs: [{ Lb: "x" }],
    };
    const { status, body } = await send("POST", api.predictions(), {
      ...rest,
      Base_64: picture.toString("base64"),
    });
    expect(status).toBe(202);
    expect((await jobData(body.id)).request).toEqual(rest);
    expect(await storedPictures(body.id)).toEqual([picture]);
  });

  test("Base_64 may be a list, with data-URL prefixes", async () => {
    const list = [`data:image/jpeg;base64,${picture.toString("base64")}`, other.toString("base64")];
    const { body } = await send("POST", api.predictions(), { Base_64: list });
    expect(await storedPictures(body.id)).toEqual([picture, other]);
  });

  test.each([[""], [null], [[]], [undefined]])(
    "Base_64 %j is no picture, which is accepted",
    async (none) => {
      const { status, body } = await send("POST", api.predictions(), { Tid: "1", Base_64: none });
      expect(status).toBe(202);
      expect((await jobData(body.id)).inputs).toEqual([]);
    },
  );

  test("a request without a picture is refused when a live worker says that the model needs one", async () => {
    const names = createNames(api.config.redis_prefix);
    const model = {
      engines: [],
      description: { labels: [], picture: "required" as const },
      batch_limit: 8,
      capacity: 32,
      held: 0,
      stuck_ms: 0,
      totals: {
        batches: 0,
        predictions: 0,
        succeeded: 0,
        failed: 0,
        timings: { queue_ms: 0, read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 },
      },
    };
    const report = {
      id: "w",
      pid: 1,
      host: "h",
      started_at: new Date().toISOString(),
      models: { Echo: model },
    };
    await publishWorkerReport(connection, names, report);
    try {
      await expect
        .poll(async () => (await send("POST", api.predictions(), { Tid: "1" })).body, { timeout: 4000 })
        .toMatchObject({
          status: 422,
          code: "bad_input",
          detail: expect.stringContaining("needs a picture"),
        });
      expect((await postPicture()).status).toBe(202);
    } finally {
      await removeWorkerReport(connection, names, "w");
      await sleep(2100);
    }
  });

  test("image names files below a bulk root, which are carried by reference", async () => {
    const { body } = await send("POST", api.predictions(), { image: ["photos/a/b.jpg", "photos/c.jpg"] });
    expect((await jobData(body.id)).inputs).toEqual([
      { root: "photos", path: "a/b.jpg" },
      { root: "photos", path: "c.jpg" },
    ]);
    expect((await jobData(body.id)).request).toEqual({});
  });

  test("image names pictures by URL, which are fetched only when they are predicted", async () => {
    const { body } = await send("POST", api.predictions(), { image: "https://example.org/a.jpg?size=2" });
    expect((await jobData(body.id)).inputs).toEqual([{ url: "https://example.org/a.jpg?size=2" }]);
  });

  test.each([
    ["photos/../etc/passwd", "below its root"],
    ["elsewhere/a.jpg", "bulk_roots (photos)"],
    ["https://user:secret@example.org/a.jpg", "user name or password"],
  ])("image %s is refused", async (image, reason) => {
    const { status, body } = await send("POST", api.predictions(), { image });
    expect(status).toBe(422);
    expect(body.detail).toContain(reason);
  });

  test("a form brings several files and the dictionary, in any order", async () => {
    for (const dictionaryFirst of [true, false]) {
      const request = ['{"Tid":"9"}'];
      const image = [
        new Blob([new Uint8Array(picture)], { type: "image/png" }),
        new Blob([new Uint8Array(other)]),
      ];
      const { status, body } = await postForm(dictionaryFirst ? { request, image } : { image, request });
      expect(status).toBe(202);
      expect((await jobData(body.id)).request).toEqual({ Tid: "9" });
      expect(await storedPictures(body.id)).toEqual([picture, other]);
    }
  });

  test("the dictionary of a form may come as a file, and a form needs no dictionary", async () => {
    const image = [new Blob([new Uint8Array(picture)])];
    const asFile = await postForm({
      image,
      request: [new Blob(['{"Tid":"8"}'], { type: "application/json" })],
    });
    expect((await jobData(asFile.body.id)).request).toEqual({ Tid: "8" });
    expect((await jobData((await postForm({ image })).body.id)).request).toEqual({});
  });

  test.each(["image/*", "application/octet-stream"])(
    "a body of type %s is a picture to be recognised by its bytes",
    async (type) => {
      const body = new Uint8Array(picture);
      const answer = await fetch(api.predictions(), {
        method: "POST",
        headers: { "Content-Type": type },
        body,
      });
      expect(answer.status).toBe(202);
      const { id } = (await answer.json()) as Json;
      expect((await jobData(id)).inputs).toEqual([{ file: expect.any(String) }]);
    },
  );

  test.each<[string, Record<string, (string | Blob)[]>, number, string]>([
    ["an unknown field", { image: [new Blob(["x"])], photo: ["x"] }, 422, '"photo"'],
    [
      "a dictionary that is no JSON",
      { image: [new Blob(["x"])], request: ["{oops"] },
      400,
      "the field request",
    ],
    ["too many files", { image: Array.from({ length: 4 }, () => new Blob(["x"])) }, 422, "at most 3"],
    ["an empty file", { image: [new Blob([])] }, 422, "empty"],
    ["an SVG", { image: [new Blob(["x"], { type: "image/svg+xml" })] }, 415, "JPEG, PNG, WebP"],
    [
      "pictures twice over",
      { image: [new Blob(["x"])], request: ['{"Base_64":"aGFsbG8="}'] },
      422,
      "got both",
    ],
  ])("a form with %s is refused and leaves nothing behind", async (_name, parts, status, reason) => {
    const before = await api.storedInputs();
    const answer = await postForm(parts);
    expect(answer.status).toBe(status);
    expect(answer.body.detail).toContain(reason);
    expect(await api.storedInputs()).toEqual(before);
  });

  test("a client that sends all of a large form before it reads gets its refusal", async () => {
    const { hostname, port } = new URL(api.url);
    const form =
      '--x\r\nContent-Disposition: form-data; name="image"; filename="a.svg"\r\nContent-Type: image/svg+xml\r\n\r\n' +
      "x".repeat(api.config.max_body_bytes - 100);
    const head = `POST /v1/models/Echo/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: ${form.length}\r\n\r\n`;
    const socket = connect(Number(port), hostname);
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.write(head + form, () => resolve());
    });
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(String(answer)).toContain("HTTP/1.1 415");
    socket.destroy();
  });

  test("a form that is cut short is refused with 400 and leaves nothing behind", async () => {
    const before = await api.storedInputs();
    const body =
      '--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\nhalf of a pict';
    const response = await fetch(api.predictions(), {
      method: "POST",
      headers: { "Content-Type": "multipart/form-data; boundary=x" },
      body,
    });
    expect([response.status, ((await response.json()) as Json).code]).toEqual([400, "malformed_body"]);
    expect(await api.storedInputs()).toEqual(before);
  });

  test("NDJSON brings many; each line has its prediction or its problem, in order", async () => {
    const lines = ['{"Tid":"a"}', "", "{oops", '{"Tid":"b","C_threshold":"high"}', '{"Tid":"c"}'];
    const { status, body } = await send("POST", api.predictions(), lines.join("\n"), {
      "Content-Type": "application/x-ndjson",
    });
    expect(status).toBe(202);
    expect(body.predictions).toMatchObject([
      { status: "queued" },
      { status: 400, code: "malformed_body", line: 3, detail: expect.stringContaining("line 3 is not JSON") },
      { status: 422, code: "bad_input", line: 4, errors: [{ key: "C_threshold" }] },
      { status: "queued" },
    ]);
    expect((await jobData(body.predictions[3].id)).request).toEqual({ Tid: "c" });
  });

  test("a JSON array brings many", async () => {
    const { status, body } = await send("POST", api.predictions(), [
      { Tid: "a" },
      7,
      { Base_64: "aGFsbG8=" },
    ]);
    expect(status).toBe(202);
    expect(body.predictions).toMatchObject([
      { status: "queued" },
      { status: 422, index: 1 },
      { status: "queued" },
    ]);
    expect(await storedPictures(body.predictions[2].id)).toEqual([Buffer.from("hallo")]);
  });

  test.each([
    ["none that can be used", [1, 2], 422, "none of the 2"],
    ["none at all", [], 422, "at least one"],
    ["too many", Array.from({ length: 51 }, () => ({})), 422, "at most 50"],
  ])("many requests, %s, are refused as a whole", async (_name, requests, status, reason) => {
    const answer = await send("POST", api.predictions(), requests);
    expect([answer.status, answer.headers.get("Content-Type")]).toEqual([
      status,
      "application/problem+json; charset=utf-8",
    ]);
    expect(answer.body.detail).toContain(reason);
  });

  test("of many, those that find room are accepted and the rest is refused with queue_full; then all are with 429", async () => {
    const { status, body } = await send("POST", api.predictions("Tiny"), [
      {},
      {},
      {},
      { Base_64: "aGFsbG8=" },
    ]);
    expect(status).toBe(202);
    expect(body.predictions.map((each: Json) => each.code ?? each.status)).toEqual([
      "queued",
      "queued",
      "queue_full",
      "queue_full",
    ]);
    const before = await api.storedInputs();
    const again = await send("POST", api.predictions("Tiny"), [{ Base_64: "aGFsbG8=" }]);
    expect([again.status, again.body.code]).toEqual([429, "queue_full"]);
    expect(Number(again.headers.get("Retry-After"))).toBeGreaterThan(0);
    expect(await api.storedInputs()).toEqual(before);
  });

  test("Prefer: wait is answered with 200 and the finished prediction, well before the wait is over", async () => {
    const consumer = consume(redis.url, api.config, "Echo", async ({ data }) => ({ Tid: data.request.Tid }));
    try {
      const { status, headers, body } = await send(
        "POST",
        api.predictions(),
        { Tid: "42" },
        { Prefer: "wait=30" },
      );
      expect([status, headers.get("Preference-Applied"), body.status]).toEqual([200, "wait=30", "succeeded"]);
      expect(body.result).toMatchObject({ Tid: "42", Rc: "200" });
      expect(Date.parse(body.finished_at)).toBeGreaterThanOrEqual(Date.parse(body.created_at));
    } finally {
      await consumer.close();
    }
  });

  test("Prefer: wait is answered with 202 when it is over, and a longer wait than 60 s is shortened", async () => {
    const short = await send("POST", api.predictions(), {}, { Prefer: "respond-async, wait=1" });
    expect([short.status, short.headers.get("Preference-Applied"), short.body.status]).toEqual([
      202,
      "wait=1",
      "queued",
    ]);
    const none = await send("POST", api.predictions(), {}, { Prefer: "wait=soon" });
    expect([none.status, none.headers.get("Preference-Applied")]).toEqual([202, null]);
  });

  test("inputs may wait in Redis instead of files", async () => {
    const remote = await startTestApi(redis.url, { inputs: "redis" });
    try {
      for (const [type, body] of [
        ["image/jpeg", new Uint8Array(picture)],
        ["application/json", JSON.stringify({ Base_64: picture.toString("base64") })],
      ] as const) {
        const headers = { "Content-Type": type };
        const response = await fetch(remote.predictions(), { method: "POST", headers, body });
        const { id } = (await response.json()) as Json;
        const key = createNames(remote.config.redis_prefix).input("Echo", id, 0);
        expect(await connection.getBuffer(key)).toEqual(picture);
        await send("DELETE", `${remote.predictions()}/${id}`);
        expect(await connection.exists(key)).toBe(0);
      }
      expect(await remote.storedInputs()).toEqual([]);
    } finally {
      await remote.close();
    }
  });

  test("a client that goes away in the midst of an upload leaves no file and no slot behind", async () => {
    const before = await api.storedInputs();
    const { hostname, port } = new URL(api.url);
    const slots = createNames(api.config.redis_prefix).slots("Echo");
    const heads = ["image/jpeg", "multipart/form-data; boundary=x"];
    // What is small is written once it is whole, what is large as it arrives.
    const cases = heads.flatMap((head) => [100, 1_500_000].map((sent) => ({ head, sent })));
    for (const { head, sent } of cases) {
      const socket = connect(Number(port), hostname);
      socket.write(
        `POST /v1/models/Echo/predictions HTTP/1.1\r\nHost: x\r\nContent-Type: ${head}\r\nContent-Length: 2000000\r\n\r\n`,
      );
      socket.write('--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n');
      socket.write(Buffer.alloc(sent, "half a picture"));
      await expect.poll(() => connection.zcard(slots)).toBe(1);
      const isWritten = sent > 1_000_000;
      if (isWritten) await expect.poll(async () => (await api.storedInputs()).length).toBe(before.length + 1);
      socket.destroy();
      await expect.poll(() => connection.zcard(slots)).toBe(0);
      await expect.poll(() => api.storedInputs()).toEqual(before);
    }
  });
});
