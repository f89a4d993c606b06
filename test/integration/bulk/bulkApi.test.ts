/** What the api does with bulk runs by itself: no coordinator and no worker runs here. */
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openBulkRuns } from "../../../src/bulk/runs.ts";
import { createNames } from "../../../src/queue/names.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, startTestApi, type Json, type TestApi } from "../../support/api.ts";
import { until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const NDJSON = { "Content-Type": "application/x-ndjson" };

describe.skipIf(whyNoRedis)("bulk runs by HTTP", () => {
  const photos = mkdtempSync(join(tmpdir(), "infermill-photos-"));
  let redis: RedisServer;
  let api: TestApi;
  beforeAll(async () => {
    redis = await startTestRedis();
    const limits = {
      max_body_bytes: 4096,
      max_request_bytes: 1024,
      max_manifest_bytes: 8192,
      bulk_ttl_seconds: 60,
    };
    api = await startTestApi(redis.url, { bulk_roots: { photos }, ...limits });
  });
  afterAll(async () => {
    await api?.close();
    await redis?.close();
    rmSync(photos, { recursive: true });
  });
  afterEach(async () => {
    for (const { id } of await listed()) {
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
      await send("DELETE", `${api.url}/v1/bulk/${id}`);
    }
  });

  const start = (body: unknown) => send("POST", `${api.url}/v1/bulk`, body);
  const sendManifest = (lines: unknown[], query = "?model=Echo") =>
    send(
      "POST",
      `${api.url}/v1/bulk${query}`,
      lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"),
      NDJSON,
    );
  const listed = async (): Promise<Json[]> => (await send("GET", `${api.url}/v1/bulk`)).body.runs;
  const runFolders = () => readdirSync(join(api.config.data_dir, "bulk"));

  test("the same Idempotency-Key starts one run, a folder's as a manifest's, and is free again once that is deleted", async () => {
    const keyed = (key: string, body: unknown) =>
      send("POST", `${api.url}/v1/bulk`, body, { "Idempotency-Key": key });
    const folder = { model: "Echo", folder: "photos" };
    const [first, beside] = await Promise.all([keyed("nightly 7", folder), keyed("nightly 7", folder)]);
    expect([first.status, beside.status]).toEqual([202, 202]);
    const { id } = first.body;
    expect(beside.body.id).toBe(id);
    expect((await keyed("nightly 7", { folder: "photos", model: "Echo" })).body.id).toBe(id);
    const other = await keyed("nightly 7", { ...folder, priority: "high" });
    expect(other).toMatchObject({ status: 422, body: { code: "idempotency_conflict" } });
    expect(other.body.detail).toContain(id);

    const manifest = (lines: string) =>
      send("POST", `${api.url}/v1/bulk?model=Echo`, lines, { ...NDJSON, "Idempotency-Key": "m" });
    const sent = await manifest('{"custom_id":"a"}');
    expect((await manifest('{"custom_id":"a"}')).body.id).toBe(sent.body.id);
    expect((await manifest('{"custom_id":"b"}')).body.code).toBe("idempotency_conflict");
    expect(new Set((await listed()).map((run) => run.id))).toEqual(new Set([id, sent.body.id]));
    expect(runFolders()).toHaveLength(2);

    await send("DELETE", `${api.url}/v1/bulk/${id}`);
    expect((await keyed("nightly 7", folder)).body).toMatchObject({ id, status: "cancelled" });
    await send("DELETE", `${api.url}/v1/bulk/${id}`);
    expect((await keyed("nightly 7", folder)).body.id).not.toBe(id);
    expect((await keyed("é", folder)).body.errors).toMatchObject([{ key: "Idempotency-Key" }]);
  });

  test("a repeat enqueues a run whose first submission got no further than its key", async () => {
    const headers = { "Idempotency-Key": "cut off" };
    const folder = { model: "Echo", folder: "photos" };
    const { id } = (await send("POST", `${api.url}/v1/bulk`, folder, headers)).body;
    const runs = await openBulkRuns(api.config, redis.url);
    await runs.queue.remove(id);
    expect((await send("POST", `${api.url}/v1/bulk`, folder, headers)).body.id).toBe(id);
    expect(await runs.queue.getJob(id)).toBeDefined();
    await runs.close();
  });

  test("a run waits for a coordinator, is listed, and is seen on the dashboard", async () => {
    const first = (await start({ model: "Echo", folder: "photos/" })).body;
    const second = (await sendManifest([{ custom_id: "a" }, { custom_id: "b" }])).body;
    expect(first).toMatchObject({ status: "queued", folder: "photos", priority: "low", progress: null });
    expect(second).toMatchObject({ status: "queued", folder: null, counts: { total: 2, done: 0 } });
    expect((await listed()).map(({ id }) => id)).toEqual([second.id, first.id]);
    expect((await send("GET", `${api.url}/v1/bulk?limit=1`)).body.runs).toHaveLength(1);

    const { body } = await send("GET", `${api.url}/dashboard/api/queues?activeQueue=_bulk&status=latest`);
    const { displayName, jobs } = body.queues.find(({ name }: Json) => name === "_bulk");
    expect(displayName).toBe("bulk runs");
    expect(new Set(jobs.map(({ id }: Json) => id))).toEqual(new Set([first.id, second.id]));
    expect(jobs[0].externalUrl.href).toMatch(/^\/v1\/bulk\/bulk_/);
  });

  test("a run that nobody works on is cancelled at once, and deleted by the next DELETE", async () => {
    const { id } = (await start({ model: "Echo", folder: "photos" })).body;
    const cancelled = await send("DELETE", `${api.url}/v1/bulk/${id}`);
    expect(cancelled).toMatchObject({ status: 200, body: { id, status: "cancelled" } });
    expect(await send("POST", `${api.url}/v1/bulk/${id}/cancel`)).toMatchObject(cancelled);
    expect(cancelled.body.finished_at).not.toBeNull();
    const results = await fetch(`${api.url}/v1/bulk/${id}/results`);
    expect([results.status, await results.text()]).toEqual([200, ""]);
    expect((await send("DELETE", `${api.url}/v1/bulk/${id}`)).status).toBe(204);
    expect(runFolders()).toEqual([]);
    for (const path of ["", "/results", "/events"])
      expect((await send("GET", `${api.url}/v1/bulk/${id}${path}`)).body.code).toBe("bulk_run_not_found");
  });

  test("a run that ended with another Redis is found by its folder, and a resumed one does not count its rest", async () => {
    const { id } = (await start({ model: "Echo", folder: "photos" })).body;
    await send("POST", `${api.url}/v1/bulk/${id}/cancel`);
    writeFileSync(
      join(api.config.data_dir, "bulk", id, "results.ndjson"),
      '{"index":0,"status":"failed","line":1,"path":"a.jpg","error":{"code":"bad_input","title":"","detail":"x"}}\n',
    );
    const client = openRedis(redis.url);
    const key = createNames(api.config.redis_prefix).bulkRun(id);
    // It was begun 100 s before it ended, and ended 40 s ago.
    const finished = Date.now() - 40_000;
    await client.hset(key, { started: finished - 100_000, finished });
    expect((await send("GET", `${api.url}/v1/bulk/${id}/summary`)).body).toMatchObject({
      verdict: "0 of 1, 1 failed, cancelled, 2 min, 0.0/s",
      seconds: 100,
    });
    await send("POST", `${api.url}/v1/bulk/${id}/resume`);
    const rest = Number(await client.hget(key, "idle"));
    expect(Math.abs(rest - 40_000)).toBeLessThan(5000);
    const before = (await send("POST", `${api.url}/v1/bulk/${id}/cancel`)).body;

    await client.del(key);
    client.disconnect();
    expect((await listed()).map((run) => run.id)).toEqual([id]);
    expect((await send("GET", `${api.url}/v1/bulk/${id}`)).body).toEqual(before);
    expect((await send("GET", `${api.url}/v1/bulk/${id}/entries`)).body.entries).toHaveLength(1);
    expect((await send("DELETE", `${api.url}/v1/bulk/${id}`)).status).toBe(204);
    expect(await listed()).toEqual([]);
  });

  test("events begin with how the run stands, and not again for who knows it", async () => {
    const { id } = (await start({ model: "Echo", folder: "photos" })).body;
    await send("DELETE", `${api.url}/v1/bulk/${id}`);
    const events = (headers = {}) =>
      fetch(`${api.url}/v1/bulk/${id}/events`, { headers }).then((answer) => answer.text());
    const text = await events();
    const [, eventId] = /^event: progress\nid: (\S+)\ndata: \{.*"status":"cancelled".*\}\n\n$/.exec(text)!;
    expect(await events({ "Last-Event-ID": eventId! })).toBe("");
    expect(await events({ "Last-Event-ID": "running-9-3" })).toBe(text);
  });

  test.skipIf(!existsSync("/proc/self/fd"))(
    "results are sent as fast as their reader takes them, and no further once it has gone",
    async () => {
      const { id } = (await start({ model: "Echo", folder: "photos" })).body;
      await send("POST", `${api.url}/v1/bulk/${id}/cancel`);
      const file = join(api.config.data_dir, "bulk", id, "results.ndjson");
      const lines = Array.from(
        { length: 20_000 },
        (_, index) =>
          `{"index":${index},"status":"succeeded","line":${index + 1},"path":"${"x".repeat(1000)}"}\n`,
      );
      writeFileSync(file, lines.join(""));
      const warnings: Error[] = [];
      const warn = (warning: Error) => void warnings.push(warning);
      process.on("warning", warn);
      try {
        const whole = await fetch(`${api.url}/v1/bulk/${id}/results`);
        expect(await whole.text()).toBe(lines.join(""));

        const left = new AbortController();
        const { body } = await fetch(`${api.url}/v1/bulk/${id}/results`, { signal: left.signal });
        await body!.getReader().read();
        left.abort();
        const open = () =>
          readdirSync("/proc/self/fd").filter((fd) => {
            try {
              return readlinkSync(`/proc/self/fd/${fd}`) === file;
            } catch {
              return false;
            }
          });
        await until(() => open().length === 0, "the results file is closed");
      } finally {
        process.off("warning", warn);
      }
      expect(warnings).toEqual([]);
    },
  );

  test("a faulty call is refused with every fault, and leaves nothing behind", async () => {
    const faulty = await start({ folder: "photos", priority: "soon", webhook_events: "x", recursive: true });
    expect(faulty).toMatchObject({ status: 422, body: { code: "bad_input" } });
    expect(faulty.body.errors.map(({ key }: Json) => key).toSorted()).toEqual([
      "model",
      "priority",
      "recursive",
    ]);
    const calls: [number, Promise<{ status: number; body: Json }>][] = [
      [422, start({ model: "Echo", folder: "photos", glob: "../*.jpg" })],
      [422, start({ model: "Echo", folder: "photos", request: { C_threshold: "high" } })],
      [422, start({ model: "Echo", folder: "photos", request: { Base_64: "aaaa" } })],
      [422, start({ model: "Echo", folder: "photos", webhook: "ftp://example.org" })],
      [404, start({ model: "None", folder: "photos" })],
      [400, start("{")],
      [415, send("POST", `${api.url}/v1/bulk`, "x", { "Content-Type": "text/plain" })],
      [422, sendManifest([{}], "")],
      [404, sendManifest([{}], "?model=None")],
      [422, sendManifest(["", " "])],
      [422, sendManifest([{ custom_id: "a" }, `{"custom_id":"${"b".repeat(5000)}"}`])],
      [413, sendManifest(Array.from({ length: 1000 }, () => ({ custom_id: "c" })))],
      [422, send("GET", `${api.url}/v1/bulk?limit=0`)],
      [404, send("GET", `${api.url}/v1/bulk/..%2f..%2fetc`)],
    ];
    for (const [index, [status, call]] of calls.entries())
      expect([index, (await call).status]).toEqual([index, status]);
    expect(await listed()).toEqual([]);
    expect(runFolders()).toEqual([]);
  });

  test("a request that is larger than max_request_bytes is refused, of a folder and in a manifest", async () => {
    const request = { Rep_img: ["x".repeat(2048)] };
    expect(await start({ model: "Echo", folder: "photos", request })).toMatchObject({
      status: 413,
      body: { code: "body_too_large", detail: expect.stringContaining("1024 bytes (max_request_bytes)") },
    });
    const { status, body } = await sendManifest([{}, { request }]);
    expect([status, body.errors]).toEqual([
      422,
      [{ key: "line 2", problem: expect.stringContaining("1024 bytes (max_request_bytes)") }],
    ]);
  });

  test("every faulty line of a manifest is named, with what is wrong with its keys", async () => {
    const { status, body } = await sendManifest([
      { custom_id: "good", request: { C_threshold: 0.5 } },
      "",
      "{",
      { custom_id: 7 },
      { image: "photos/../secret.jpg" },
      { image: "elsewhere/a.jpg" },
      { image: ["photos/a.jpg", "/9j/4AAQSkZJRgABAQAAAQABAAD"] },
      { request: { C_threshold: 2, Mtp: "x" } },
      { image: "photos/a.jpg", request: { image: "photos/b.jpg" } },
      "[]",
    ]);
    expect(status).toBe(422);
    expect(body.errors.map(({ key }: Json) => key)).toEqual([
      "line 3",
      "line 4: custom_id",
      "line 5: image",
      "line 6: image",
      "line 7: image",
      "line 8: Mtp",
      "line 8: C_threshold",
      "line 9",
      "line 10",
    ]);
    expect(body.errors[3].problem).toContain("with a root of bulk_roots (photos)");
  });

  test("a run is removed when bulk_ttl_seconds have passed since its end", async () => {
    const old = (await start({ model: "Echo", folder: "photos" })).body.id;
    const young = (await start({ model: "Echo", folder: "photos" })).body.id;
    await send("DELETE", `${api.url}/v1/bulk/${old}`);
    const runs = await openBulkRuns(api.config, redis.url);
    const connection = openRedis(redis.url);
    const names = createNames(api.config.redis_prefix);
    try {
      expect(await runs.sweep()).toBe(0);
      // As if more time had passed for the first one.
      await connection.hset(names.bulkRun(old), { finished: Date.now() - 61_000 });
      await connection.zadd(names.bulkRuns, Date.now() - 100_000, old);
      expect(await runs.sweep()).toBe(1);
    } finally {
      connection.disconnect();
      await runs.close();
    }
    expect((await listed()).map(({ id }) => id)).toEqual([young]);
    expect(runFolders()).toEqual([young]);
  });
});
