/** The bench's own rows: what infermill costs over the bare model and the bare queue, as ratios within one run. */
import type { ChildProcess } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Queue } from "bullmq";
import sharp from "sharp";
import type { BulkRun } from "../src/core/bulkRun.ts";
import { openLoader } from "../src/loaders/openLoader.ts";
import { attachPictures } from "../src/imil/requestPictures.ts";
import { connectRedis } from "../src/redis/connections.ts";
import { newPredictionId } from "../src/queue/names.ts";
import { openPredictions } from "../src/queue/predictions.ts";
import { encodeModel } from "../src/models/onnxProto.ts";
import { post, percentile } from "./client.ts";
import { load } from "./load.ts";
import { findingsOf, type Findings } from "./answers.ts";
import { measureEngines } from "./engines.ts";
import { perceptron, wholeWordTokenizer } from "./models.ts";
import { memoryOfEach } from "./processes.ts";
import { specFor, startLoaderLoops, startPictureLoops } from "./rawLoops.ts";
import type { RepeatedRequest } from "./rawLoop.ts";
import {
  BATCH,
  chooseDetector,
  configFor,
  CONNECTIONS,
  CORES,
  end,
  folder,
  forkTs,
  linkPictures,
  makeLargePhoto,
  median,
  model,
  options,
  picture,
  redis,
  ROUNDS,
  say,
  SECONDS,
  sharedModel,
  startServer,
  startWorkerProcess,
  type PictureModel,
} from "./setting.ts";

const FLOATS = 256;
const NOOP_BACKLOG = options.quick ? 500 : 5000;
const FEW_FILES = options.quick ? 200 : 1000;
const MANY_FILES = options.entries ?? (options.quick ? 400 : 100_000);
/** Whose memory a long bulk run must not raise; the engines of a worker count together. */
const PROCESSES = ["api", "worker", "coordinator", "engines", "redis"];

export interface Row {
  figure: string;
  value: number;
  /** Absent where a figure is only told. */
  aim?: string;
  met?: boolean;
  detail: string;
}

const rows: Row[] = [];
/** What each raw loop was made of. */
const rawLoops = new Set<string>();

const MEASURES: Record<string, () => Promise<void>> = {
  bulk: measureBulk,
  http: measureHttp,
  photo: measurePhoto,
  detector: measureDetector,
  tensors: measureTensors,
  texts: measureTexts,
  noop: measureNoop,
  latency: measureLatency,
  lone: measureLoneDuringBulk,
  start: measureStart,
  memory: measureMemory,
  "engine-memory": measureEngineMemory,
  flat: measureFlatness,
  engines: compareEngines,
};

/** Measures the rows of these names, or all. */
export async function measureRows(
  names = Object.keys(MEASURES),
): Promise<{ rows: Row[]; rawLoops: string[] }> {
  for (const name of names) {
    const measure = MEASURES[name];
    if (!measure) throw new Error(`unknown row ${name}, the rows are ${Object.keys(MEASURES).join(", ")}`);
    await measure();
  }
  return { rows, rawLoops: [...rawLoops] };
}

/** Images per second of whole bulk runs, from the call until the end, against the raw loop. */
async function measureBulk(): Promise<void> {
  const server = await startServer("files");
  const raw = await startPictureLoops(model, picture, await answerOf(server.url, picture));
  const rate = await raw.rate();
  const count = options.quick ? 60 : Math.max(200, Math.ceil(2 * rate * SECONDS));
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
    figure: `bulk folder run ÷ ${raw.name}`,
    value,
    aim: "≥ 0.95",
    met: value >= 0.95,
    detail: `${median(runs.map((run) => run.bulk)).toFixed(1)} against ${median(runs.map((run) => run.raw)).toFixed(1)} images/s, runs of ${count} files`,
  });
  rawLoops.add(`${raw.name}: ${raw.madeOf}`);
  await raw.close();
  await end(server.child);
}

/** What infermill finds in a picture. */
async function answerOf(url: string, file: string): Promise<Findings> {
  const { status, text } = await post(`${url}/v1/models/Bench/predictions`, "image/jpeg", readFileSync(file));
  if (status !== 200) throw new Error(`infermill answers ${status}: ${text}`);
  return findingsOf(text);
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
  const p95 = percentile(latencies, 95);
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
  look();
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
  await measureUploads(model, picture, [
    { store: "redis", figure: "HTTP upload to result, inputs in redis", aim: 0.75 },
    { store: "files", figure: "HTTP upload to result, inputs in files", aim: 0.83 },
  ]);
}

async function measurePhoto(): Promise<void> {
  const figure = "HTTP upload of a 12-megapixel photo";
  await measureUploads(model, await makeLargePhoto(), [{ store: "files", figure, aim: 0.8 }]);
}

async function measureDetector(): Promise<void> {
  const detector = await chooseDetector();
  if (!detector) return say("detector: left out, there is no file of YOLOv8n (--detector)");
  const figure = `HTTP upload to ${detector.name}`;
  await measureUploads(detector, picture, [{ store: "files", figure, aim: 0.9 }]);
}

/** Uploads of a picture per second against the raw loop, a row for each input store. */
async function measureUploads(
  measured: PictureModel,
  file: string,
  stores: { store: "files" | "redis"; figure: string; aim: number }[],
): Promise<void> {
  const servers: { url: string; child: ChildProcess }[] = [];
  for (const { store } of stores)
    servers.push(await startServer(store, `${measured.plain.kind}-${store}`, measured.section));
  const raw = await startPictureLoops(measured, file, await answerOf(servers[0]!.url, file));
  const upload = async ({ url }: { url: string }) => {
    const figures = await load({
      url: `${url}/v1/models/Bench/predictions`,
      file,
      headers: { "Content-Type": "image/jpeg", Prefer: "wait=60" },
      succeeded: '"status":"succeeded"',
      connections: CONNECTIONS,
      seconds: SECONDS,
    });
    if (figures.errors > 0) throw new Error(`${figures.errors} of ${figures.requests} uploads failed`);
    return figures.rate;
  };
  for (const server of servers) await upload(server);
  const runs: { raw: number; rates: number[] }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const run = { raw: await raw.rate(), rates: [] as number[] };
    for (const server of servers) run.rates.push(await upload(server));
    say(
      `${measured.name} round ${round + 1}: raw ${run.raw.toFixed(1)}, uploads ${run.rates.map((rate) => rate.toFixed(1)).join(", ")} images/s`,
    );
    runs.push(run);
  }
  for (const [index, { figure, aim }] of stores.entries()) {
    const value = median(runs.map((run) => run.rates[index]! / run.raw));
    rows.push({
      figure: `${figure} ÷ ${raw.name}`,
      value,
      aim: `≥ ${aim}`,
      met: value >= aim,
      detail: `${median(runs.map((run) => run.rates[index]!)).toFixed(1)} against ${median(runs.map((run) => run.raw)).toFixed(1)} images/s`,
    });
  }
  rawLoops.add(`${raw.name}: ${raw.madeOf}`);
  await raw.close();
  for (const { child } of servers) await end(child);
}

/** Seconds from `infermill start`, with a Redis of its own, until the first right answer. */
async function measureStart(): Promise<void> {
  const seconds: number[] = [];
  for (let start = 0; start < Math.min(ROUNDS, 3); start++) {
    const startedAt = performance.now();
    const server = await startServer("files", `start-${start}`, model.section, { REDIS_URL: "" });
    await answerOf(server.url, picture);
    seconds.push((performance.now() - startedAt) / 1000);
    await end(server.child);
  }
  rows.push({
    figure: "cold start: from the command to the first answer, s",
    value: median(seconds),
    detail: `a Redis of its own, ${CORES} engines of ${model.name}`,
  });
}

/** Memory of one engine of each model after uploads. */
async function measureEngineMemory(): Promise<void> {
  for (const measured of [model, await chooseDetector()]) {
    if (!measured) continue;
    const server = await startServer("files", `memory-${measured.plain.kind}`, measured.section);
    const bytes = readFileSync(picture);
    const url = `${server.url}/v1/models/Bench/predictions`;
    const client = async () => {
      for (let sent = 0; sent < (options.quick ? 2 : 20); sent++) await post(url, "image/jpeg", bytes);
    };
    await Promise.all(Array.from({ length: 2 * BATCH }, client));
    const engines = memoryOfEach([server.child.pid!]).filter(({ command }) =>
      /engines.node.engine/.test(command),
    );
    const value = median(engines.map((engine) => engine.bytes / 2 ** 20));
    rows.push({
      figure: `memory of an engine of ${measured.name}, MiB`,
      value,
      aim: "≤ 300",
      met: value <= 300,
      detail: `${engines.length} engines, after uploads of a picture`,
    });
    await end(server.child);
  }
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
        headers: {
          "Content-Type": "application/octet-stream",
          "Inference-Header-Content-Length": String(head.length),
        },
        succeeded: '"outputs"',
        aim: 0.1,
      },
      {
        figure: `${FLOATS} floats over /v2, JSON ÷ raw loop`,
        path: "/v2/models/Bench/infer",
        file: json,
        headers: { "Content-Type": "application/json" },
        succeeded: '"outputs"',
        aim: 0.1,
      },
    ],
  });
}

/** Texts per second through MiniLM over `/v1/embeddings`, against the raw loop; needs the model's file. */
async function measureTexts(): Promise<void> {
  const file = options.textModel ?? sharedModel("any/minilm_int8/model.onnx");
  if (file === undefined) return say("texts: left out, there is no file of MiniLM (--text-model)");
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
        headers: { "Content-Type": "application/json" },
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
  uploads: {
    figure: string;
    path: string;
    file: string;
    headers: Record<string, string>;
    succeeded: string;
    aim: number;
  }[];
}): Promise<void> {
  const section = what.sections["Bench"];
  const config = await configFor(`raw-${what.name}`, "files", 1, section);
  const raw = await startLoaderLoops(config, { repeated: what.repeated });
  const server = await startServer("files", what.name, section);
  const send = async ({ path, file, headers, succeeded }: (typeof what.uploads)[number]) => {
    const url = server.url + path;
    const figures = await load({ url, file, headers, succeeded, connections: CONNECTIONS, seconds: SECONDS });
    if (figures.errors > 0) throw new Error(`${figures.errors} of ${figures.requests} requests failed`);
    return figures.rate;
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
  rawLoops.add(`${raw.name}: ${raw.madeOf}`);
  await raw.close();
  await end(server.child);
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

/** Latency of a lone synchronous prediction: the median less that of the bare loader, and its tail. */
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
    ["upload", `a ${(bytes.length / 1000).toFixed(0)} KB upload`, 5],
    ["reference", "a file by reference", 3],
  ] as const) {
    const value = median(samples.map((sample) => sample[key])) - bare;
    rows.push({
      figure: `added latency p50 of ${name}, ms`,
      value,
      aim: `≤ ${aim}`,
      met: value <= aim,
      detail: `${(value + bare).toFixed(1)} against ${bare.toFixed(1)} ms of the bare loader`,
    });
    const of = (percent: number) =>
      percentile(
        samples.map((sample) => sample[key]),
        percent,
      );
    rows.push({
      figure: `lone latency of ${name}, p95 less p50, ms`,
      value: of(95) - of(50),
      aim: "≤ 4",
      met: of(95) - of(50) <= 4,
      detail: `p50 ${of(50).toFixed(1)}, p95 ${of(95).toFixed(1)}, p99 ${of(99).toFixed(1)} ms`,
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
