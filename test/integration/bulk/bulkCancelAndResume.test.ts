/** Bulk runs of a server that end before they are complete, and continue later; their webhooks notify of each end. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkResult } from "../../support/answers.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { processNamed } from "../../support/processes.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";

const ENTRIES = 1000;

describe.skipIf(whyNoRedis)("a bulk run that was cancelled or failed", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-bulk-"));
  const photos = join(folder, "photos");
  let receiver: Receiver;
  let infermill: TestInfermill;
  beforeAll(async () => {
    mkdirSync(photos);
    receiver = await startReceiver();
    infermill = await startInfermill({
      bulk_roots: { photos },
      webhooks: { secret: SECRET, allow: ["127.0.0.1"] },
      models: {
        Scripted: {
          loader: "ScriptedModelLoader",
          model_loader_file: SCRIPTED_LOADER,
          max_batch_size: 4,
        },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    await receiver?.close();
    rmSync(folder, { recursive: true });
  });

  const runOf = async (path: string, init?: RequestInit) => {
    const answer = await fetch(`${infermill.url}/v1/bulk${path}`, init);
    return {
      status: answer.status,
      body: (await answer.json()) as BulkRun & { code?: string; detail?: string },
    };
  };
  const resume = (id: string) => runOf(`/${id}/resume`, { method: "POST" });
  const ended = (id: string) =>
    until(async () => {
      const { body } = await runOf(`/${id}`);
      return ["completed", "cancelled", "failed"].includes(body.status) && body;
    }, "the end of the run");
  const results = async (id: string) => {
    const text = await (await fetch(`${infermill.url}/v1/bulk/${id}/results`)).text();
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
  };
  const told = (id: string) => receiver.received.filter(({ event }) => event.data.id === id);

  test("continues behind its results; its webhooks notify of both ends, once each", async () => {
    const manifest = Array.from({ length: ENTRIES }, (_, index) =>
      JSON.stringify({ custom_id: `c${index}`, request: { Fid: `c${index}`, Ms: 20 } }),
    );
    const { body: run } = await runOf(`?model=Scripted&webhook=${encodeURIComponent(receiver.url)}`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: manifest.join("\n"),
    });
    await until(async () => (await runOf(`/${run.id}`)).body.counts.done > 20, "some results");
    expect(await resume(run.id)).toMatchObject({ status: 409, body: { code: "not_resumable" } });
    await runOf(`/${run.id}`, { method: "DELETE" });
    const cancelled = await ended(run.id);
    expect(cancelled).toMatchObject({ status: "cancelled", counts: { total: ENTRIES } });
    const before = await results(run.id);
    expect(before).toHaveLength(cancelled.counts.done);
    expect(before.length).toBeLessThan(ENTRIES);

    expect(await resume(run.id)).toMatchObject({ status: 202, body: { id: run.id, finished_at: null } });
    expect(await ended(run.id)).toMatchObject({
      status: "completed",
      counts: { succeeded: ENTRIES, failed: 0 },
    });
    const after = await results(run.id);
    expect(after.slice(0, before.length)).toEqual(before);
    expect(new Set(after.map(({ custom_id }) => custom_id)).size).toBe(ENTRIES);
    expect(after).toHaveLength(ENTRIES);
    expect(await resume(run.id)).toMatchObject({ status: 409, body: { code: "not_resumable" } });

    await until(() => told(run.id).length >= 2, "both webhooks");
    expect(told(run.id).map(({ event }) => event.type)).toEqual(["bulk.cancelled", "bulk.completed"]);
    expect(told(run.id)[1]!.event.data).toMatchObject({ status: "completed", counts: { done: ENTRIES } });
    expect(new Set(told(run.id).map(({ id }) => id)).size).toBe(2);
  });

  async function start(lines: object[], query: string) {
    const { status, body } = await runOf(`?model=Scripted&${query}`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: lines.map((line) => JSON.stringify(line)).join("\n"),
    });
    return { status, body: body as typeof body & { errors?: { key: string; problem: string }[] } };
  }

  test("gives up once more entries failed than may, notifies its webhook, and completes when it is resumed", async () => {
    const metadata = { order: "4711" };
    const lines = Array.from({ length: 200 }, (_, index) => ({
      request: { Fid: `f${index}`, Ms: 20, ...(index < 5 && { Do: "refuse" }) },
    }));
    const query = new URLSearchParams({
      max_failures: "2",
      metadata: JSON.stringify(metadata),
      webhook: receiver.url,
    });
    const { body: run } = await start(lines, String(query));
    expect(run).toMatchObject({ max_failures: 2, deadline: null, metadata });
    const failed = await ended(run.id);
    expect(failed).toMatchObject({ status: "failed", error: { code: "too_many_failures" }, metadata });
    expect(failed.counts.failed).toBeGreaterThan(2);
    expect(failed.counts.done).toBeLessThan(200);
    const before = await results(run.id);
    expect(before).toHaveLength(failed.counts.done);
    await until(() => told(run.id).length > 0, "the webhook");
    expect(told(run.id)[0]!.event).toMatchObject({
      type: "bulk.failed",
      data: { status: "failed", metadata, error: { code: "too_many_failures" } },
    });
    const found = await fetch(`${infermill.url}/v1/webhooks/deliveries?run=${run.id}`);
    expect(await found.json()).toMatchObject({ deliveries: [{ event: "bulk.failed", run: run.id }] });

    await resume(run.id);
    expect(await ended(run.id)).toMatchObject({
      status: "completed",
      error: null,
      counts: { done: 200, failed: 5 },
    });
    expect((await results(run.id)).slice(0, before.length)).toEqual(before);
  });

  test("gives up at its deadline, and has none any more when it is resumed", async () => {
    const lines = Array.from({ length: 400 }, () => ({ request: { Fid: "d", Ms: 100 } }));
    const { body: run } = await start(lines, "deadline=2");
    expect(Date.parse(run.deadline!)).toBe(Date.parse(run.created_at) + 2000);
    const failed = await ended(run.id);
    expect(failed).toMatchObject({ status: "failed", error: { code: "deadline_exceeded" } });
    expect(failed.counts.done).toBeGreaterThan(0);
    expect(Date.parse(failed.finished_at!) - Date.parse(run.deadline!)).toBeLessThan(3000);
    expect((await resume(run.id)).body).toMatchObject({ deadline: null });
    await until(
      async () => (await runOf(`/${run.id}`)).body.counts.done > failed.counts.done,
      "more results",
    );
    await runOf(`/${run.id}`, { method: "DELETE" });
  });

  test("is refused where its limits contradict each other, or ids that are to be unique are not", async () => {
    const line = { custom_id: "a", request: { Fid: "x" } };
    const { status, body } = await start([line, line], "unique_custom_ids=true");
    expect({ status, errors: body.errors }).toMatchObject({
      status: 422,
      errors: [{ key: "line 2: custom_id" }],
    });
    for (const query of [
      "fail_fast=true&max_failures=2",
      "deadline=yesterday",
      "metadata=[]",
      "max_failures=-1",
    ])
      expect([query, (await start([line], query)).status]).toEqual([query, 422]);
  });

  test("continues by the command line, which follows it to its end", async () => {
    for (let index = 0; index < 5; index++) writeFileSync(join(photos, `${index}.jpg`), "not read");
    const pid = processNamed(infermill.child.pid!, /main\.js coordinator$/);
    process.kill(pid, "SIGSTOP");
    const { body: run } = await runOf("", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model: "Scripted", folder: "photos", request: { Fid: "x" } }),
    });
    // What it is to walk is gone when the coordinator begins.
    rmSync(photos, { recursive: true });
    process.kill(pid, "SIGCONT");
    const failed = await ended(run.id);
    expect(failed).toMatchObject({ status: "failed", error: { code: "bad_input" } });

    mkdirSync(photos);
    for (let index = 0; index < 5; index++) writeFileSync(join(photos, `${index}.jpg`), "not read");
    const out = join(folder, "results.ndjson");
    const command = runInfermill(["bulk", "--resume", run.id, "--server", infermill.url, "--out", out]);
    expect({ ...(await command.exited), output: command.output() }).toMatchObject({ code: 0 });
    expect(command.output()).toContain("5 of 5 done: 5 succeeded");
    expect(await ended(run.id)).toMatchObject({ status: "completed", error: null });
  });

  test("that nobody knows is a 404", async () => {
    expect(await resume(`bulk_${"0".repeat(32)}`)).toMatchObject({
      status: 404,
      body: { code: "bulk_run_not_found" },
    });
  });
});
