import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { SCRIPTED_LOADER, startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("a member of a batch that fails", () => {
  let infermill: TestInfermill;
  const folder = mkdtempSync(join(tmpdir(), "infermill-marks-"));
  beforeAll(async () => {
    const scripted = {
      loader: "ScriptedModelLoader",
      model_loader_file: SCRIPTED_LOADER,
      instances: 1,
      timeout_ms: 2000,
    };
    infermill = await startInfermill({
      models: {
        Batched: { ...scripted, max_batch_size: 8, max_queue_delay_ms: 500 },
        Single: { ...scripted, max_batch_size: 1 },
        Limited: { ...scripted, max_batch_size: 1, timeout_ms: 1000 },
        Own: { ...scripted, max_batch_size: 2, max_queue_delay_ms: 500, timeout_ms: 60_000 },
        Retried: { ...scripted, attempts: 2, folder },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  /** Sends eight requests as one, of which the fourth does something else, and answers their predictions. */
  async function submitEight(model: string, special: object): Promise<Prediction[]> {
    const requests = Array.from({ length: 8 }, (_, index) => ({
      Fid: `${index}`,
      ...(index === 3 && special),
    }));
    const answer = await fetch(`${infermill.url}/v1/models/${model}/predictions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(requests),
    });
    const { predictions } = (await answer.json()) as { predictions: Prediction[] };
    return Promise.all(
      predictions.map(async ({ links }) => {
        const ended = await fetch(`${infermill.url}${links.self}?wait=60`);
        return (await ended.json()) as Prediction;
      }),
    );
  }

  function expectOnlyTheFourthToFail(predictions: Prediction[], error: object): void {
    expect(predictions.map(({ status }) => status)).toEqual(
      predictions.map((_, index) => (index === 3 ? "failed" : "succeeded")),
    );
    for (const [index, { result }] of predictions.entries()) {
      if (index !== 3) expect(result!.Fs[0]!.Lb).toBe(`${index}`);
    }
    expect(predictions[3]!.error).toMatchObject(error);
  }

  test("eight sound requests run as one batch", async () => {
    const predictions = await submitEight("Batched", {});
    expect(predictions.map(({ status, batch_size }) => [status, batch_size])).toEqual(
      predictions.map(() => ["succeeded", 8]),
    );
    expect(predictions.map(({ result }) => result!.Fs[0]!.Lb)).toEqual([
      "0",
      "1",
      "2",
      "3",
      "4",
      "5",
      "6",
      "7",
    ]);
  });

  test("fails alone when the loader throws on it", async () => {
    const predictions = await submitEight("Batched", { Do: "throw" });
    expectOnlyTheFourthToFail(predictions, { code: "loader_failed", detail: "told to throw" });
  });

  test("is told in the log with its stack, where it is no mistake of its client", async () => {
    await submit(infermill.url, "Single", { Do: "throw" });
    await submit(infermill.url, "Single", { Do: "refuse" });
    const [line] = await infermill.printed(/^.*prediction failed: loader_failed: told to throw.*$/m);
    expect(JSON.parse(line)).toMatchObject({
      level: 40,
      err: { stack: expect.stringContaining("scripted.ts") },
    });
    expect(infermill.output()).not.toContain("told to refuse");
  });

  test("fails alone when the loader refuses it, and the batch stays whole", async () => {
    const predictions = await submitEight("Batched", { Do: "refuse" });
    expectOnlyTheFourthToFail(predictions, { code: "bad_input", detail: "told to refuse" });
    expect(predictions[0]!.batch_size).toBe(8);
  });

  test("fails alone when the loader returns no dictionary for it", async () => {
    const predictions = await submitEight("Batched", { Do: "no dictionary" });
    expectOnlyTheFourthToFail(predictions, {
      code: "loader_failed",
      detail: "the loader must return a response dictionary, got 42",
    });
  });

  test("fails alone when the loader returns for it what JSON can't hold", async () => {
    const predictions = await submitEight("Batched", { Do: "no JSON" });
    expectOnlyTheFourthToFail(predictions, {
      code: "loader_failed",
      detail: "the response can't be written as JSON: Do not know how to serialize a BigInt",
    });
    expect(predictions[0]!.batch_size).toBe(8);
  });

  test("fails alone when the loader returns a wrong number of outcomes because of it", async () => {
    const predictions = await submitEight("Batched", { Do: "wrong count" });
    expectOnlyTheFourthToFail(predictions, {
      code: "loader_failed",
      detail: "predictRequests() must return an array of one outcome for each of its 1 requests, got 0",
    });
  });

  test("fails alone when it kills its engine", async () => {
    for (const model of ["Batched", "Single"]) {
      const predictions = await submitEight(model, { Do: "crash" });
      expectOnlyTheFourthToFail(predictions, { code: "engine_lost" });
      expect(predictions[3]!.error!.detail).toContain("was killed by SIGKILL while it ran");
    }
  });

  test("fails alone when it hangs for longer than timeout_ms", async () => {
    for (const model of ["Batched", "Single"]) {
      const predictions = await submitEight(model, { Do: "hang" });
      expectOnlyTheFourthToFail(predictions, { code: "timeout" });
    }
  });

  test("a request's own timeout_ms counts", async () => {
    const started = Date.now();
    const prediction = await submit(infermill.url, "Single", { Do: "hang" }, 60, "?timeout_ms=300");
    expect(prediction.error).toMatchObject({
      code: "timeout",
      detail: expect.stringContaining("timeout_ms of 300"),
    });
    expect(Date.now() - started).toBeLessThan(2000);
  });

  async function enginePid(model: string): Promise<number> {
    const answer = await fetch(`${infermill.url}/v1/models/${model}`);
    const { engines } = (await answer.json()) as { engines: { pid: number }[] };
    return engines[0]!.pid;
  }

  test("a request's own timeout_ms fails it alone and costs no engine", async () => {
    const pid = await enginePid("Own");
    const [hasty, patient] = await Promise.all([
      submit(infermill.url, "Own", { Fid: "hasty", Ms: 1000 }, 60, "?timeout_ms=1"),
      submit(infermill.url, "Own", { Fid: "patient", Ms: 1000 }),
    ]);
    expect(hasty.error).toMatchObject({ code: "timeout" });
    expect(patient).toMatchObject({ status: "succeeded", batch_size: 2 });
    expect(patient.result!.Fs[0]!.Lb).toBe("patient");
    const lone = await submit(infermill.url, "Own", { Ms: 100 }, 60, "?timeout_ms=1");
    expect(lone.error).toMatchObject({ code: "timeout" });
    process.kill(pid, 0);
    expect(await submit(infermill.url, "Own", { Fid: "next" })).toMatchObject({ status: "succeeded" });
  });

  test("a request's own timeout_ms lets a prediction hang for no longer than the model's", async () => {
    const hung = await submit(infermill.url, "Limited", { Do: "hang" }, 60, "?timeout_ms=2147483647");
    expect(hung.error).toMatchObject({
      code: "timeout",
      detail: expect.stringContaining("timeout_ms of 1000"),
    });
    await submit(infermill.url, "Limited", { Do: "hang" }, 60, "?timeout_ms=100");
    expect(await submit(infermill.url, "Limited", { Fid: "after" })).toMatchObject({ status: "succeeded" });
  });

  test("is tried again when its fault may pass, and not when it can't", async () => {
    const scripted = await submit(infermill.url, "Retried", { Fid: "f", Do: "retry once" });
    expect(scripted).toMatchObject({ status: "succeeded", attempts: 2 });
    expect(await submit(infermill.url, "Retried", { Do: "refuse" })).toMatchObject({
      status: "failed",
      attempts: 1,
    });
  });
});
