/** The peers: how each is started, what it is sent, and what it leaves out that infermill does. */
import type { ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EnvironmentOptions } from "../environments.ts";
import { startProcess } from "../processes.ts";
import { BATCH, CORES, startServer } from "../setting.ts";
import { base64Body, binaryBody, formBody, jsonBody, pictureBody, tensorBody, type Body } from "./bodies.ts";

export const HERE = fileURLToPath(new URL(".", import.meta.url));

/** What is served: pictures to a classifier or a detector, a request that does nothing, rows of numbers, texts. */
export type Task = "classifier" | "detector" | "echo" | "rows" | "texts";

/** Where and with what a server runs. */
export interface Place {
  task: Task;
  /** Free ports, the first for HTTP. */
  ports: [number, number, number];
  /** A folder of its own. */
  folder: string;
  /** Socket of a Redis. */
  redisSocket: string;
  /** The model for infermill, as a section of its configuration. */
  section: Record<string, unknown>;
  /** The same for everyone else, as JSON. */
  plain: string;
  /** The interpreter of its environment; "" where it needs none. */
  python: string;
  /** How Python decodes pictures. */
  decoder: Decoder;
}

/** `draft`: Pillow decodes a JPEG at a half, a quarter or an eighth where that suffices. */
export type Decoder = "pillow" | "draft";

export interface Running {
  url: string;
  children: ChildProcess[];
}

/** What is sent: a JPEG, a row of numbers, a text. */
export interface Content {
  picture: Buffer;
  row: readonly number[];
  text: string;
}

export interface Ask {
  path: string;
  body: (content: Content) => Body;
}

export interface Peer {
  name: string;
  label: string;
  /** Its environment: the file of requirements without `.txt`. */
  environment?: string;
  accepts?: NonNullable<EnvironmentOptions["accepts"]>;
  decoder?: Decoder;
  /** Whether what was accepted outlives the process that accepted it. */
  isDurable: boolean;
  /** Why it can be faster. */
  why: string;
  asks: Partial<Record<Task, Ask>>;
  start(place: Place): Promise<Running> | Running;
  /** Where it takes pictures without waiting, and gives their results. */
  collect?: { submit: string; result: (id: string) => string };
  /** It polls while it has nothing to do, so it is stopped while others are measured. */
  polls?: boolean;
  /** It runs on the bench's own Redis. */
  usesRedis?: boolean;
}

/** A command over a folder: pictures in, a line of JSON for each out. */
export interface FolderPeer {
  name: string;
  label: string;
  environment: string;
  script: string;
  decoder: Decoder;
}

/** What the servers and commands of this folder read from their environment. */
export function environmentOf(place: Omit<Place, "section" | "python">): Record<string, string> {
  const { task, plain, redisSocket, folder, ports, decoder } = place;
  return {
    BENCH_TASK: task === "classifier" || task === "detector" ? "pictures" : task,
    BENCH_MODEL: plain,
    BENCH_DECODER: decoder,
    BENCH_REDIS: redisSocket,
    BENCH_FOLDER: folder,
    BENCH_WORKERS: String(CORES),
    PORT: String(ports[0]),
    OMP_NUM_THREADS: "1",
    ORT_DISABLE_TELEMETRY: "1",
    PYTHONPATH: HERE,
    PYTHONDONTWRITEBYTECODE: "1",
    BENTOML_DO_NOT_TRACK: "1",
    // Celery warns where it runs as root.
    C_FORCE_ROOT: "1",
  };
}

const urlOf = ({ ports }: Place) => `http://127.0.0.1:${ports[0]}`;

function run(place: Place, args: string[], more: Record<string, string> = {}): ChildProcess {
  return startProcess(place.python, args, {
    cwd: place.folder,
    env: { ...environmentOf(place), ...more },
    log: join(place.folder, "log.txt"),
  });
}

function uvicorn(place: Place, app: string, workers: number, more?: Record<string, string>): ChildProcess {
  const address = ["--host", "127.0.0.1", "--port", String(place.ports[0]), "--workers", String(workers)];
  return run(place, ["-m", "uvicorn", app, ...address, "--no-access-log", "--log-level", "warning"], more);
}

const RAW: Ask = { path: "/predict", body: ({ picture }) => pictureBody(picture) };
const echoAt = (path: string): Ask => ({ path, body: () => jsonBody({ Fid: "42" }) });
const waiting = (ask: Ask): Ask => ({
  path: ask.path,
  body: (content) => {
    const { bytes, headers } = ask.body(content);
    return { bytes, headers: { ...headers, Prefer: "wait=60" } };
  },
});

export const INFERMILL: Peer = {
  name: "infermill",
  label: "infermill",
  isDurable: true,
  why: "",
  asks: {
    classifier: waiting({ ...RAW, path: "/v1/models/Bench/predictions" }),
    detector: waiting({ ...RAW, path: "/v1/models/Bench/predictions" }),
    echo: waiting(echoAt("/v1/models/Bench/predictions")),
    rows: { path: "/v2/models/Bench/infer", body: ({ row }) => tensorBody(row) },
    texts: { path: "/v1/embeddings", body: ({ text }) => jsonBody({ model: "Bench", input: text }) },
  },
  start: async ({ task, section }) => {
    // With a Redis of its own, as one that `infermill start` finds or starts.
    const { url, child } = await startServer("files", `peer-${task}`, section, { REDIS_URL: "" });
    return { url, children: [child] };
  },
  collect: {
    submit: "/v1/models/Bench/predictions",
    result: (id) => `/v1/models/Bench/predictions/${id}?wait=60`,
  },
};

/** A picture by reference, below `bulk_roots`. */
export const askByReference = (path: string): Ask =>
  waiting({ path: "/v1/models/Bench/predictions", body: () => jsonBody({ image: path }) });

const DRAFT = "Pillow decodes at a half, a quarter or an eighth where that suffices (`Image.draft`).";

const fastapi: Peer = {
  name: "fastapi",
  label: "FastAPI",
  environment: "fastapi",
  isDurable: false,
  why: "The handler itself decodes and runs the model.",
  asks: {
    classifier: RAW,
    detector: RAW,
    echo: echoAt("/predict"),
    rows: { path: "/predict", body: ({ row }) => jsonBody({ x: row }) },
    texts: { path: "/predict", body: ({ text }) => jsonBody({ input: text }) },
  },
  start: (place) => ({
    url: urlOf(place),
    children: [uvicorn(place, "fastapi_peer:app", CORES)],
  }),
};

const litserve: Peer = {
  name: "litserve",
  label: "LitServe",
  environment: "litserve",
  isDurable: false,
  why: "Its front hands requests to its workers through a queue in memory.",
  polls: true,
  asks: {
    classifier: { path: "/predict", body: ({ picture }) => formBody("image", picture) },
    detector: { path: "/predict", body: ({ picture }) => formBody("image", picture) },
    echo: echoAt("/predict"),
    rows: { path: "/predict", body: ({ row }) => jsonBody({ x: row }) },
  },
  start: (place) => ({ url: urlOf(place), children: [run(place, [join(HERE, "litserve_peer.py")])] }),
};

const bentoml: Peer = {
  name: "bentoml",
  label: "BentoML",
  environment: "bentoml",
  isDurable: false,
  why: "Each of its workers takes requests itself.",
  asks: {
    classifier: { path: "/predict", body: ({ picture }) => formBody("images", picture) },
    detector: { path: "/predict", body: ({ picture }) => formBody("images", picture) },
    echo: { path: "/predict", body: () => jsonBody({ ids: ["42"] }) },
  },
  start: (place) => {
    const service = `bentoml_peer:${place.task === "echo" ? "Echo" : "Pictures"}`;
    const address = ["--host", "127.0.0.1", "--port", String(place.ports[0]), "--working-dir", HERE];
    const more = { BENTOML_HOME: place.folder };
    return {
      url: urlOf(place),
      children: [run(place, ["-m", "bentoml", "serve", service, ...address], more)],
    };
  },
};

const mlserver: Peer = {
  name: "mlserver",
  label: "MLServer",
  environment: "mlserver",
  isDurable: false,
  why: "Its front hands requests to its workers through a queue in memory.",
  asks: {
    classifier: { path: "/v2/models/Bench/infer", body: ({ picture }) => base64Body(picture) },
    detector: { path: "/v2/models/Bench/infer", body: ({ picture }) => base64Body(picture) },
    rows: { path: "/v2/models/Bench/infer", body: ({ row }) => tensorBody(row) },
  },
  start: (place) => {
    const [http_port, grpc_port, metrics_port] = place.ports;
    const settings = {
      host: "127.0.0.1",
      http_port,
      grpc_port,
      metrics_port,
      metrics_endpoint: null,
      parallel_workers: CORES,
      debug: false,
      access_log: false,
      environments_dir: join(place.folder, "environments"),
      metrics_dir: join(place.folder, "metrics"),
    };
    const model = {
      name: "Bench",
      implementation: `mlserver_peer.${place.task === "rows" ? "Rows" : "Pictures"}`,
      max_batch_size: BATCH,
      max_batch_time: 0.005,
    };
    writeFileSync(join(place.folder, "settings.json"), JSON.stringify(settings));
    writeFileSync(join(place.folder, "model-settings.json"), JSON.stringify(model));
    const start = "import sys; from mlserver.cli import main; sys.argv[0] = 'mlserver'; main()";
    return { url: urlOf(place), children: [run(place, ["-c", start, "start", place.folder])] };
  },
};

const triton: Peer = {
  name: "triton",
  label: "Triton (PyTriton)",
  environment: "triton",
  accepts: {
    // What embeds Python in Triton was built with an early 3.11 and can't load the library of 3.11.5 and later.
    versions: "3.11.0 to 3.11.4, which PyTriton's Triton needs",
    test: ([major, minor, patch]) => major === 3 && minor === 11 && patch! <= 4,
  },
  isDurable: false,
  why: "Its front is written in C++, and hands requests to Python in shared memory.",
  asks: {
    classifier: { path: "/v2/models/Bench/infer", body: ({ picture }) => binaryBody(picture) },
    detector: { path: "/v2/models/Bench/infer", body: ({ picture }) => binaryBody(picture) },
    rows: { path: "/v2/models/Bench/infer", body: ({ row }) => tensorBody(row) },
  },
  start: (place) => ({ url: urlOf(place), children: [run(place, [join(HERE, "triton_peer.py")])] }),
};

const celery: Peer = {
  name: "celery",
  label: "Celery + FastAPI",
  environment: "celery",
  isDurable: true,
  why: "",
  usesRedis: true,
  asks: { classifier: RAW, detector: RAW, echo: echoAt("/echo") },
  start: (place) => {
    const worker = ["-m", "celery", "-A", "celery_peer", "worker", "-P", "prefork", "-c", String(CORES)];
    const quiet = ["-l", "error", "--without-gossip", "--without-mingle"];
    return {
      url: urlOf(place),
      children: [
        run(place, [...worker, ...quiet]),
        uvicorn(place, "celery_peer:front", 1, { BENCH_FRONT: "1" }),
      ],
    };
  },
  collect: { submit: "/submit", result: (id) => `/result/${id}` },
};

const bullmq: Peer = {
  name: "bullmq",
  label: "BullMQ by hand",
  isDurable: true,
  why: "It does less: no check of the request, no timings, no limits, no batches.",
  usesRedis: true,
  asks: { classifier: RAW },
  start: (place) => {
    const script = join(HERE, "bullmq_peer.mjs");
    const start = (role: string) =>
      startProcess(process.execPath, [script, role], {
        cwd: place.folder,
        env: { ...environmentOf(place), UV_THREADPOOL_SIZE: "2" },
        log: join(place.folder, "log.txt"),
      });
    return {
      url: urlOf(place),
      children: [start("front"), ...Array.from({ length: CORES }, () => start("worker"))],
    };
  },
  collect: { submit: "/submit", result: (id) => `/result/${id}` },
};

/** A peer of Python whose Pillow decodes at a scale. */
const withDraft = (peer: Peer): Peer => ({
  ...peer,
  name: `${peer.name}-draft`,
  label: `${peer.label}, draft`,
  decoder: "draft",
  why: `${peer.why} ${DRAFT}`,
  asks: { classifier: peer.asks.classifier!, detector: peer.asks.detector! },
});

export const PEERS: readonly Peer[] = [
  fastapi,
  withDraft(fastapi),
  litserve,
  bentoml,
  mlserver,
  triton,
  withDraft(triton),
  celery,
  bullmq,
];

export const FOLDER_PEERS: readonly FolderPeer[] = [
  {
    name: "pool",
    label: "pool of processes",
    environment: "pool",
    script: "pool_peer.py",
    decoder: "pillow",
  },
  {
    name: "pool-draft",
    label: "the pool, draft",
    environment: "pool",
    script: "pool_peer.py",
    decoder: "draft",
  },
  { name: "ray", label: "Ray Data", environment: "ray", script: "ray_peer.py", decoder: "pillow" },
  {
    name: "ray-draft",
    label: "Ray Data, draft",
    environment: "ray",
    script: "ray_peer.py",
    decoder: "draft",
  },
];
