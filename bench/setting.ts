/** What a run of the bench stands on: its options, its folder, a Redis, the pictures, the models; servers and their configurations. */
import { execFileSync, fork, spawn, type ChildProcess } from "node:child_process";
import { existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { loadConfig } from "../src/config/load.ts";
import type { Config } from "../src/config/schema.ts";
import { readClassNames } from "../src/loaders/labels.ts";
import { encodeModel } from "../src/models/onnxProto.ts";
import { findSamplePhoto } from "../src/models/samplePhotos.ts";
import { describeScript, number } from "../scripts/options.ts";
import { provideRedis } from "../src/redis/provideRedis.ts";
import { squeezeNet } from "./models.ts";
import { killDescendants } from "./processes.ts";

const command = describeScript("bench", "Measures infermill; CONTRIBUTING.md says what the rows are.")
  .argument("[peers...]", "with --peers: of which servers (default: all)")
  .option("--peers", "beside the servers of bench/peers")
  .option("--rows <names>", "which rows, such as A,D (default: all)")
  .addOption(number("rounds", "rounds of a row (default: 10, with peers 4)"))
  .addOption(number("seconds", "of a measurement (default: 3)"))
  .option("--quick", "a few requests each, to see that all rows run")
  .option("--model <file>", "an ImageNet classifier of 224 pixels")
  .option("--detector <file>", "YOLOv8n")
  .option("--text-model <file>", "MiniLM")
  .addOption(number("entries", "of the long bulk run (default: 100000)"))
  .addOption(number("files", "of row C (default: 2000)"))
  .addOption(number("concurrency", "connections of the load client (default: 32)"))
  .option("--venv <folder>", "a virtual environment of Python, in place of those that the bench makes")
  .option("--json", "all figures")
  .option("--markdown", "only the tables")
  .option("--built", "doesn't build dist first")
  .parse();
export const options = command.opts<Options>();
/** Of peers. */
export const positionals = command.args;

interface Options extends Partial<
  Record<"rounds" | "seconds" | "entries" | "files" | "concurrency", number>
> {
  peers?: true;
  rows?: string;
  quick?: true;
  model?: string;
  detector?: string;
  textModel?: string;
  venv?: string;
  json?: true;
  markdown?: true;
  built?: true;
}
export const ROUNDS = options.rounds ?? (options.quick ? 1 : options.peers ? 4 : 10);
export const SECONDS = options.seconds ?? (options.quick ? 1 : 3);
export const CONNECTIONS = options.concurrency ?? (options.quick ? 8 : 32);
export const CORES = availableParallelism();
export const BATCH = 8;
export const MAIN = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

/** A model of pictures as a configuration names it, and as the loops and servers outside of infermill need it. */
export interface PictureModel {
  name: string;
  section: Record<string, unknown>;
  plain: { file: string; kind: "classifier" | "detector"; side: number; threshold: number; labels: string[] };
}

export const say = (line: string): void => console.error(line);
export const folder = mkdtempSync(join(tmpdir(), "infermill-bench-"));
const children: ChildProcess[] = [];
// However the bench ends, nothing that it started outlives it.
process.on("exit", () => {
  killDescendants();
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

if (!options.built)
  execFileSync("npm", ["run", "build", "--silent"], { stdio: ["ignore", "ignore", "inherit"] });
export const redis = await provideRedis({
  dataDir: join(folder, "redis-data"),
  env: { ...process.env, REDIS_URL: "" },
});
/** A JPEG of about 200 KB. */
export const picture = await makePicture();
export const model = await chooseClassifier();

export async function closeSetting(): Promise<void> {
  for (const child of children) child.kill("SIGTERM");
  await redis.close();
}

/** A model of the test material beside the clone, where it is there: nothing of it is part of the project. */
export function sharedModel(path: string): string | undefined {
  const file = fileURLToPath(new URL(`../../shared/models/${path}`, import.meta.url));
  return existsSync(file) ? file : undefined;
}

/** The classifier that was asked for, or SqueezeNet 1.1; without its file, one with drawn weights, which costs the same. */
async function chooseClassifier(): Promise<PictureModel> {
  const known = options.model ?? sharedModel("squeezenet1_1/squeezenet1_1.onnx");
  const file = known ?? join(folder, "squeezenet.onnx");
  if (known === undefined) writeFileSync(file, encodeModel(squeezeNet()));
  // Lower than the default, so that there is more to compare.
  const threshold = 0.03;
  const section = {
    loader: "ImageClassificationModelLoader",
    model_path: [file],
    class_names: ["imagenet"],
    input_image_size: [224, 224],
    conf_thres: threshold,
  };
  const labels = await readClassNames(["imagenet"], folder);
  const name = known?.split("/").at(-1) ?? "SqueezeNet 1.1 with drawn weights";
  return { name, section, plain: { file, kind: "classifier", side: 224, threshold, labels } };
}

/** YOLOv8n or another detector of its kind, if there is a file of one. */
export async function chooseDetector(): Promise<PictureModel | undefined> {
  const file = options.detector ?? sharedModel("yolov8n/yolov8n.onnx");
  if (file === undefined) return undefined;
  const threshold = 0.25;
  const section = {
    loader: "YoloModelLoader",
    model_path: [file],
    class_names: ["coco"],
    conf_thres: threshold,
  };
  const labels = await readClassNames(["coco"], folder);
  return {
    name: file.split("/").at(-1)!,
    section,
    plain: { file, kind: "detector", side: 640, threshold, labels },
  };
}

async function makePicture(): Promise<string> {
  mkdirSync(join(folder, "photos"));
  const source = findSamplePhoto("march-pastoral")!;
  let bytes = readFileSync(source);
  for (let quality = 95; bytes.length > 215_000; quality -= 3)
    bytes = Buffer.from(await sharp(source).jpeg({ quality }).toBuffer());
  const file = join(folder, "photos", "picture.jpg");
  writeFileSync(file, bytes);
  return file;
}

/** A photo of 12 megapixels, as a phone takes it. */
export async function makeLargePhoto(): Promise<string> {
  const file = join(folder, "photos", "photo-12-megapixels.jpg");
  const photo = sharp(findSamplePhoto("march-pastoral")).resize(4000, 3000, { fit: "cover" });
  writeFileSync(file, await photo.jpeg({ quality: 90 }).toBuffer());
  return file;
}

/** A folder below the bulk root with so many hard links of one picture. */
export function linkPictures(name: string, count: number, bytes = readFileSync(picture)): void {
  // A file system allows some ten thousand links of one file, so each subfolder has a first of its own.
  let first = "";
  for (let index = 0; index < count; index++) {
    const below = join(folder, "photos", name, String(Math.floor(index / 1000)));
    const file = join(below, `${index}.jpg`);
    if (index % 1000 !== 0) {
      linkSync(first, file);
      continue;
    }
    mkdirSync(below, { recursive: true });
    writeFileSync(file, bytes);
    first = file;
  }
}

export async function configFor(
  name: string,
  inputs: "files" | "redis",
  instances?: number,
  other?: Record<string, unknown>,
): Promise<Config> {
  const noop = {
    loader: "NoopModelLoader",
    model_loader_file: fileURLToPath(new URL("noop.ts", import.meta.url)),
  };
  const file = join(folder, `${name}.json`);
  const section = {
    ...(name === "noop" ? noop : (other ?? model.section)),
    max_batch_size: BATCH,
    instances,
    max_queue_length: 100_000,
  };
  writeFileSync(
    file,
    JSON.stringify({
      port: 0,
      data_dir: join(folder, name),
      redis_prefix: name,
      inputs,
      log_level: "warn",
      bulk_roots: { photos: join(folder, "photos") },
      models: { Bench: section },
    }),
  );
  return loadConfig({ file, env: {} });
}

export async function startServer(
  inputs: "files" | "redis",
  name = `server-${inputs}`,
  section?: Record<string, unknown>,
  env: Record<string, string> = {},
): Promise<{ url: string; child: ChildProcess }> {
  const config = await configFor(name, inputs, undefined, section);
  const child = spawn(process.execPath, [MAIN, "start", "--config", config.file], {
    env: { ...process.env, REDIS_URL: redis.url, INFERMILL_API_KEYS: "", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  let output = "";
  for await (const chunk of child.stdout) {
    output += chunk as string;
    const url = /is ready at (\S+)/.exec(output)?.[1];
    if (url) return { url, child };
  }
  throw new Error(`infermill did not start:\n${output}`);
}

export async function startWorkerProcess(config: Config): Promise<ChildProcess> {
  const child = fork(MAIN, ["worker", "--config", config.file], {
    // Then it says when it is ready, as below `infermill start`.
    env: { ...process.env, REDIS_URL: redis.url, INFERMILL_SUPERVISED: "1" },
    execArgv: [],
  });
  children.push(child);
  await new Promise((resolve) => child.once("message", resolve));
  return child;
}

export function forkTs(file: string, args: string[] = []): ChildProcess {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), args, {
    env: { ...process.env, UV_THREADPOOL_SIZE: "2" },
  });
  children.push(child);
  return child;
}

export function ask(child: ChildProcess, message: object): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const fail = (code: number | null) => reject(new Error(`a bench process exited with code ${code}`));
    child.once("exit", fail);
    child.once("message", (answer) => {
      child.off("exit", fail);
      resolve(answer as Record<string, unknown>);
    });
    child.send(message);
  });
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
