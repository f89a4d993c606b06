import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import {
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const ENTRIES = 400;
const BATCH_MS = 60;
const BATCH_SIZE = 4;
/** Entries that a worker holds for its engine at a time, and as many again. */
const HELD_MS = (4 * 2 * BATCH_SIZE * BATCH_MS) / BATCH_SIZE;

describe.skipIf(whyNoRedis)("while a bulk run continues", () => {
  let infermill: TestInfermill;
  beforeAll(async () => {
    infermill = await startInfermill({
      models: {
        Scripted: {
          loader: "ScriptedModelLoader",
          model_loader_file: SCRIPTED_LOADER,
          instances: 1,
          max_batch_size: BATCH_SIZE,
          max_queue_length: 5,
        },
      },
    });
  });
  afterAll(() => infermill?.stop());

  async function startRun(): Promise<BulkRun> {
    const lines = Array.from({ length: ENTRIES }, (_, index) =>
      JSON.stringify({ request: { Fid: `${index}`, Ms: BATCH_MS } }),
    );
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Scripted`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: lines.join("\n"),
    });
    return (await answer.json()) as BulkRun;
  }

  const read = async ({ links }: BulkRun) =>
    (await (await fetch(infermill.url + links.self)).json()) as BulkRun;

  test("lone predictions go before its entries, and max_queue_length counts only them", async () => {
    const run = await startRun();
    await until(async () => (await read(run)).counts.done > 0, "the first results");
    const waits: number[] = [];
    for (let index = 0; index < 15; index++) {
      const startedAt = performance.now();
      const prediction = await submit(infermill.url, "Scripted", { Fid: `lone ${index}`, Ms: 1 });
      waits.push(performance.now() - startedAt);
      expect(prediction.result!.Fs[0]!.Lb).toBe(`lone ${index}`);
    }
    const { status, counts } = await read(run);
    expect(status).toBe("running");
    expect(counts.done).toBeLessThan(ENTRIES);
    // In the order of arrival each would wait for all that the worker holds.
    expect(waits.toSorted((a, b) => a - b)[7]).toBeLessThan(HELD_MS);
    const ended = await until(async () => {
      const now = await read(run);
      return now.status === "completed" && now;
    }, "the end of the run");
    expect(ended.counts).toMatchObject({ succeeded: ENTRIES, failed: 0 });
  });

  test("a cancelled run keeps what is done, writes down what ran, and begins nothing more", async () => {
    const run = await startRun();
    await until(async () => (await read(run)).counts.done > 20, "some results");
    const cancelled = (await (
      await fetch(infermill.url + run.links.cancel, { method: "DELETE" })
    ).json()) as BulkRun;
    expect(cancelled.status).toBe("cancelled");
    expect(cancelled.counts.done).toBeGreaterThan(20);
    expect(cancelled.counts.done).toBeLessThan(ENTRIES);
    const text = await (await fetch(infermill.url + run.links.results)).text();
    expect(text.trim().split("\n")).toHaveLength(cancelled.counts.done);
    const model = (await (await fetch(`${infermill.url}/v1/models/Scripted`)).json()) as {
      totals: { predictions: number };
    };
    await submit(infermill.url, "Scripted", { Fid: "after", Ms: 1 });
    const later = (await (await fetch(`${infermill.url}/v1/models/Scripted`)).json()) as typeof model;
    expect(later.totals.predictions - model.totals.predictions).toBeLessThan(ENTRIES / 2);
  });
});
