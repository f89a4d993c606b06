/** `infermill status`, of a server and of the Redis of a configuration. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const API_KEY = "0123456789abcdef";

describe.skipIf(whyNoRedis)("infermill status", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-status-"));
  let infermill: TestInfermill;
  beforeAll(async () => {
    const broken = join(folder, "broken.onnx");
    writeFileSync(broken, "no model");
    infermill = await startInfermill({
      api_keys: [API_KEY],
      models: {
        Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 },
        Broken: { loader: "YoloModelLoader", model_path: [broken], class_names: ["a"] },
      },
    });
    const headers = { Authorization: `Bearer ${API_KEY}`, "Content-Type": "application/json" };
    await fetch(`${infermill.url}/v1/models/Scripted/predictions`, {
      method: "POST",
      headers: { ...headers, Prefer: "wait=30" },
      body: "{}",
    });
    await fetch(`${infermill.url}/v1/bulk?model=Scripted`, {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/x-ndjson" },
      body: '{"custom_id":"a"}\n{"custom_id":"b"}',
    });
    await until(async () => {
      const answer = await fetch(`${infermill.url}/v1/bulk`, { headers });
      const { runs } = (await answer.json()) as { runs: { status: string }[] };
      return runs[0]?.status === "completed";
    }, "the bulk run ends");
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  const config = () => join(infermill.folder, "infermill.json");
  const run = async (args: string[], env: NodeJS.ProcessEnv = {}) => {
    const command = runInfermill(["status", ...args], { env });
    const { code } = await command.exited;
    return { code, output: command.output() };
  };

  test("shows models with what to do about those that failed, runs and webhooks, the same by the server and by its Redis", async () => {
    const byServer = await run(["--server", infermill.url], { INFERMILL_API_KEY: API_KEY });
    const byRedis = await run(["--config", config()]);
    for (const { code, output } of [byServer, byRedis]) {
      expect(code, output).toBe(1);
      expect(output).toMatch(/^MODEL +STATE +ENGINES +WAITING +OLDEST +RUNNING +RATE +P50 +P95 +BATCH$/m);
      expect(output).toMatch(/^Scripted +ready +1\/1 cpu +0 +- +0 /m);
      expect(output).toMatch(/^Broken +failed +0\/\d cpu /m);
      expect(output).toMatch(/^Broken: .*broken\.onnx.*; fix what the reason names/m);
      expect(output).toMatch(/^bulk_[0-9a-f]{32} +completed +2\/2 +0 +\S+ +- +Scripted +a manifest$/m);
      expect(output).toMatch(/^webhooks: 0 dead, 0 pending$/m);
    }
  });

  test("prints JSON, and watches until Ctrl-C", async () => {
    const { output } = await run(["--server", infermill.url, "--json"], { INFERMILL_API_KEY: API_KEY });
    const { models, bulk_runs, webhooks } = JSON.parse(output);
    expect(models.map(({ name, state }: { name: string; state: string }) => [name, state])).toEqual([
      ["Scripted", "ready"],
      ["Broken", "failed"],
    ]);
    expect(bulk_runs).toHaveLength(1);
    expect(webhooks).toMatchObject({ failed: 0, pending: 0 });

    const watching = runInfermill(["status", "--watch", "--server", infermill.url], {
      env: { INFERMILL_API_KEY: API_KEY },
    });
    await watching.printed(/(MODEL[^]*){2}/);
    watching.child.kill("SIGINT");
    expect(await watching.exited).toEqual({ code: 0, signal: null });
  });

  test("says what is wrong with its call or with the server", async () => {
    expect(await run(["--server", infermill.url])).toMatchObject({
      code: 2,
      output: expect.stringMatching(/set INFERMILL_API_KEY/),
    });
    expect((await run(["--server", "here"])).code).toBe(2);
    expect((await run(["--server", infermill.url, "--config", config()])).code).toBe(2);
    const away = await run(["--server", "http://127.0.0.1:9"]);
    expect(away).toMatchObject({ code: 1, output: expect.stringMatching(/^infermill: .*can't be reached/) });
  });
});
