import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkResult } from "../../support/answers.ts";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { processNamed } from "../../support/processes.ts";
import { whyNoRedis } from "../../support/redis.ts";

const ENTRIES = 1500;

describe.skipIf(whyNoRedis)("a bulk run", () => {
  let infermill: TestInfermill;
  const folder = mkdtempSync(join(tmpdir(), "infermill-journal-"));
  const journal = join(folder, "journal.txt");
  beforeAll(async () => {
    infermill = await startInfermill({
      models: {
        Scripted: {
          loader: "ScriptedModelLoader",
          model_loader_file: SCRIPTED_LOADER,
          instances: 2,
          max_batch_size: 4,
          journal,
        },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  async function read(id: string): Promise<BulkRun> {
    return (await (await fetch(`${infermill.url}/v1/bulk/${id}`)).json()) as BulkRun;
  }

  async function results(id: string, query = ""): Promise<BulkResult[]> {
    const text = await (await fetch(`${infermill.url}/v1/bulk/${id}/results${query}`)).text();
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as BulkResult);
  }

  test("continues when worker, coordinator and Redis are killed one after the other: no line is missing or doubled", async () => {
    const manifest = Array.from({ length: ENTRIES }, (_, index) =>
      JSON.stringify({ custom_id: `c${index}`, request: { Fid: `c${index}`, Ms: 20 } }),
    ).join("\n");
    const answer = await fetch(`${infermill.url}/v1/bulk?model=Scripted`, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson" },
      body: manifest,
    });
    expect(answer.status).toBe(202);
    const { id } = (await answer.json()) as BulkRun;

    const kill = async (share: number, pattern: RegExp) => {
      await until(async () => {
        // Redis may just be away.
        const run = await read(id).catch(() => undefined);
        return (run?.counts?.done ?? 0) > share * ENTRIES;
      }, `${share}`);
      process.kill(processNamed(infermill.child.pid!, pattern), "SIGKILL");
    };
    await kill(0.3, /main\.js worker$/);
    await kill(0.5, /main\.js coordinator$/);
    await kill(0.7, /redis-server/);
    const ended = await until(
      async () => {
        const run = await read(id).catch(() => undefined);
        return run?.status === "completed" && run;
      },
      "the end of the run",
      120_000,
    );
    expect(ended.counts).toEqual({ total: ENTRIES, done: ENTRIES, succeeded: ENTRIES, failed: 0 });

    const lines = await results(id);
    expect(lines.map(({ line }) => line)).toEqual(Array.from({ length: ENTRIES }, (_, index) => index + 1));
    expect(lines.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: ENTRIES }, (_, index) => index),
    );
    for (const { index, custom_id, status, result } of lines) {
      expect({ custom_id, status, label: result!.Fs[0]!.Lb }).toEqual({
        custom_id: `c${index}`,
        status: "succeeded",
        label: `c${index}`,
      });
    }
    // Entries that were under way at a kill may run again, finished ones don't.
    const ran = readFileSync(journal, "utf8").split(/\s+/).filter(Boolean);
    expect(ran.length).toBeLessThan(ENTRIES * 1.3);
    expect(await results(id, "?after=1490")).toEqual(lines.slice(1490));
  }, 240_000);
});
