/** A bulk run that costs one coordinator after the other, and a coordinator that hangs. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import { send } from "../../support/api.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { createNames } from "../../../src/queue/names.ts";
import { startOwnRedis, type OwnRedis } from "../../support/ownRedis.ts";
import { processNamed } from "../../support/processes.ts";
import { whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("a run whose coordinator is lost", () => {
  let redis: OwnRedis;
  let infermill: TestInfermill;
  beforeAll(async () => {
    redis = await startOwnRedis();
    infermill = await startInfermill(
      {
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: SCRIPTED_LOADER,
            instances: 2,
            max_batch_size: 1,
            timeout_ms: 600_000,
          },
        },
      },
      { REDIS_URL: redis.url },
    );
  });
  afterAll(async () => {
    // Twice: the entry that never ends would be waited for.
    infermill?.child.kill("SIGINT");
    await sleep(500);
    await infermill?.stop();
    await redis?.close();
  });

  async function start(entries: { Fid: string; Ms: number }[]): Promise<string> {
    const lines = entries.map((request) => JSON.stringify({ request })).join("\n");
    const headers = { "Content-Type": "application/x-ndjson" };
    return (await send("POST", `${infermill.url}/v1/bulk?model=Scripted`, lines, headers)).body.id;
  }
  const read = async (id: string) => (await send("GET", `${infermill.url}/v1/bulk/${id}`)).body as BulkRun;
  const coordinator = () => processNamed(infermill.child.pid!, /main\.js coordinator/);

  test("again and again without an entry that ended fails as poisonous_run, and its neighbours go on", async () => {
    // No entry of it ends in the time of this test.
    const stuck = await start([{ Fid: "slow", Ms: 300_000 }]);
    const quick = await start(Array.from({ length: 3000 }, (_, index) => ({ Fid: `${index}`, Ms: 20 })));
    let killed = 0;
    let lastBegun: string | null = null;
    const ended = await until(
      async () => {
        const run = await read(stuck);
        if (run.status === "failed") return run;
        // Killed whenever it works on the run. The first may come as far as to the run's list, which is progress.
        const begun = await redis.admin.hget(createNames("infermill").bulkRun(stuck), "begun_at");
        if (begun !== null && begun !== lastBegun) {
          process.kill(coordinator(), "SIGKILL");
          lastBegun = begun;
          killed++;
        }
        return false;
      },
      "the end of the run that kills",
      150_000,
    );
    expect(ended.error).toMatchObject({ code: "poisonous_run" });
    expect(ended.error!.detail).toMatch(/^2 coordinators died or hung/);
    expect(killed).toBeGreaterThanOrEqual(2);
    await until(async () => (await read(quick)).counts.done > 0, "its neighbour");
    expect((await read(quick)).status).toMatch(/running|completed/);
    await send("DELETE", `${infermill.url}/v1/bulk/${quick}`);
  }, 200_000);

  test("is told by readiness while nobody takes it over", async () => {
    const id = await start(Array.from({ length: 500 }, (_, index) => ({ Fid: `${index}`, Ms: 100 })));
    await until(async () => (await read(id)).counts.done > 0, "some results");
    const pid = coordinator();
    process.kill(pid, "SIGSTOP");
    try {
      const problems = await until(
        async () => {
          const { status, body } = await send("GET", `${infermill.url}/health/ready`);
          return status === 503 && (body.problems as string[]).join();
        },
        "readiness",
        20_000,
      );
      expect(problems).toMatch(/no coordinator makes progress: \d bulk runs/);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await until(async () => (await fetch(`${infermill.url}/health/ready`)).ok, "ready again", 20_000);
    await send("DELETE", `${infermill.url}/v1/bulk/${id}`);
  }, 90_000);
});

test("a process whose event loop is blocked for too long is ended, with a line that says so", async () => {
  const watchdog = fileURLToPath(new URL("../../../dist/cli/watchdog.js", import.meta.url));
  const code = `import { watchEventLoop } from ${JSON.stringify(watchdog)};
watchEventLoop("test", 2000);
await new Promise((resolve) => setTimeout(resolve, 3000));
console.log("alive");
for (;;);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", code]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const [, signal] = await once(child, "exit");
  expect(signal).toBe("SIGKILL");
  expect(output).toMatch(/alive[^]*blocked for 2 s: ending the process/);
}, 20_000);
