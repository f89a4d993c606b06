/** Clients that hold connections: with bodies that hardly come, and with none at all. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { send, startTestApi } from "../../support/api.ts";
import { MAIN, until } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("connections", () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startTestRedis();
  });
  afterAll(async () => {
    await redis?.close();
  });

  /** A connection that sends this, and what came back on it. */
  function open(url: string, text: string): { socket: Socket; answer: () => string; closed: Promise<void> } {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    let answer = "";
    socket.on("data", (chunk) => (answer += chunk));
    socket.on("error", () => {});
    socket.write(text);
    return {
      socket,
      answer: () => answer,
      closed: new Promise((resolve) => socket.once("close", () => resolve())),
    };
  }

  const head = (path: string, length: number, type: string) =>
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ${type}\r\nContent-Length: ${length}\r\n\r\n`;

  test("a body that trickles is cut with 408, and its slot is free again; one that comes fast enough is not", async () => {
    const api = await startTestApi(redis.url, { min_upload_bytes_per_second: 1000 });
    const path = "/v1/models/Tiny/predictions";
    const slow = ["image/jpeg", "application/json"].map((type) => open(api.url, head(path, 100_000, type)));
    const steady = open(api.url, head("/v1/models/Echo/predictions", 60_000, "image/jpeg"));
    const trickle = setInterval(() => {
      for (const { socket } of slow) if (socket.writable) socket.write("x");
      if (steady.socket.writable) steady.socket.write("x".repeat(1000));
    }, 250);
    try {
      await Promise.all(slow.map(({ closed }) => closed));
      for (const { answer } of slow) {
        expect(answer()).toMatch(/^HTTP\/1.1 408 .*"code":"body_too_slow"/s);
        expect(answer()).toContain("min_upload_bytes_per_second");
      }
      await until(() => steady.answer().includes("202 Accepted"), "the steady upload");
      expect(await api.storedInputs()).toHaveLength(1);
      const accepted = await Promise.all([1, 2].map(() => send("POST", api.predictions("Tiny"), {})));
      expect(accepted.map(({ status }) => status)).toEqual([202, 202]);
    } finally {
      clearInterval(trickle);
      for (const { socket } of [...slow, steady]) socket.destroy();
      await api.close();
    }
  }, 60_000);

  test("with few file descriptors a flood of them leaves probes their answers, and the rest 503", async () => {
    const folder = mkdtempSync(join(tmpdir(), "few-descriptors-"));
    const config = join(folder, "infermill.json");
    writeFileSync(
      config,
      JSON.stringify({ port: 0, data_dir: "data", models: { Echo: { loader: "OnnxTensorModelLoader" } } }),
    );
    const child = spawn(
      "bash",
      ["-c", 'ulimit -n 256; exec "$0" "$@"', process.execPath, MAIN, "api", "-c", config],
      {
        env: { ...process.env, REDIS_URL: redis.url },
      },
    );
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
    const flood: Socket[] = [];
    try {
      const [, url] = await until(
        () => /listening on (http:\S+?)["\s,]/.exec(output) ?? undefined,
        "the api",
      );
      for (let count = 0; count < 120; count++)
        flood.push(open(url!, head("/v1/models/Echo/predictions", 1e6, "image/jpeg")).socket);
      await sleep(500);
      const probes = await Promise.all(
        Array.from({ length: 20 }, () => fetch(`${url}/health/live`, { headers: { Connection: "close" } })),
      );
      expect(probes.map(({ status }) => status)).toEqual(Array(20).fill(200));
      await Promise.all(probes.map((probe) => probe.arrayBuffer()));
      const refused = await fetch(`${url}/v1/models`);
      expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([
        503,
        "too_many_connections",
      ]);
      for (const socket of flood) socket.destroy();
      await until(async () => (await fetch(`${url}/v1/models`)).ok, "room again");
    } finally {
      for (const socket of flood) socket.destroy();
      child.kill("SIGTERM");
      await new Promise((resolve) => child.once("close", resolve));
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);
});
