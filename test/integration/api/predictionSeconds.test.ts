/** What the metrics tell of the time that predictions took, against what the predictions themselves tell. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SCRIPTED_LOADER, startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("the seconds of predictions", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    infermill = await startInfermill({
      models: { Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER } },
    });
  });
  afterAll(() => infermill?.stop());

  async function secondsOf(phase: string): Promise<number> {
    const text = await (await fetch(`${infermill.url}/metrics`)).text();
    const line = new RegExp(`^infermill_prediction_seconds_total\\{.*phase="${phase}".*\\} (.+)$`, "m");
    return Number(line.exec(text)?.[1]);
  }

  test("are the sums of the timings of those that succeeded", async () => {
    const predictions = await Promise.all([
      ...[200, 300, 400].map((Ms) => submit(infermill.url, "Scripted", { Fid: "1", Ms })),
      submit(infermill.url, "Scripted", { Fid: "2", Do: "refuse", Ms: 100 }),
    ]);
    const succeeded = predictions.filter(({ status }) => status === "succeeded");
    expect(succeeded).toHaveLength(3);
    for (const phase of ["queue", "infer"] as const) {
      const seconds = succeeded.reduce((sum, { timings }) => sum + timings![`${phase}_ms`] / 1000, 0);
      expect(seconds).toBeGreaterThan(0);
      await expect.poll(() => secondsOf(phase)).toBeCloseTo(seconds, 3);
    }
  });
});
