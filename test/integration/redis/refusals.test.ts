/** Redis servers that answer, and refuse: after a failover, for want of permission, of disk, of a password. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connectRedis } from "../../../src/redis/connections.ts";
import { provideRedis } from "../../../src/redis/provideRedis.ts";
import { send, startTestApi } from "../../support/api.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { freePort } from "../../support/freePort.ts";
import { startOwnRedis, type OwnRedis } from "../../support/ownRedis.ts";
import { whyNoRedis } from "../../support/redis.ts";

const REFUSED_MS = 4000;

describe.skipIf(whyNoRedis)("when Redis refuses", () => {
  let redis: OwnRedis;
  let infermill: TestInfermill;
  const folder = mkdtempSync(join(tmpdir(), "refusing-redis-"));

  beforeAll(async () => {
    redis = await startOwnRedis({ save: "3600 1", appendonly: "no" }, { folder });
    infermill = await startInfermill(
      { models: { Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER } } },
      { REDIS_URL: redis.url },
    );
  });
  afterAll(async () => {
    await infermill?.stop();
    await redis?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Puts a load on, lets Redis refuse for some seconds, and looks at what everybody says and writes. */
  async function refuseFor(refuse: () => Promise<unknown>, allow: () => Promise<unknown>, reason: RegExp) {
    const url = `${infermill.url}/v1/models/Scripted/predictions`;
    const accepted = await Promise.all(
      Array.from({ length: 20 }, (_, index) => send("POST", url, { Fid: `${index}`, Ms: 100 })),
    );
    const written = infermill.output().length;
    await refuse();
    const statuses = new Set<number>();
    const deadline = Date.now() + REFUSED_MS;
    while (Date.now() < deadline) {
      const { status, body, headers } = await send("POST", url, {});
      statuses.add(status);
      if (status !== 202) {
        expect(body.code).toBe("redis_refused");
        expect(body.detail).toMatch(reason);
        expect(Number(headers.get("Retry-After"))).toBeGreaterThan(0);
      }
      await sleep(50);
    }
    expect(statuses).toEqual(new Set([503]));
    const lines = infermill.output().slice(written).split("\n").length;
    await allow();
    expect(lines).toBeLessThan(30);
    for (const { body } of accepted) {
      const ended = await until(async () => {
        const { body: prediction } = await send("GET", `${url}/${body.id}`);
        return ["succeeded", "failed"].includes(prediction.status) && prediction;
      }, "the end of what was accepted");
      expect(ended).toMatchObject({ status: "succeeded", attempts: expect.any(Number) });
    }
    expect((await submit(infermill.url, "Scripted", { Fid: "after" })).status).toBe("succeeded");
  }

  test("after a failover made it a replica: 503 with the reason, few lines, and all goes on afterwards", async () => {
    const port = await freePort();
    await refuseFor(
      async () => redis.admin.replicaof("127.0.0.1", port),
      async () => redis.admin.replicaof("NO", "ONE"),
      /read-only replica/,
    );
  });

  test("because it can't save its data (MISCONF): the same", async () => {
    await refuseFor(
      async () => {
        // A snapshot can't take the place of a folder.
        rmSync(join(folder, "dump.rdb"), { force: true });
        mkdirSync(join(folder, "dump.rdb", "taken"), { recursive: true });
        await redis.admin.bgsave().catch(() => {});
        await until(
          async () => (await redis.admin.info("persistence")).includes("last_bgsave_status:err"),
          "a snapshot that failed",
        );
      },
      async () => {
        rmSync(join(folder, "dump.rdb"), { recursive: true });
        await redis.admin.config("SET", "stop-writes-on-bgsave-error", "no");
      },
      /can't write its data to disk/,
    );
  });

  test("because it lacks the scripts that it had (SCRIPT FLUSH, another master): it gets them again, nothing is refused", async () => {
    const submitTwo = async () => {
      const answer = await fetch(`${infermill.url}/v1/models/Scripted/predictions`, {
        method: "POST",
        headers: { "Content-Type": "application/x-ndjson" },
        body: '{"Fid":"1"}\n{"Fid":"2"}\n',
      });
      const body = (await answer.json()) as { predictions: { status: string }[] };
      return { code: answer.status, each: body.predictions?.map(({ status }) => status) };
    };
    const accepted = { code: 202, each: ["queued", "queued"] };
    expect(await submitTwo()).toEqual(accepted);
    await redis.admin.script("FLUSH");
    expect(await submitTwo()).toEqual(accepted);
  });

  test("a user without permission gets 503 with the reason, and readiness says it", async () => {
    await redis.admin.call(
      "ACL",
      "SETUSER",
      "half",
      "on",
      ">secret",
      "~*",
      "&*",
      "+@all",
      "-zadd",
      "-mget",
      "-hset",
      "-zcount",
    );
    const api = await startTestApi(redis.url.replace("//", "//half:secret@"));
    try {
      const { status, body } = await send("POST", api.predictions(), {});
      expect({ status, code: body.code }).toEqual({ status: 503, code: "redis_refused" });
      expect(body.detail).toMatch(/ACL forbids the command to this user .*nothing was accepted/);
      const ready = await send("GET", `${api.url}/health/ready`);
      expect([ready.status, ready.body.problems]).toEqual([
        503,
        [expect.stringMatching(/^Redis refuses commands: its ACL forbids the command to this user/)],
      ]);
    } finally {
      await api.close();
    }
  });

  test("a wrong password is told at once, and not waited for", async () => {
    await redis.admin.call("ACL", "SETUSER", "known", "on", ">right", "~*", "&*", "+@all");
    const startedAt = Date.now();
    await expect(
      connectRedis({ url: redis.url.replace("//", "//known:wrong@"), tls: undefined }, "worker"),
    ).rejects.toThrow(/refuses the connection \(WRONGPASS.*correct user name and password/);
    expect(Date.now() - startedAt).toBeLessThan(5000);
  });

  test("--strict refuses a Redis that evicts or keeps no append-only file, with the commands that change it", async () => {
    await redis.admin.config("SET", "maxmemory-policy", "allkeys-lru");
    const config = join(infermill.folder, "infermill.json");
    const strict = runInfermill(["api", "--strict", "--config", config], { env: { REDIS_URL: redis.url } });
    expect((await strict.exited).code).toBe(1);
    expect(strict.output()).toMatch(
      /CONFIG SET maxmemory-policy noeviction[^]*CONFIG SET appendonly yes[^]*--strict/,
    );
    await redis.admin.config("SET", "maxmemory-policy", "noeviction");
  });
});

describe.skipIf(whyNoRedis)("a node of a Redis Cluster", () => {
  test("is refused at the start where it is named as a single server", async () => {
    const redis = await startOwnRedis({ "cluster-enabled": "yes" });
    const folder = mkdtempSync(join(tmpdir(), "cluster-node-"));
    try {
      await expect(provideRedis({ redisUrl: redis.url, dataDir: folder, env: {} })).rejects.toThrow(
        /is a node of a Redis Cluster/,
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
      await redis.close();
    }
  });
});
