/** `POST /{Model}`, IMIL's own endpoint: its answers, its errors, and what becomes of the prediction behind it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, UnrecoverableError } from "bullmq";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { failedReason } from "../../../src/queue/jobs.ts";
import { createNames } from "../../../src/queue/names.ts";
import { publishWorkerReport } from "../../../src/queue/workerReports.ts";
import { LoaderError } from "../../../src/errors.ts";
import type { Box, Finding } from "../../../src/index.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { consume, openRedis, send, startTestApi, type TestApi } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

/** IMIL's sample request. */
const sample = {
  Tid: "1",
  Did: "DeviceId",
  Fid: "1160",
  C_threshold: 0.5,
  Per: [],
  Mtp: [{ Etime: "2023-04-22,04:56:28.805 AM", Src: "Grabber", Stime: "2023-04-22,04:56:28.805 AM" }],
  Ts: "",
  Ts_ntp: "",
  Inf_ver: "",
  Msg_ver: "",
  Model: "CocoObjectDetection_De",
  Ad: "",
  Ffp: "ffp",
  Ltsize: "ltsize",
  Lfp: "lfp",
  I_fn: " ",
  Msk_img: [" "],
  Rep_img: [" "],
  Prompt: [""],
};
const echoed = [
  "Tid",
  "Did",
  "Fid",
  "Ts",
  "Ts_ntp",
  "Inf_ver",
  "Msg_ver",
  "Ad",
  "Ffp",
  "Ltsize",
  "Lfp",
] as const;
const IMIL_TIME = /^\d{4}-\d\d-\d\d,(0[1-9]|1[0-2]):[0-5]\d:[0-5]\d\.\d{3} (AM|PM)$/;

describe.skipIf(whyNoRedis)("IMIL's endpoint", () => {
  let redis: RedisServer;
  let api: TestApi;
  let connection: Redis;
  let queue: Queue;

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, {
      sync_timeout_ms: 1500,
      endpoints: { "/detect/people": "Echo", "/Tiny": "Echo" },
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
  afterEach(() => queue.obliterate({ force: true }));

  function answerWith(respond: Parameters<typeof consume>[3], model = "Echo"): void {
    const consumer = consume(redis.url, api.config, model, respond);
    onTestFinished(() => consumer.close());
  }

  test("answers with the response dictionary itself, whose request went through the queue with its unknown keys", async () => {
    const priorities: unknown[] = [];
    answerWith(async ({ data, opts }) => {
      priorities.push(opts.priority);
      return { ...data.request, Fs: [{ Cs: 1, Lb: "x", Dm: {} }] };
    });
    const { status, headers, body } = await send("POST", `${api.url}/Echo`, {
      ...sample,
      FeedId: "f",
      Own: [1],
    });
    expect([status, headers.get("Content-Type")]).toEqual([200, "application/json; charset=utf-8"]);
    expect(body).toMatchObject({ ...sample, FeedId: "f", Own: [1], Rc: "200", Rm: "Success" });
    expect(priorities).toEqual([2]);
  });

  test("is there on the paths of endpoints too, but a model's own name stays its own", async () => {
    answerWith(async () => ({ Tid: "echo" }));
    answerWith(async () => ({ Tid: "tiny" }), "Tiny");
    const { body: document } = await send("GET", `${api.url}/openapi.json`);
    expect(document.paths["/detect/people"].post.summary).toBe("IMIL's endpoint of Echo");
    expect(document.paths).toHaveProperty(["/{Model}", "post"]);
    expect(document.paths).not.toHaveProperty("/Tiny");
    for (const [path, who] of [
      ["/detect/people", "echo"],
      ["/Echo", "echo"],
      ["/Tiny", "tiny"],
    ]) {
      const { status, body } = await send("POST", api.url + path, {});
      expect([path, status, body.Tid]).toEqual([path, 200, who]);
    }
  });

  test("refuses a body without a Content-Type, which a page of another site could send", async () => {
    const response = await fetch(`${api.url}/Echo`, { method: "POST", body: new TextEncoder().encode("{}") });
    expect([response.status, await response.json()]).toMatchObject([
      415,
      { Rc: "415", code: "unsupported_media_type", detail: expect.stringContaining("application/json") },
    ]);
  });

  test.each<[string, unknown, number, string]>([
    ["wrong keys", { ...sample, Mtp: 7, C_threshold: "high" }, 422, "bad_input"],
    ["a picture that is no base64", { ...sample, Base_64: ["aGFsbG8=", "?"] }, 422, "bad_input"],
    ["no dictionary", [1], 422, "bad_input"],
    ["no JSON", "{oops", 400, "malformed_body"],
  ])("%s are a response dictionary and a problem in one", async (_name, request, status, code) => {
    const answer = await send("POST", `${api.url}/Echo`, request);
    expect([answer.status, answer.headers.get("Content-Type")]).toEqual([
      status,
      "application/problem+json; charset=utf-8",
    ]);
    expect(answer.body).toMatchObject({ code, status, Rc: String(status), Rm: answer.body.detail, Fs: [] });
    if (request !== "{oops" && !Array.isArray(request)) {
      for (const key of echoed) expect(answer.body[key], key).toEqual(sample[key]);
    }
    expect(answer.body.Mtp.at(-1)).toMatchObject({ Src: "Echo", Stime: expect.stringMatching(IMIL_TIME) });
  });

  test("all wrong keys are in one answer, with what the loader needs", async () => {
    const description = { labels: [], picture: "required" as const, requiredKeys: ["Prompt"] };
    const model = { engines: [], description, batch_limit: 8, capacity: 8, held: 0, stuck_ms: 0, totals: { batches: 0, predictions: 0, succeeded: 0, failed: 0, timings: { queue_ms: 0, read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 } } }; // prettier-ignore
    const own = await startTestApi(redis.url);
    onTestFinished(() => own.close());
    await publishWorkerReport(connection, createNames(own.config.redis_prefix), {
      id: "w",
      pid: 1,
      host: "h",
      started_at: new Date().toISOString(),
      models: { Echo: model },
    });
    const { status, body } = await send("POST", `${own.url}/Echo`, { Tid: [], C_threshold: 7 });
    expect([status, body.Rc]).toEqual([422, "422"]);
    expect(body.errors.map(({ key }: { key: string }) => key)).toEqual([
      "Tid",
      "C_threshold",
      "Base_64",
      "Prompt",
    ]);
    for (const key of ["Tid", "C_threshold", "Base_64", "Prompt"]) expect(body.Rm).toContain(key);
  });

  test("a prediction that fails answers with its status, code and text, and nothing found", async () => {
    answerWith(async () => {
      throw new UnrecoverableError(failedReason(new LoaderError("the graph has no such node")));
    });
    const { status, body } = await send("POST", `${api.url}/Echo`, sample);
    expect([status, body.code]).toEqual([500, "loader_failed"]);
    expect(body).toMatchObject({ Tid: "1", Fs: [], Rc: "500", Rm: "the graph has no such node" });
  });

  test("a model that there is none of is 404 with the names of those that are", async () => {
    const { status, body } = await send("POST", `${api.url}/Nobody`, sample);
    expect([status, body.code, body.Rc]).toEqual([404, "model_not_found", "404"]);
    expect(body.Rm).toContain("configured are: Echo, Tiny");
  });

  test("a full queue is 429 with Retry-After", async () => {
    await send("POST", api.predictions("Tiny"), [{}, {}]);
    const { status, headers, body } = await send("POST", `${api.url}/Tiny`, sample);
    expect([status, body.code, body.Rc]).toEqual([429, "queue_full", "429"]);
    expect(Number(headers.get("Retry-After"))).toBeGreaterThan(0);
  });

  test("when nobody answers within sync_timeout_ms it is 504, and the prediction is cancelled", async () => {
    const startedAt = Date.now();
    const { status, body } = await send("POST", `${api.url}/Echo`, { ...sample, Base_64: "aGFsbG8=" });
    expect([status, body.code, body.Rc]).toEqual([504, "timeout", "504"]);
    expect(body.Rm).toContain("no response within 1500 ms (sync_timeout_ms)");
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1500);
    expect((await queue.getJobCounts("prioritized", "wait")).prioritized).toBe(0);
    expect(await api.storedInputs()).toEqual([]);
  });

  test("a client that goes away leaves no prediction waiting, and the next is answered", async () => {
    const controller = new AbortController();
    const request = fetch(`${api.url}/Echo`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ Base_64: "aGFsbG8=" }),
      signal: controller.signal,
    }).catch(() => "gone");
    await expect.poll(() => queue.getPrioritizedCount()).toBe(1);
    controller.abort();
    expect(await request).toBe("gone");
    await expect.poll(() => queue.getPrioritizedCount()).toBe(0);
    await expect.poll(() => api.storedInputs()).toEqual([]);
    answerWith(async () => ({ Tid: "next" }));
    expect((await send("POST", `${api.url}/Echo`, {})).body.Tid).toBe("next");
  });

  test("a client that waits while the api closes is told to try again", async () => {
    const own = await startTestApi(redis.url);
    const answer = send("POST", `${own.url}/Echo`, sample);
    await sleep(300);
    await own.close();
    const { status, body } = await answer;
    expect([status, body.code, body.Rc]).toEqual([503, "temporary_fault", "503"]);
  });

  test("it shadows none of the api's own paths, and other methods on a model's path are refused", async () => {
    for (const path of ["/docs", "/openapi.json", "/metrics", "/"]) {
      expect([path, (await send("POST", api.url + path, {})).status]).toEqual([path, 405]);
      expect([path, (await fetch(api.url + path)).status]).toEqual([path, 200]);
    }
    expect((await fetch(`${api.url}/dashboard`)).status).toBe(200);
    const get = await send("GET", `${api.url}/Echo`);
    expect([get.status, get.headers.get("Allow")]).toEqual([405, "POST, OPTIONS"]);
    expect((await send("GET", `${api.url}/Nobody`)).status).toBe(404);
  });
});

describe.skipIf(whyNoRedis ?? (sharedModels && sharedPhotos ? undefined : noSharedModels))(
  "IMIL's sample request, five people, on the detecto-style model",
  () => {
    let infermill: TestInfermill;
    let people: string;

    beforeAll(async () => {
      people = (await readFile(join(sharedPhotos!, "imil_people.jpg"))).toString("base64");
      infermill = await startInfermill({
        FastAPI: { host: "127.0.0.1", port: 0, endpoint: "/people" },
        ModelExecutor: { model_name: "CocoObjectDetection_De", model_loader_file: "default" },
        models: undefined,
        CocoObjectDetection_De: {
          name: "fasterrcnn_resnet50_fpn",
          model_path: [join(sharedModels!, "detecto_style/detecto_style_yolox_nano.onnx")],
          classes: ["person"],
          instances: 1,
        },
      });
    });
    afterAll(() => infermill?.stop());

    function expectFivePeople(findings: Finding[]): void {
      expect(findings.map(({ Lb }) => Lb)).toEqual(["person", "person", "person", "person", "person"]);
      for (const { Cs, Dm } of findings) {
        const { X, Y, W, H } = Dm as Box;
        expect(Cs).toBeGreaterThan(0.8);
        expect(Math.min(X, Y, W, H)).toBeGreaterThan(0);
        expect(Math.max(X + W, Y + H)).toBeLessThanOrEqual(1);
        // People stand: their boxes are higher than wide, in a picture of 1920 × 1381.
        expect(H * 1381).toBeGreaterThan(W * 1920);
      }
    }

    test.each(["CocoObjectDetection_De", "people"])(
      "POST /%s finds five persons and echoes every key",
      async (path) => {
        const { status, body } = await send("POST", `${infermill.url}/${path}`, {
          ...sample,
          Base_64: people,
        });
        expect(status).toBe(200);
        expect(body).toMatchObject({
          Rc: "200",
          Rm: "Success",
          Obase_64: [],
          Img_url: [],
          I_fn: " ",
          Prompt: [""],
        });
        for (const key of echoed) expect(body[key], key).toEqual(sample[key]);
        expect(body.Mtp).toEqual([
          sample.Mtp[0],
          {
            Stime: expect.stringMatching(IMIL_TIME),
            Etime: expect.stringMatching(IMIL_TIME),
            Src: "CocoObjectDetection_De",
          },
        ]);
        expectFivePeople(body.Fs);
      },
    );

    test("the newer client's request: a list of pictures, Per null, Ad blank, and its further keys", async () => {
      const rocket = (await readFile(join(sharedPhotos!, "rocket.jpg"))).toString("base64");
      const { status, body } = await send("POST", `${infermill.url}/CocoObjectDetection_De`, {
        ...sample,
        Base_64: [people, `data:image/jpeg;base64,${rocket}`, people],
        C_threshold: "0.5",
        Per: null,
        Ad: " ",
        Roi_c: [],
        Fs: [],
        Hp: { iou: 0.5 },
        Text: "",
        Xai_ver: "",
        Xai_explainers: [],
        Xai_url: "",
        FeedId: "7",
      });
      expect(status).toBe(200);
      expect(body).toMatchObject({ Rc: "200", Ad: " ", Hp: { iou: 0.5 } });
      const of = (index: string) => body.Fs.filter(({ Info }: Finding) => Info === index);
      expectFivePeople(of("0"));
      expect(of("1")).toEqual([]);
      expectFivePeople(of("2"));
      expect(body.Fs.map(({ Info }: Finding) => Info)).toEqual("0000022222".split(""));
    });

    test("a picture without people is Fs [] with Rc 200, and none at all is a 422 that says so", async () => {
      const rocket = (await readFile(join(sharedPhotos!, "rocket.jpg"))).toString("base64");
      const nothing = await send("POST", `${infermill.url}/people`, { ...sample, Base_64: rocket });
      expect([nothing.status, nothing.body.Rc, nothing.body.Fs]).toEqual([200, "200", []]);
      const none = await send("POST", `${infermill.url}/people`, { ...sample, Base_64: "" });
      expect([none.status, none.body.Rc, none.body.Fs]).toEqual([422, "422", []]);
      expect(none.body.Rm).toContain("needs a picture");
      const text = await send("POST", `${infermill.url}/people`, { ...sample, Base_64: "aGFsbG8=" });
      expect([text.status, text.body.Rc, text.body.code]).toEqual([422, "422", "bad_input"]);
    });

    test("many at once each get their own answer, in batches", async () => {
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          send("POST", `${infermill.url}/people`, { ...sample, Fid: index, Base_64: people }),
        ),
      );
      expect(answers.map(({ body }) => [body.Fid, body.Fs.length])).toEqual(
        Array.from({ length: 12 }, (_, index) => [index, 5]),
      );
    });
  },
);
