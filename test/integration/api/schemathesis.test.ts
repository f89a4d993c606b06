/** Schemathesis against the api's own document: whatever the document allows, and much that it doesn't, is never a 500. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { createNames } from "../../../src/queue/names.ts";
import { publishWorkerReport, type WorkerReport } from "../../../src/queue/workerReports.ts";
import { consume, openRedis, startTestApi, type TestApi } from "../../support/api.ts";
import { hasPackage, pythonWithPackages } from "../../support/python.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const whyNot =
  whyNoRedis ??
  (hasPackage("schemathesis") ? undefined : "no Schemathesis; scripts/makePythonVenv.sh installs it");
const SEED = 13;
const EXAMPLES = 4;
/** Of a run that takes some 20 s on a quiet machine. */
const LIMIT_S = 40;

describe.skipIf(whyNot)("Schemathesis", () => {
  let redis: RedisServer;
  let api: TestApi;
  let worker: { close(): Promise<void> };
  let connection: Redis;
  let heartbeat: NodeJS.Timeout;
  const folder = mkdtempSync(join(tmpdir(), "schemathesis-"));

  beforeAll(async () => {
    redis = await startTestRedis();
    api = await startTestApi(redis.url, { sync_timeout_ms: 200, bulk_roots: { photos: folder } });
    worker = consume(redis.url, api.config, "Echo", async () => ({}));
    // A worker reports itself, so that no call ends at "no live worker".
    connection = openRedis(redis.url);
    const report = () =>
      publishWorkerReport(connection, createNames(api.config.redis_prefix), workerReport());
    await report();
    heartbeat = setInterval(() => void report(), 2000);
  });
  afterAll(async () => {
    clearInterval(heartbeat);
    connection?.disconnect();
    await worker?.close();
    await api?.close();
    await redis?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test("finds no 500 in seeded cases of every operation", async () => {
    // Known names, so that the cases get further than to the 404 of an unknown model.
    const config = join(folder, "schemathesis.toml");
    writeFileSync(config, '[parameters]\n"path.model" = "Echo"\n"path.Model" = "Echo"\n');
    const options = [
      ["--seed", String(SEED), "--max-examples", String(EXAMPLES), "--max-time", String(LIMIT_S)],
      ["--phases", "examples,coverage,fuzzing,stateful", "--checks", "not_a_server_error"],
      ["--workers", "2", "--request-timeout", "10", "--continue-on-failure", "--no-shrink", "--no-color"],
      ["--generation-database", "none", "--warnings", "off", "--suppress-health-check", "all"],
      // Streams that end with what they follow.
      ["--exclude-path-regex", "/events$"],
    ];
    const program = ["-m", "schemathesis.cli", "--config-file", config, "run", `${api.url}/openapi.json`];
    const args = [...program, ...options.flat()];
    const { code, output } = await new Promise<{ code: number; output: string }>((resolve) => {
      const limits = { cwd: folder, maxBuffer: 64 * 1024 ** 2 };
      execFile(`${pythonWithPackages}/bin/python`, args, limits, (error, stdout, stderr) =>
        resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr }),
      );
    });
    const cases = Number(/(\d+) generated/.exec(output)?.[1] ?? 0);
    expect(cases, output.slice(-3000)).toBeGreaterThan(200);
    // 503 and 504 are answers; Redis and the worker are there, so that neither is expected of more than waits.
    const serverErrors = [...output.matchAll(/Server error[^]*?\[(5\d\d)\]/g)].map(([, status]) => status);
    expect(
      serverErrors.filter((status) => status === "500"),
      output.slice(-6000),
    ).toEqual([]);
    expect([0, 1], output.slice(-3000)).toContain(code);
  }, 120_000);
});

function workerReport(): WorkerReport {
  const model = {
    engines: [{ id: "Echo/0", device: "cpu", state: "ready" as const, pid: 7, restarts: 0, error: null }],
    description: { labels: ["cat"], picture: "optional" as const },
    batch_limit: 8,
    capacity: 32,
    held: 0,
    stuck_ms: 0,
    totals: {
      batches: 4,
      predictions: 10,
      succeeded: 9,
      failed: 1,
      timings: { queue_ms: 1, read_ms: 1, preprocess_ms: 1, infer_ms: 1, postprocess_ms: 1 },
    },
  };
  const started_at = new Date().toISOString();
  return { id: "w1", pid: 1, host: "h", started_at, models: { Echo: model, Tiny: model } };
}
