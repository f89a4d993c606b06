/** A disk without room: of the data folder, in the middle of uploads and of a bulk run. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { BulkRun } from "../../../src/core/bulkRun.ts";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { send, startTestApi } from "../../support/api.ts";
import { SCRIPTED_LOADER, startInfermill, until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const whyNoTmpfs = canMount() ? undefined : "may mount no tmpfs here";

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "tmpfs-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], { stdio: "pipe" });
    execFileSync("umount", [folder]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.skipIf(whyNoRedis)("a disk that", () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startTestRedis();
  });
  afterAll(async () => {
    await redis?.close();
  });

  test("has only min_free_disk_bytes left takes no upload and no bulk run, and readiness says so", async () => {
    const api = await startTestApi(redis.url, { min_free_disk_bytes: 1e15 });
    try {
      const upload = await fetch(api.predictions(), {
        method: "POST",
        headers: { "Content-Type": "image/jpeg" },
        body: "a picture",
      });
      const body = (await upload.json()) as { code: string; detail: string };
      expect([upload.status, body.code]).toEqual([507, "disk_full"]);
      expect(body.detail).toMatch(
        /MiB left, and .* are kept free \(min_free_disk_bytes\); nothing was accepted/,
      );
      expect(Number(upload.headers.get("Retry-After"))).toBeGreaterThan(0);
      const headers = { "Content-Type": "application/x-ndjson" };
      const run = await send("POST", `${api.url}/v1/bulk?model=Echo`, "{}", headers);
      expect([run.status, run.body.code]).toEqual([507, "disk_full"]);
      // Without a file it needs no disk.
      expect((await send("POST", api.predictions(), {})).status).toBe(202);
      const ready = await send("GET", `${api.url}/health/ready`);
      expect(ready.body.problems.join()).toContain("no upload is accepted: the disk of data_dir has");
      expect(await (await fetch(`${api.url}/metrics`)).text()).toMatch(/infermill_disk_free_bytes \d+/);
    } finally {
      await api.close();
    }
  });

  describe.skipIf(whyNoTmpfs)("is full", () => {
    const folder = mkdtempSync(join(tmpdir(), "small-disk-"));
    beforeAll(() => {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]);
    });
    afterAll(() => {
      execFileSync("umount", [folder]);
      rmSync(folder, { recursive: true, force: true });
    });

    function fill(): void {
      try {
        writeFileSync(join(folder, "filler"), Buffer.alloc(8 * 1024 * 1024));
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
      }
    }
    const free = () => rmSync(join(folder, "filler"));

    test("answers 507 for uploads and bulk runs, leaves no part of them, and takes them again", async () => {
      const data_dir = join(folder, "api");
      const api = await startTestApi(redis.url, { data_dir, min_free_disk_bytes: 0 });
      try {
        const upload = () =>
          fetch(api.predictions(), {
            method: "POST",
            headers: { "Content-Type": "image/jpeg" },
            body: new Uint8Array(300_000),
          });
        expect((await upload()).status).toBe(202);
        const [name] = await api.storedInputs();
        const path = join(data_dir, "inputs", name!.slice(-4, -2), name!);
        expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
        expect((statSync(join(path, "..")).mode & 0o777).toString(8)).toBe("700");

        fill();
        const refused = await upload();
        expect([refused.status, ((await refused.json()) as { detail: string }).detail]).toEqual([
          507,
          expect.stringContaining("ENOSPC"),
        ]);
        const headers = { "Content-Type": "application/x-ndjson" };
        const lines = `${JSON.stringify({ custom_id: "c".repeat(500) })}\n`.repeat(200);
        const run = await send("POST", `${api.url}/v1/bulk?model=Echo`, lines, headers);
        expect([run.status, run.body.code]).toEqual([507, "disk_full"]);
        expect(await api.storedInputs()).toEqual([name]);
        free();
        expect((await upload()).status).toBe(202);
      } finally {
        await api.close();
      }
    });

    test("lets a bulk run wait, which then has each of its lines once", async () => {
      const infermill = await startInfermill(
        {
          data_dir: join(folder, "data"),
          min_free_disk_bytes: 0,
          models: {
            Scripted: {
              loader: "ScriptedModelLoader",
              model_loader_file: SCRIPTED_LOADER,
              instances: 1,
              max_batch_size: 1,
            },
          },
        },
        { REDIS_URL: redis.url },
      );
      try {
        const lines = Array.from({ length: 300 }, (_, index) =>
          JSON.stringify({ request: { Fid: `${index}`, Ms: 10 } }),
        );
        const headers = { "Content-Type": "application/x-ndjson" };
        const url = `${infermill.url}/v1/bulk`;
        const { body } = await send("POST", `${url}?model=Scripted`, lines.join("\n"), headers);
        const read = async () => (await send("GET", `${url}/${body.id}`)).body as BulkRun;
        await until(async () => (await read()).counts.done > 10, "some results");
        fill();
        await infermill.printed(/the bulk run has to wait: the disk of data_dir is full \(ENOSPC\)/, 20_000);
        await sleep(1000);
        free();
        const ended = await until(async () => {
          const run = await read();
          return run.status === "completed" && run;
        }, "its end");
        expect(ended.counts).toEqual({ total: 300, done: 300, succeeded: 300, failed: 0 });
        const results = readFileSync(join(folder, "data", "bulk", body.id, "results.ndjson"), "utf8");
        const indices = results
          .trim()
          .split("\n")
          .map((line) => (JSON.parse(line) as { index: number }).index);
        expect(indices.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 300 }, (_, index) => index));
      } finally {
        await infermill.stop();
      }
    }, 90_000);
  });
});
