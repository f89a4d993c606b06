/** A pool of engines by itself: what becomes of predictions when engines are given up, don't start or must stop. */
import { findingsOf } from "../../../src/imil/response.ts";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { configSchema } from "../../../src/config/schema.ts";
import { PredictionExpiredError } from "../../../src/errors.ts";
import { PRIORITIES } from "../../../src/core/prediction.ts";
import type { Member } from "../../../src/engines/protocol.ts";
import { planEngines } from "../../../src/worker/enginePlan.ts";
import { EnginePool, NotStartedError, type EngineResult } from "../../../src/worker/enginePool.ts";
import { SCRIPTED_LOADER } from "../../support/infermill.ts";

describe("an engine pool", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-pool-"));
  const journal = join(folder, "journal");
  let pool: EnginePool;
  let timeoutMs: number;
  // The engines run from the sources, as this process does.
  beforeAll(() => vi.stubEnv("NODE_OPTIONS", "--import tsx"));
  afterEach(async () => {
    await pool.close(0);
    rmSync(journal, { force: true });
  });
  afterAll(() => {
    vi.unstubAllEnvs();
    rmSync(folder, { recursive: true });
  });

  function startPool(settings: Record<string, unknown> = {}): void {
    const model = {
      loader: "ScriptedModelLoader",
      model_loader_file: SCRIPTED_LOADER,
      instances: 1,
      journal,
      ...settings,
    };
    const config = { ...configSchema.parse({ models: { Scripted: model } }), file: join(folder, "c.json") };
    const { max_batch_size: maxBatchSize, timeout_ms } = config.models["Scripted"]!;
    timeoutMs = timeout_ms;
    pool = new EnginePool({
      modelName: "Scripted",
      specs: planEngines(config, ["Scripted"]).get("Scripted")!,
      maxBatchSize,
      maxQueueDelayMs: 0,
      readStored: (members) => members as Member[],
      log: pino({ level: "silent" }),
    });
  }

  function run(request: Record<string, unknown>, expiresAt?: number): Promise<EngineResult> {
    return pool.run({
      id: String(request["Fid"]),
      request,
      inputs: [],
      priority: PRIORITIES.normal,
      timeoutMs,
      expiresAt,
    });
  }

  test("outcomes that arrive when their engine was given up count, and nothing runs a second time", async () => {
    startPool({ timeout_ms: 1000, max_batch_size: 2 });
    await pool.loaded;
    const both = Promise.all([run({ Fid: "a", Ms: 50 }), run({ Fid: "b" })]);
    // The outcomes wait in the pipe while this process is busy until the engine's time is over.
    setTimeout(
      () => setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1100)),
      10,
    );
    expect((await both).map(({ response }) => findingsOf(response)[0]!.Lb)).toEqual(["a", "b"]);
    await run({ Fid: "c" });
    expect(pool.report()).toMatchObject({ held: 0, engines: [{ restarts: 1 }] });
    expect(readFileSync(journal, "utf8")).toBe("a b\nc\n");
  });

  test("what still runs when the pool's time to close is over is given back at once", async () => {
    startPool();
    await pool.loaded;
    const hung = run({ Do: "hang" }).catch((error: unknown) => error);
    await vi.waitUntil(() => existsSync(journal), 20_000);
    const startedAt = Date.now();
    await pool.close(100);
    expect(Date.now() - startedAt).toBeLessThan(4000);
    expect(await hung).toBeInstanceOf(NotStartedError);
  });

  test("an engine that could not be started is tried again", async () => {
    const program = process.execPath;
    process.execPath = join(folder, "none");
    startPool();
    process.execPath = program;
    await pool.loaded;
    expect(pool.report()).toMatchObject({ engines: [{ restarts: 1 }] });
  });

  test("a request that can't be sent to an engine fails alone", async () => {
    startPool();
    await pool.loaded;
    const outcomes = await Promise.allSettled([
      run({ Fid: "a" }),
      // As one that is longer than a string may be, which takes half a gigabyte.
      run({ Fid: "b", Text: 1n }),
      run({ Fid: "c" }),
    ]);
    expect(outcomes).toMatchObject([
      { value: { response: { Fid: "a" } } },
      { reason: { code: "bad_input", message: expect.stringContaining("can't be sent to an engine: ") } },
      { value: { response: { Fid: "c" } } },
    ]);
    expect(pool.report()).toMatchObject({ held: 0, engines: [{ restarts: 0 }] });
  });

  test("a prediction that no engine takes within its ttl_ms expires there and then, and never runs", async () => {
    startPool({ max_batch_size: 1 });
    await pool.loaded;
    let isOver = false;
    const long = Promise.all([run({ Fid: "long", Ms: 1000 }), run({ Fid: "behind" })]).then(
      () => (isOver = true),
    );
    await expect(run({ Fid: "late" }, Date.now() + 200)).rejects.toThrow(PredictionExpiredError);
    expect(isOver).toBe(false);
    await run({ Fid: "in time" }, Date.now() + 60_000);
    await long;
    expect(readFileSync(journal, "utf8")).toBe("long\nbehind\nin time\n");
    expect(pool.report().totals).toMatchObject({ predictions: 3, failed: 0 });
  });
});
