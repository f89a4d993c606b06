/** The checks of `infermill doctor`. Each tries what infermill itself will do, and changes nothing that lasts. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { access, constants, mkdtemp, rm, stat, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, totalmem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import type { BulkRoots } from "../config/bulkRoots.ts";
import { toStoragePlace, type StoragePlace } from "../config/storagePlace.ts";
import { openStorage } from "../storage/storage.ts";
import type { Config, ModelConfig } from "../config/schema.ts";
import { deviceAdvice, devicesOf, executionProvider, usesCores } from "../core/devices.ts";
import { urlSchemeOf } from "../core/urlScheme.ts";
import type { Redis } from "ioredis";
import { InfermillError } from "../errors.ts";
import { loadRuntime, reasonOf } from "../loaders/onnx/session.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { findInterpreter, findPythonLoader } from "../loaders/python/pythonLoader.ts";
import { formatBytes } from "../core/byteSize.ts";
import { readModelFacts } from "../models/modelFacts.ts";
import { encodeModel, node, valueInfo } from "../models/onnxProto.ts";
import { checkRedis, parseInfo } from "../redis/check.ts";
import type { RedisTls } from "../config/redis.ts";
import {
  connectRedis,
  mastersOf,
  withoutPassword,
  type RedisAddress,
  type RedisClient,
} from "../redis/connections.ts";
import { findRedisProgram } from "../redis/findRedisProgram.ts";
import { version } from "../version.ts";

export interface Diagnosis {
  check: string;
  /** `problem`: infermill won't start, or not serve this; `warning`: it will, with a consequence. */
  status: "ok" | "warning" | "problem";
  /** What was found. */
  found: string;
  /** What to do. */
  advice?: string;
}

const MIN_NODE = [20, 9] as const;
const LOW_DISK_BYTES = 2e9;
const FULL_DISK_BYTES = 1e8;
const HIGH_MEMORY_SHARE = 0.8;
const ANSWER_LIMIT_MS = 5000;
const run = promisify(execFile);

export function checkNode(): Diagnosis {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const found = `${process.versions.node} on ${process.platform} ${process.arch}, ${availableParallelism()} cores, ${formatBytes(totalmem())} of memory, infermill ${version}`;
  const isOld = major < MIN_NODE[0] || (major === MIN_NODE[0] && minor < MIN_NODE[1]);
  if (!isOld) return { check: "node", status: "ok", found };
  return { check: "node", status: "problem", found, advice: `install Node ${MIN_NODE.join(".")} or later` };
}

/** Writes and reads a picture. */
export async function checkSharp(): Promise<Diagnosis[]> {
  try {
    const { default: sharp } = await import("sharp");
    const picture = { width: 8, height: 8, channels: 3, background: "#123456" } as const;
    await sharp(await sharp({ create: picture }).jpeg().toBuffer())
      .raw()
      .toBuffer();
    const found = `${sharp.versions.sharp ?? ""} with libvips ${sharp.versions.vips} writes and reads a picture`;
    return [{ check: "sharp", status: "ok", found }];
  } catch (error) {
    const advice = `its library for ${process.platform} ${process.arch} is an optional dependency: npm install --include=optional sharp`;
    return [{ check: "sharp", status: "problem", found: firstLine(error), advice }];
  }
}

/** Runs a graph on the CPU, and says which other devices this build knows. */
export async function checkOnnxRuntime(): Promise<Diagnosis[]> {
  try {
    const { env, listSupportedBackends } = await loadRuntime();
    await runTinyGraph("cpu");
    const others = listSupportedBackends().map(({ name, bundled }) =>
      bundled ? name : `${name} (its libraries are fetched apart)`,
    );
    const found = `${env.versions.node ?? env.versions.common} runs a graph; execution providers: ${others.join(", ")}`;
    return [{ check: "onnxruntime", status: "ok", found }];
  } catch (error) {
    const advice = `there must be ${process.platform}/${process.arch} in node_modules/onnxruntime-node/bin/napi-v6, which needs glibc on Linux: npm install onnxruntime-node`;
    return [{ check: "onnxruntime", status: "problem", found: firstLine(error), advice }];
  }
}

async function runTinyGraph(device: string): Promise<void> {
  const { InferenceSession, Tensor } = await loadRuntime();
  const graph = encodeModel({
    opset: 13,
    name: "doctor",
    inputs: [valueInfo("in", "float32", [1])],
    outputs: [valueInfo("out", "float32", [1])],
    nodes: [node("Add", ["in", "in"], ["out"])],
    initializers: [],
  });
  const session = await InferenceSession.create(graph, {
    executionProviders: [executionProvider(device)],
    logSeverityLevel: 4,
  });
  try {
    const { out } = await session.run({ in: new Tensor("float32", [2], [1]) });
    if (out?.data[0] !== 4) throw new Error(`2 + 2 is ${String(out?.data[0])} on ${device}`);
  } finally {
    await session.release();
  }
}

/** NVIDIA's, which is what `cuda` needs. */
export async function checkGpus(): Promise<Diagnosis[]> {
  try {
    const query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    const { stdout } = await run("nvidia-smi", query, { timeout: ANSWER_LIMIT_MS });
    return stdout
      .trim()
      .split("\n")
      .map((line, index) => ({ check: "gpu", status: "ok", found: `cuda:${index} is ${line} (driver)` }));
  } catch {
    return [
      { check: "gpu", status: "ok", found: "no NVIDIA GPU or no driver (nvidia-smi); models run on the CPU" },
    ];
  }
}

/** Opens a graph on each device that a model asks for beside the CPU. */
export async function checkDevices(config: Config): Promise<Diagnosis[]> {
  const models = Object.values(config.models).filter(
    (model) => !findPythonLoader(model, dirname(config.file)),
  );
  const devices = new Set(
    models.flatMap(({ device }) => devicesOf(device)).filter((device) => !usesCores(device)),
  );
  const diagnoses: Diagnosis[] = [];
  for (const device of devices) {
    try {
      await runTinyGraph(device);
      diagnoses.push({ check: "device", status: "ok", found: `${device} runs a graph` });
    } catch (error) {
      const found = `${device} can't be used: ${reasonOf(error)}`;
      diagnoses.push({ check: "device", status: "problem", found, advice: deviceAdvice(device) });
    }
  }
  return diagnoses;
}

/** Whether it can be written, and how much room there is. */
export async function checkDataFolder(folder: string): Promise<Diagnosis[]> {
  const check = "data_dir";
  let place: string;
  try {
    place = await tryToWrite(folder);
  } catch (error) {
    const advice =
      "give this user the right to write there, or name another folder with data_dir or INFERMILL_DATA_DIR";
    return [{ check, status: "problem", found: `${folder} can't be written: ${firstLine(error)}`, advice }];
  }
  const { bavail, bsize } = await statfs(place);
  const free = bavail * bsize;
  const found = `${folder} can be written, ${formatBytes(free)} free`;
  if (free >= LOW_DISK_BYTES) return [{ check, status: "ok", found }];
  const status = free < FULL_DISK_BYTES ? "problem" : "warning";
  return [{ check, status, found, advice: "inputs, results and Redis' data are written there: make room" }];
}

/** Writes into a folder, or where it is to be made; answers which one that was. */
async function tryToWrite(folder: string): Promise<string> {
  let place = folder;
  while (!existsSync(place) && dirname(place) !== place) place = dirname(place);
  if (!(await stat(place)).isDirectory()) throw new Error(`${place} is no folder`);
  await rm(await mkdtemp(join(place, ".infermill-doctor-")), { recursive: true });
  return place;
}

export async function checkPorts(host: string, port: number, grpcPort?: number): Promise<Diagnosis[]> {
  const http = await checkPort("port", host, port);
  return grpcPort === undefined ? [http] : [http, await checkPort("grpc_port", host, grpcPort)];
}

async function checkPort(check: "port" | "grpc_port", host: string, port: number): Promise<Diagnosis> {
  const place = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  if (port === 0) return { check, status: "ok", found: `a free one on ${host} is chosen at each start` };
  const code = await listenOnce(host, port);
  if (code === undefined) return { check, status: "ok", found: `${place} is free` };
  const variable = check === "port" ? "PORT" : "GRPC_PORT";
  const advice = `choose another one with ${check} or ${variable}`;
  if (code === "EADDRINUSE") {
    if (check === "port" && (await answersAsInfermill(port, host)))
      return { check, status: "ok", found: `${place} is in use by an infermill that runs` };
    const status = check === "port" ? "problem" : "warning";
    return { check, status, found: `${place} is in use by another program`, advice };
  }
  if (code === "EACCES")
    return { check, status: "problem", found: `this user may not listen on ${place}`, advice };
  return {
    check,
    status: "problem",
    found: `${place} can't be listened on (${code})`,
    advice: "host must be an address of this machine, or 0.0.0.0 for all of them",
  };
}

/** The error's code, or undefined where it can be listened on. */
function listenOnce(host: string, port: number): Promise<string | undefined> {
  return new Promise((tell) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => tell(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => tell(undefined)));
  });
}

async function answersAsInfermill(port: number, host: string): Promise<boolean> {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : host;
  try {
    const answer = await fetch(`http://${reachable}:${port}/health/live`, {
      signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
    });
    return ((await answer.json()) as { status?: unknown }).status === "live";
  } catch {
    return false;
  }
}

/** The one that is named, or the program that an embedded one is started from. */
export async function checkRedisServer(
  named: { url: string | undefined; tls: RedisTls | undefined },
  onProgress: (line: string) => void,
): Promise<Diagnosis[]> {
  const url = named.url ?? (process.env["REDIS_URL"] || undefined);
  try {
    if (url !== undefined) return await checkNamedRedis({ url, tls: named.tls });
    const { source } = await findRedisProgram({ env: process.env, onProgress });
    return [{ check: "redis", status: "ok", found: `an embedded one is started: ${source}` }];
  } catch (error) {
    if (!(error instanceof InfermillError)) throw error;
    return [{ check: "redis", status: "problem", found: error.message }];
  }
}

async function checkNamedRedis(address: RedisAddress): Promise<Diagnosis[]> {
  const connection = await connectRedis(address, "producer", { timeoutMs: ANSWER_LIMIT_MS });
  try {
    const startedAt = performance.now();
    await connection.ping();
    const pingMs = performance.now() - startedAt;
    const { version: found, warnings } = await checkRedis(connection);
    return [
      {
        check: "redis",
        status: "ok",
        found: `version ${found} at ${withoutPassword(address.url)} answers in ${pingMs.toFixed(1)} ms`,
      },
      ...warnings.map((line): Diagnosis => ({ check: "redis", status: "warning", found: line })),
      ...(await Promise.all(mastersOf(connection).map((master) => checkMemory(master, connection)))).flat(),
    ];
  } finally {
    connection.disconnect();
  }
}

async function checkMemory(redis: Redis, { isCluster }: RedisClient): Promise<Diagnosis[]> {
  const { host, port } = redis.options;
  const place = isCluster ? `${host}:${port}: ` : "";
  const info = parseInfo(await redis.info("memory").catch(() => ""));
  const [used, max] = [Number(info.get("used_memory")), Number(info.get("maxmemory"))];
  if (!Number.isFinite(used)) return [];
  if (!max)
    return [
      { check: "redis memory", status: "ok", found: `${place}${formatBytes(used)} in use, without a limit` },
    ];
  const found = `${place}${formatBytes(used)} of maxmemory ${formatBytes(max)} in use`;
  if (used < HIGH_MEMORY_SHARE * max) return [{ check: "redis memory", status: "ok", found }];
  const advice =
    "when it is full, predictions are refused: raise maxmemory, or let results expire sooner (result_ttl_seconds)";
  return [{ check: "redis memory", status: "warning", found, advice }];
}

/** The folders and places of object storage that pictures come from and copies go to. */
export async function checkRoots(config: Config): Promise<Diagnosis[]> {
  const { bulk_roots, annotate_roots, results_roots, input_storage, s3 } = config;
  const inputs =
    input_storage === undefined ? [] : [checkStorage("input_storage", "", toStoragePlace(input_storage, s3))];
  return Promise.all([
    ...inputs,
    ...Object.entries(bulk_roots).map(async ([name, folder]): Promise<Diagnosis> => {
      if (typeof folder !== "string") return checkStorage("bulk_roots", `${name}: `, folder);
      try {
        await access(folder, constants.R_OK | constants.X_OK);
        return { check: "bulk_roots", status: "ok", found: `${name}: ${folder} can be read` };
      } catch (error) {
        const advice = "bulk runs and references below it fail until it is there and this user may read it";
        return { check: "bulk_roots", status: "warning", found: `${name}: ${firstLine(error)}`, advice };
      }
    }),
    ...checkWritable("annotate_roots", annotate_roots, "bulk runs can't annotate"),
    ...checkWritable("results_roots", results_roots, "bulk runs can't write their results"),
  ]);
}

function checkWritable(check: string, roots: BulkRoots, consequence: string): Promise<Diagnosis>[] {
  return Object.entries(roots).map(async ([name, folder]): Promise<Diagnosis> => {
    if (typeof folder !== "string") return checkStorage(check, `${name}: `, folder);
    try {
      await tryToWrite(folder);
      return { check, status: "ok", found: `${name}: ${folder} can be written` };
    } catch (error) {
      const advice = `${consequence} below it until this user may write there`;
      return { check, status: "warning", found: `${name}: ${firstLine(error)}`, advice };
    }
  });
}

async function checkStorage(check: string, name: string, place: StoragePlace): Promise<Diagnosis> {
  try {
    await openStorage(place).hasObjects();
    return { check, status: "ok", found: `${name}${place.url} can be listed` };
  } catch (error) {
    const advice = "check the bucket, the credentials, and region and endpoint (s3)";
    return { check, status: "warning", found: `${name}${firstLine(error)}`, advice };
  }
}

/** Loaders, interpreters and files of each model. */
export async function checkModels(config: Config): Promise<Diagnosis[]> {
  const diagnoses: Diagnosis[] = [];
  for (const [name, model] of Object.entries(config.models)) {
    const check = "model";
    const faults = await checkLoaders({ file: config.file, models: { [name]: model } });
    diagnoses.push(
      ...faults.map(({ key, problem }): Diagnosis => ({
        check,
        status: "problem",
        found: `${key} ${problem}`,
      })),
    );
    if (faults.length > 0) continue;
    const python = await interpreterOf(config, model);
    const files = await Promise.all(
      model.model_path.map((source) => describeFile(source, config, python !== undefined)),
    );
    const unreadable = files.filter(({ isModel }) => !isModel);
    diagnoses.push(
      ...unreadable.map(({ words }): Diagnosis => ({
        check,
        status: "problem",
        found: `${name}: ${words} is no .onnx file, or one that is cut short`,
        advice: "fetch it again; a small one may be a pointer of Git LFS (git lfs pull)",
      })),
    );
    if (unreadable.length > 0) continue;
    const found = [
      `${name} (${model.loader})`,
      ...(python ? [python] : []),
      ...files.map(({ words }) => words),
    ];
    diagnoses.push({ check, status: "ok", found: found.join(", ") });
  }
  return diagnoses;
}

/** Which Python runs a model's loader; undefined where it is none in Python. */
async function interpreterOf({ file }: Config, model: ModelConfig): Promise<string | undefined> {
  const place = findPythonLoader(model, dirname(file));
  if (!place) return undefined;
  const interpreter = findInterpreter(model, place);
  // `checkLoaders` has found one that runs.
  if (typeof interpreter !== "string") return undefined;
  const { stdout } = await run(interpreter, ["--version"], { timeout: ANSWER_LIMIT_MS });
  return `${stdout.trim()} (${interpreter})`;
}

async function describeFile(
  source: string,
  { file }: Config,
  isPython: boolean,
): Promise<{ words: string; isModel: boolean }> {
  if (urlSchemeOf(source) !== undefined)
    return { words: `${source} (\`infermill models pull\` fetches it, or the first start)`, isModel: true };
  const path = resolve(dirname(file), source);
  const { size } = await stat(path);
  const isModel = isPython || !/\.onnx$/i.test(path) || (await readModelFacts(path)).graph !== undefined;
  return { words: `${path} (${formatBytes(size)})`, isModel };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0]!;
}
