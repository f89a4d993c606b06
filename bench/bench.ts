/**
 * `npm run bench`: what infermill costs over the bare model and the bare queue, as ratios within one run.
 * Options: `--json`, `--rounds <n>` (10), `--seconds <s>` of each measurement (3), `--rows <a,b>`,
 * `--entries <n>` of the long bulk run (100000), `--model <file.onnx>`, `--text-model <file.onnx>`, `--built` where
 * `dist` is new.
 */
import { execFileSync, fork, spawn, type ChildProcess } from "node:child_process";
import { existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Queue } from "bullmq";
import sharp from "sharp";
import type { BulkRun } from "../src/core/bulkRun.ts";
import { loadConfig } from "../src/config/load.ts";
import type { Config } from "../src/config/schema.ts";
import type { LoaderSpec } from "../src/loaders/loaderSpec.ts";
import { openLoader, resolveModelPaths } from "../src/loaders/openLoader.ts";
import { attachPictures } from "../src/imil/requestPictures.ts";
import { findSamplePhoto } from "../src/models/samplePhotos.ts";
import { connectRedis } from "../src/redis/connections.ts";
import { newPredictionId } from "../src/queue/names.ts";
import { openPredictions } from "../src/queue/predictions.ts";
import { provideRedis } from "../src/redis/provideRedis.ts";
import { encodeModel } from "../src/models/onnxProto.ts";
import { post, type Upload } from "./client.ts";
import { measureEngines } from "./engines.ts";
import { perceptron, wholeWordTokenizer } from "./models.ts";
import type { RepeatedRequest } from "./rawLoop.ts";

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "10" },
    seconds: { type: "string", default: "3" },
    rows: { type: "string", default: "bulk,http,tensors,texts,noop,latency,lone,memory,flat,engines" },
    built: { type: "boolean", default: false },
    entries: { type: "string", default: "100000" },
    model: { type: "string" },
    "text-model": { type: "string" },
    concurrency: { type: "string", default: "32" },
  },
});
const ROUNDS = Number(options.rounds);
const SECONDS = Number(options.seconds);
const CORES = availableParallelism();
const BATCH = 8;
const FLOATS = 256;
const NOOP_BACKLOG = 5000;
const FEW_FILES = 1000;
const MANY_FILES = Number(options.entries);
/** Whose memory a long bulk run must not raise; the engines of a worker count together. */
const PROCESSES = ["api", "worker", "coordinator", "engines", "redis"];
const MAIN = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

interface Row {
  figure: string;
  value: number;
  aim: string;
  met: boolean;
  detail: string;
}

const folder = mkdtempSync(join(tmpdir(), "infermill-bench-"));
const children: ChildProcess[] = [];
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

const say = (line: string) => console.error(line);
const rows: Row[] = [];

if (!options.built)
  execFileSync("npm", ["run", "build", "--silent"], { stdio: ["ignore", "ignore", "inherit"] });
const redis = await provideRedis({
  dataDir: join(folder, "redis-data"),
  env: { ...process.env, REDIS_URL: "" },
});
const picture = await makePicture();
const model = chooseModel();
try {
  const wanted = new Set(options.rows.split(","));
  if (wanted.has("bulk")) await measureBulk();
  if (wanted.has("http")) await measureHttp();
  if (wanted.has("tensors")) await measureTensors();
  if (wanted.has("texts")) await measureTexts();
  if (wanted.has("noop")) await measureNoop();
  if (wanted.has("latency")) await measureLatency();
  if (wanted.has("lone")) await measureLoneDuringBulk();
  if (wanted.has("memory")) await measureMemory();
  if (wanted.has("flat")) await measureFlatness();
  if (wanted.has("engines")) await compareEngines();
  report();
} finally {
  for (const child of children) child.kill("SIGTERM");
  await redis.close();
}
process.exit();

/** Images per second of whole bulk runs, from the call until the end, against the raw loop. */
async function measureBulk(): Promise<void> {
  const raw = await startRawLoops(await configFor("raw", "files", 1));
  const server = await startServer("files");
  const rate = await raw.rate();
  const count = Math.max(200, Math.ceil(2 * rate * SECONDS));
  linkPictures("bulk", count);
  await runBulk(server.url, "bulk");
  const runs: { raw: number; bulk: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const run = { raw: await raw.rate(), bulk: count / (await runBulk(server.url, "bulk")) };
    say(`bulk round ${round + 1}: raw ${run.raw.toFixed(1)}, bulk ${run.bulk.toFixed(1)} images/s`);
    runs.push(run);
  }
  const value = median(runs.map((run) => run.bulk / run.raw));
  rows.push({
    figure: "bulk folder run ÷ raw loop",
    value,
    aim: "≥ 0.95",
    met: value >= 0.95,
    detail: `${median(runs.map((run) => run.bulk)).toFixed(1)} against ${median(runs.map((run) => run.raw)).toFixed(1)} images/s, runs of ${count} files`,
  });
  for (const child of [...raw.loops, server.child]) await end(child);
}

/** Latency of lone synchronous predictions while a bulk run keeps every engine busy, against the time of one batch. */
async function measureLoneDuringBulk(): Promise<void> {
  const server = await startServer("files");
  const bytes = readFileSync(picture);
  linkPictures("during", 20_000);
  const links = await postBulk(server.url, "during");
  const look = async () => (await (await fetch(server.url + links.self)).json()) as BulkRun;
  const upload = async () => {
    const startedAt = performance.now();
    const { status } = await post(`${server.url}/v1/models/Bench/predictions`, "image/jpeg", bytes);
    if (status !== 200) throw new Error(`a lone prediction was answered with ${status}`);
    return performance.now() - startedAt;
  };
  for (let index = 0; index < 10; index++) await upload();
  const before = await look();
  const startedAt = performance.now();
  const latencies: number[] = [];
  while (latencies.length < 20 * ROUNDS) latencies.push(await upload());
  const seconds = (performance.now() - startedAt) / 1000;
  const after = await look();
  if (after.status !== "running") throw new Error("the bulk run ended before the lone predictions did");
  const done = after.counts.succeeded - before.counts.succeeded + latencies.length;
  const batchMs = (1000 * BATCH * CORES * seconds) / done;
  const p95 = latencies.toSorted((a, b) => a - b)[Math.floor(0.95 * latencies.length)]!;
  rows.push({
    figure: "lone uploads during a bulk run, p95 ÷ one batch's time",
    value: p95 / batchMs,
    aim: "≤ 2",
    met: p95 / batchMs <= 2,
    detail: `p50 ${median(latencies).toFixed(0)}, p95 ${p95.toFixed(0)} against ${batchMs.toFixed(0)} ms, the bulk run at ${((done - latencies.length) / seconds).toFixed(1)} images/s`,
  });
  await fetch(server.url + links.self, { method: "DELETE" });
  await end(server.child);
}

/** Typical resident memory during a long bulk run of a model that does nothing, against short ones. */
async function measureFlatness(): Promise<void> {
  const server = await startServer("files", "noop");
  const tiny = await sharp(picture).resize(32).jpeg().toBuffer();
  linkPictures("few", FEW_FILES, tiny);
  linkPictures("many", MANY_FILES, tiny);
  const connection = await connectRedis({ url: redis.url, tls: undefined }, "worker");
  const redisPid = Number(/process_id:(\d+)/.exec(await connection.info("server"))![1]);
  connection.disconnect();
  // As many entries as in the long run, since a heap's size follows what it went through.
  const few = watchMemory(server.child.pid!, redisPid);
  for (let done = 0; done < MANY_FILES; done += FEW_FILES) await runBulk(server.url, "few");
  const fewSamples = few.stop();
  const many = watchMemory(server.child.pid!, redisPid);
  const seconds = await runBulk(server.url, "many");
  const manySamples = many.stop();
  for (const name of PROCESSES) {
    const mib = (samples: Map<string, number[]>) => median(samples.get(name)!) / 2 ** 20;
    const value = mib(manySamples) / mib(fewSamples);
    rows.push({
      figure: `memory of ${name}, a bulk run of ${MANY_FILES} files ÷ runs of ${FEW_FILES}`,
      value,
      aim: "≤ 1.1",
      met: value <= 1.1,
      detail: `${mib(manySamples).toFixed(0)} against ${mib(fewSamples).toFixed(0)} MiB, ${(MANY_FILES / seconds).toFixed(0)} entries/s`,
    });
  }
  await end(server.child);
}

/** A folder below the bulk root with so many hard links of one picture. */
function linkPictures(name: string, count: number, bytes = readFileSync(picture)): void {
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

async function postBulk(url: string, name: string): Promise<BulkRun["links"]> {
  const answer = await fetch(`${url}/v1/bulk`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "Bench", folder: `photos/${name}` }),
  });
  return ((await answer.json()) as BulkRun).links;
}

/** Runs a model over a folder; answers the seconds from the call until the end. */
async function runBulk(url: string, name: string): Promise<number> {
  const links = await postBulk(url, name);
  // The stream costs the api next to nothing until it ends.
  await (await fetch(url + links.events)).text();
  const run = (await (await fetch(url + links.self)).json()) as BulkRun;
  if (run.status !== "completed" || run.counts.failed > 0) throw new Error(JSON.stringify(run));
  await fetch(url + links.self, { method: "DELETE" });
  return (Date.parse(run.finished_at!) - Date.parse(run.created_at)) / 1000;
}

/** Samples of the resident memory in bytes of each process below a supervisor, and of Redis, by name, until `stop()`. */
function watchMemory(supervisor: number, redisPid: number): { stop(): Map<string, number[]> } {
  const samples = new Map<string, number[]>(PROCESSES.map((name) => [name, []]));
  const resident = (pid: number) => 4096 * Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]);
  const childrenOf = (pid: number) =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  const look = () => {
    for (const pid of childrenOf(supervisor)) {
      const name = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").at(-2)!;
      samples.get(name)!.push(resident(pid));
      if (name === "worker")
        samples.get("engines")!.push(childrenOf(pid).reduce((sum, engine) => sum + resident(engine), 0));
    }
    samples.get("redis")!.push(resident(redisPid));
  };
  const timer = setInterval(look, 100);
  return {
    stop() {
      clearInterval(timer);
      return samples;
    },
  };
}

/** Images per second over HTTP, uploads, with either input store, against the raw loop. */
async function measureHttp(): Promise<void> {
  const config = await configFor("raw", "files", 1);
  const raw = await startRawLoops(config);
  const files = await startServer("files");
  const inRedis = await startServer("redis");
  const client = forkTs("client.ts");
  const upload = async (url: string) => {
    const url_ = `${url}/v1/models/Bench/predictions`;
    const { rate } = await ask(client, {
      url: url_,
      file: picture,
      type: "image/jpeg",
      succeeded: '"status":"succeeded"',
      concurrency: Number(options.concurrency),
      seconds: SECONDS,
    });
    return rate as number;
  };
  const runs: { raw: number; files: number; redis: number }[] = [];
  await upload(files.url);
  await upload(inRedis.url);
  for (let round = 0; round < ROUNDS; round++) {
    const run = { raw: await raw.rate(), files: await upload(files.url), redis: await upload(inRedis.url) };
    say(
      `http round ${round + 1}: raw ${run.raw.toFixed(1)}, files ${run.files.toFixed(1)}, redis ${run.redis.toFixed(1)} images/s`,
    );
    runs.push(run);
  }
  const rawMedian = median(runs.map((run) => run.raw));
  for (const [store, aim] of [
    ["redis", 0.75],
    ["files", 0.83],
  ] as const) {
    const value = median(runs.map((run) => run[store] / run.raw));
    rows.push({
      figure: `HTTP upload to result, inputs in ${store} ÷ raw loop`,
      value,
      aim: `≥ ${aim}`,
      met: value >= aim,
      detail: `${median(runs.map((run) => run[store])).toFixed(1)} against ${rawMedian.toFixed(1)} images/s`,
    });
  }
  for (const child of [...raw.loops, files.child, inRedis.child, client]) await end(child);
}

/** Rows of 256 floats per second through a perceptron over `/v2`, as bytes and as JSON, against the raw loop. */
async function measureTensors(): Promise<void> {
  const file = join(folder, "perceptron.onnx");
  writeFileSync(file, encodeModel(perceptron(FLOATS, 1024, 10)));
  const sections = { Bench: { loader: "OnnxTensorModelLoader", model_path: [file] } };
  const floats = Float32Array.from({ length: FLOATS }, (_, index) => Math.fround(Math.sin(index)));
  const raw = Buffer.from(floats.buffer);
  const entry = { name: "x", datatype: "FP32", shape: [1, FLOATS] };
  const binaryEntry = { ...entry, parameters: { binary_data_size: raw.length } };
  const head = Buffer.from(
    JSON.stringify({ parameters: { binary_data_output: true }, inputs: [binaryEntry] }),
  );
  const binary = join(folder, "tensor.bin");
  writeFileSync(binary, Buffer.concat([head, raw]));
  const json = join(folder, "tensor.json");
  writeFileSync(json, JSON.stringify({ inputs: [{ ...entry, data: [...floats] }] }));
  await measureRequests({
    name: "tensors",
    sections,
    repeated: { request: { inputs: [binaryEntry] }, inputs: [{ name: "x", data: raw.toString("base64") }] },
    uploads: [
      {
        figure: `${FLOATS} floats over /v2, binary ÷ raw loop`,
        path: "/v2/models/Bench/infer",
        file: binary,
        type: "application/octet-stream",
        headers: { "Inference-Header-Content-Length": String(head.length) },
        succeeded: '"outputs"',
        aim: 0.1,
      },
      {
        figure: `${FLOATS} floats over /v2, JSON ÷ raw loop`,
        path: "/v2/models/Bench/infer",
        file: json,
        type: "application/json",
        succeeded: '"outputs"',
        aim: 0.1,
      },
    ],
  });
}

/** Texts per second through MiniLM over `/v1/embeddings`, against the raw loop; needs the model's file. */
async function measureTexts(): Promise<void> {
  const shared = fileURLToPath(new URL("../../shared/models/any/minilm_int8/model.onnx", import.meta.url));
  const file = options["text-model"] ?? shared;
  if (!existsSync(file)) {
    say(`texts: left out, there is no ${file} (--text-model)`);
    return;
  }
  const words = Array.from({ length: 16 }, (_, index) => `word${index}`);
  const text = words.join(" ");
  const tokenizer = join(folder, "tokenizer.json");
  writeFileSync(tokenizer, JSON.stringify(wholeWordTokenizer(words)));
  const request = join(folder, "text.json");
  writeFileSync(request, JSON.stringify({ model: "Bench", input: text, encoding_format: "base64" }));
  await measureRequests({
    name: "texts",
    sections: {
      Bench: { loader: "TextEmbeddingModelLoader", model_path: [file, tokenizer], pooling: "mean" },
    },
    repeated: { request: { Text: [text] } },
    uploads: [
      {
        figure: "a text of 16 words over /v1/embeddings, MiniLM ÷ raw loop",
        path: "/v1/embeddings",
        file: request,
        type: "application/json",
        succeeded: '"object":"embedding"',
        aim: 0.6,
      },
    ],
  });
}

/** Requests per second over HTTP against the raw loop of the same requests, a row for each upload. */
async function measureRequests(what: {
  name: string;
  sections: Record<string, Record<string, unknown>>;
  repeated: RepeatedRequest;
  uploads: (Omit<Upload, "url" | "concurrency" | "seconds"> & {
    figure: string;
    path: string;
    aim: number;
  })[];
}): Promise<void> {
  const section = what.sections["Bench"];
  const raw = await startRawLoops(await configFor(`raw-${what.name}`, "files", 1, section), what.repeated);
  const server = await startServer("files", what.name, section);
  const client = forkTs("client.ts");
  const send = async ({ path, ...upload }: (typeof what.uploads)[number]) => {
    const message = {
      ...upload,
      url: server.url + path,
      concurrency: Number(options.concurrency),
      seconds: SECONDS,
    };
    return (await ask(client, message))["rate"] as number;
  };
  for (const upload of what.uploads) await send(upload);
  const runs: { raw: number; rates: number[] }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const run = { raw: await raw.rate(), rates: [] as number[] };
    for (const upload of what.uploads) run.rates.push(await send(upload));
    say(
      `${what.name} round ${round + 1}: raw ${run.raw.toFixed(0)}, over HTTP ${run.rates.map((rate) => rate.toFixed(0)).join(", ")} requests/s`,
    );
    runs.push(run);
  }
  for (const [index, { figure, aim }] of what.uploads.entries()) {
    const value = median(runs.map((run) => run.rates[index]! / run.raw));
    rows.push({
      figure,
      value,
      aim: `≥ ${aim}`,
      met: value >= aim,
      detail: `${median(runs.map((run) => run.rates[index]!)).toFixed(0)} against ${median(runs.map((run) => run.raw)).toFixed(0)} requests/s`,
    });
  }
  for (const child of [...raw.loops, server.child, client]) await end(child);
}

/** Predictions per second of a model that does nothing, from a backlog, against a plain BullMQ worker. */
async function measureNoop(): Promise<void> {
  const config = await configFor("noop", "files", 1);
  const predictions = await openPredictions(config, redis.url);
  const worker = await startWorkerProcess(config);
  const queue = predictions.queues.get("Bench")!;
  const plain = new Queue("plain", {
    connection: await connectRedis({ url: redis.url, tls: undefined }, "worker"),
    prefix: "plain",
  });
  const plainWorker = forkTs("plainWorker.ts", [redis.url, "plain", "plain", String(4 * BATCH)]);
  await new Promise((resolve) => plainWorker.once("message", resolve));

  const drain = async (target: Queue, add: (count: number) => Promise<unknown>) => {
    await target.pause();
    for (let added = 0; added < NOOP_BACKLOG; added += 500) await add(500);
    const before = await target.getCompletedCount();
    const startedAt = performance.now();
    await target.resume();
    while ((await target.getCompletedCount()) - before < NOOP_BACKLOG)
      await new Promise((resolve) => setTimeout(resolve, 5));
    return NOOP_BACKLOG / ((performance.now() - startedAt) / 1000);
  };
  const addPredictions = async (count: number) => {
    const slots = await predictions.reserve("Bench", count);
    await predictions.submit(
      slots,
      Array.from({ length: count }, () => ({ id: newPredictionId(), request: {}, inputs: [] })),
    );
  };
  const addPlain = (count: number) =>
    plain.addBulk(
      Array.from({ length: count }, () => ({
        name: "predict",
        data: { request: {}, inputs: [] },
        opts: { priority: 2 },
      })),
    );

  const runs: { ours: number; plain: number }[] = [];
  for (let round = 0; round < ROUNDS + 1; round++) {
    const run = { plain: await drain(plain, addPlain), ours: await drain(queue, addPredictions) };
    say(
      `no-op round ${round}: plain ${run.plain.toFixed(0)}, infermill ${run.ours.toFixed(0)} predictions/s${round === 0 ? " (warm-up)" : ""}`,
    );
    if (round > 0) runs.push(run);
  }
  const value = median(runs.map((run) => run.ours / run.plain));
  rows.push({
    figure: "no-op model ÷ plain BullMQ worker",
    value,
    aim: "≥ 0.8",
    met: value >= 0.8,
    detail: `${median(runs.map((run) => run.ours)).toFixed(0)} against ${median(runs.map((run) => run.plain)).toFixed(0)} jobs/s`,
  });
  await end(worker);
  await end(plainWorker);
  await plain.close();
  await predictions.close();
}

/** Median latency of a lone synchronous prediction less that of the bare loader. */
async function measureLatency(): Promise<void> {
  const config = await configFor("latency", "files", 1);
  const loader = await openLoader(await specFor(config));
  const bytes = readFileSync(picture);
  const server = await startServer("files");
  const url = `${server.url}/v1/models/Bench/predictions`;
  const reference = Buffer.from(JSON.stringify({ image: `photos/${picture.split("/").at(-1)}` }));
  const timed = async (work: () => Promise<unknown>) => {
    const startedAt = performance.now();
    await work();
    return performance.now() - startedAt;
  };
  const checked = async (type: string, body: Buffer) => {
    const { status, text } = await post(url, type, body);
    if (status !== 200 || !text.includes('"status":"succeeded"')) throw new Error(`${status}: ${text}`);
  };
  const samples: { bare: number; upload: number; reference: number }[] = [];
  for (let index = 0; index < 20 * ROUNDS + 10; index++) {
    const sample = {
      bare: await timed(() => loader.predictRequest(attachPictures({}, [bytes]))),
      upload: await timed(() => checked("image/jpeg", bytes)),
      reference: await timed(() => checked("application/json", reference)),
    };
    if (index >= 10) samples.push(sample);
  }
  const bare = median(samples.map((sample) => sample.bare));
  for (const [key, name, aim] of [
    ["upload", `a ${(bytes.length / 1000).toFixed(0)} KB upload`, 10],
    ["reference", "a file by reference", 5],
  ] as const) {
    const value = median(samples.map((sample) => sample[key])) - bare;
    rows.push({
      figure: `added latency p50 of ${name}, ms`,
      value,
      aim: `≤ ${aim}`,
      met: value <= aim,
      detail: `${(value + bare).toFixed(1)} against ${bare.toFixed(1)} ms of the bare loader`,
    });
  }
  await loader.close();
  await end(server.child);
}

/** What a queued prediction by reference takes of Redis's memory. */
async function measureMemory(): Promise<void> {
  const config = await configFor("memory", "files", 1);
  const predictions = await openPredictions(config, redis.url);
  const connection = await connectRedis({ url: redis.url, tls: undefined }, "worker");
  const used = async () => Number(/used_memory:(\d+)/.exec(await connection.info("memory"))![1]);
  const count = 5000;
  const before = await used();
  const slots = await predictions.reserve("Bench", count);
  const inputs = [
    { ref: { root: "photos", path: "a-folder/of-pictures/picture-000001.jpg" }, sha256: "", bytes: 0 },
  ];
  await predictions.submit(
    slots,
    Array.from({ length: count }, () => ({ id: newPredictionId(), request: { C_threshold: 0.4 }, inputs })),
  );
  const value = ((await used()) - before) / count / 1024;
  rows.push({
    figure: "Redis memory per queued reference, KB",
    value,
    aim: "≤ 2",
    met: value <= 2,
    detail: `${count} queued predictions`,
  });
  connection.disconnect();
  await predictions.close();
}

async function compareEngines(): Promise<void> {
  for (const { figure, value, aim, node, python } of await measureEngines(folder, ROUNDS, SECONDS)) {
    rows.push({
      figure,
      value,
      aim: `≥ ${aim}`,
      met: value >= aim,
      detail: `${python.toFixed(0)} against ${node.toFixed(0)} predictions/s of one engine each`,
    });
  }
}

function report(): void {
  const machine = `${cpus()[0]!.model}, ${CORES} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Node ${process.version}, Redis ${redis.version}`;
  if (options.json) {
    console.log(
      JSON.stringify({ machine, model: model.name, rounds: ROUNDS, seconds: SECONDS, rows }, null, 2),
    );
    return;
  }
  console.log(
    `\n${machine}\nmodel ${model.name}, picture ${(readFileSync(picture).length / 1000).toFixed(0)} KB JPEG; medians of ${ROUNDS} interleaved rounds\n`,
  );
  console.log("| figure | measured | aim | |\n|---|---|---|---|");
  for (const { figure, value, aim, met, detail } of rows) {
    console.log(`| ${figure} | **${value.toFixed(2)}** (${detail}) | ${aim} | ${met ? "met" : "MISSED"} |`);
  }
}

function chooseModel(): { name: string; section: Record<string, unknown> } {
  const shared = fileURLToPath(
    new URL("../../shared/models/squeezenet1_1/squeezenet1_1.onnx", import.meta.url),
  );
  const file = options.model ?? (existsSync(shared) ? shared : undefined);
  if (!file)
    return {
      name: "CenterNet (demo)",
      section: { loader: "CenterNetModelLoader", model_path: ["demo://centernet"], class_names: ["coco"] },
    };
  return {
    name: file.split("/").at(-1)!,
    section: {
      loader: "ImageClassificationModelLoader",
      model_path: [file],
      class_names: ["imagenet"],
      input_image_size: [224, 224],
    },
  };
}

/** The sample photo as a JPEG of about 200 KB. */
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

async function configFor(
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

async function specFor(config: Config): Promise<LoaderSpec> {
  return {
    modelName: "Bench",
    configFile: config.file,
    model: config.models["Bench"]!,
    baseDir: folder,
    modelPaths: await resolveModelPaths(config, "Bench", say),
    device: "cpu",
    intraOpThreads: 1,
    maxPicturePixels: config.max_picture_pixels,
  };
}

async function startRawLoops(
  config: Config,
  repeated?: RepeatedRequest,
): Promise<{ loops: ChildProcess[]; rate(): Promise<number> }> {
  const spec = await specFor(config);
  const loops = Array.from({ length: CORES }, () => forkTs("rawLoop.ts"));
  await Promise.all(loops.map((loop) => ask(loop, { spec, files: [picture], repeated, batch: BATCH })));
  return {
    loops,
    rate: async () => {
      const answers = await Promise.all(loops.map((loop) => ask(loop, { seconds: SECONDS })));
      return answers.reduce((sum, { rate }) => sum + (rate as number), 0);
    },
  };
}

async function startServer(
  inputs: "files" | "redis",
  name = `server-${inputs}`,
  section?: Record<string, unknown>,
): Promise<{ url: string; child: ChildProcess }> {
  const config = await configFor(name, inputs, undefined, section);
  const child = spawn(process.execPath, [MAIN, "start", "--config", config.file], {
    env: { ...process.env, REDIS_URL: redis.url, INFERMILL_API_KEYS: "" },
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

async function startWorkerProcess(config: Config): Promise<ChildProcess> {
  const child = fork(MAIN, ["worker", "--config", config.file], {
    // Then it says when it is ready, as below `infermill start`.
    env: { ...process.env, REDIS_URL: redis.url, INFERMILL_SUPERVISED: "1" },
    execArgv: [],
  });
  children.push(child);
  await new Promise((resolve) => child.once("message", resolve));
  return child;
}

function forkTs(file: string, args: string[] = []): ChildProcess {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), args, {
    env: { ...process.env, UV_THREADPOOL_SIZE: "2" },
  });
  children.push(child);
  return child;
}

function ask(child: ChildProcess, message: object): Promise<Record<string, unknown>> {
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

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await gone;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
