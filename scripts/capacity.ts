/**
 * `npm run capacity`: what a prediction costs, by the CPU time of each kind of process and by what Redis does, with 1, 2
 * and 4 workers and a model that does nothing. Unlike rates, these figures hardly depend on what else the machine does.
 * docs/capacity.md computes from them. Options: `--workers 1,2,4`, `--count 2000`, `--redis single` (or `cluster`).
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Redis } from "ioredis";
import { post } from "../bench/client.ts";
import { freePort } from "../test/support/freePort.ts";
import { runInfermill, until, type InfermillProcess } from "../test/support/infermill.ts";
import { startOwnRedis, type OwnRedis } from "../test/support/ownRedis.ts";
import { processesBelow } from "../test/support/processes.ts";
import { SECRET, startReceiver } from "../test/support/receiver.ts";
import { startTestCluster } from "../test/support/redisCluster.ts";
import { describeScript, number, numbers, redisKind } from "./options.ts";

const options = describeScript("capacity", "What a prediction costs in CPU time and in Redis.")
  .addOption(numbers("workers", "how many workers, one run after the other", [1, 2, 4]))
  .addOption(number("count", "predictions of each run", 2000))
  .addOption(redisKind("single"))
  .parse()
  .opts<{ workers: number[]; count: number; redis: "single" | "cluster" }>();
const COUNT = options.count;
const CONCURRENCY = 16;
const UPLOAD_BYTES = 50_000;
const BULK_FACTOR = 10;
const IDLE_SECONDS = 10;
const MANY_MODELS = 8;
const NOOP = fileURLToPath(new URL("../bench/noop.ts", import.meta.url));
/** Linux counts CPU time in hundredths of a second. */
const MS_PER_TICK = 10;

interface Usage {
  /** CPU time in ms, by kind of process. */
  cpu: Map<string, number>;
  commands: number;
  bytesIn: number;
  bytesOut: number;
  memory: number;
}

interface Running {
  url: string;
  usage(): Promise<Usage>;
  startWorker(): Promise<InfermillProcess>;
  close(): Promise<void>;
}

const folder = mkdtempSync(join(tmpdir(), "infermill-capacity-"));

async function start(models: readonly string[]): Promise<Running> {
  const cluster = options.redis === "cluster" ? await startTestCluster() : undefined;
  const servers: readonly OwnRedis[] = cluster?.servers ?? [await startOwnRedis()];
  const redisUrl = cluster ? `redis+cluster://${cluster.place}` : servers[0]!.url;
  const port = await freePort();
  const config = join(folder, "infermill.json");
  const model = { loader: "NoopModelLoader", model_loader_file: NOOP, instances: 1, max_batch_size: 8 };
  const settings = {
    port,
    data_dir: "data",
    max_queue_length: COUNT * BULK_FACTOR,
    webhooks: { secret: SECRET, allow: ["127.0.0.1"] },
    models: Object.fromEntries(
      models.map((name) => [name, { ...model, max_queue_length: COUNT * BULK_FACTOR }]),
    ),
  };
  writeFileSync(config, JSON.stringify({ ...settings, max_queue_length: undefined }));
  const processes: [string, InfermillProcess][] = [];
  const run = async (kind: string) => {
    const started = runInfermill([kind, "--config", config], { env: { REDIS_URL: redisUrl } });
    processes.push([kind, started]);
    await started.printed(/"msg":"(listening on|serving |working on)/, 120_000);
    return started;
  };
  await Promise.all([run("api"), run("coordinator")]);
  return {
    url: `http://127.0.0.1:${port}`,
    startWorker: () => run("worker"),
    async usage() {
      const cpu = new Map<string, number>();
      const add = (kind: string, pid: number) => cpu.set(kind, (cpu.get(kind) ?? 0) + cpuOf(pid));
      for (const [kind, { child }] of processes) {
        add(kind, child.pid!);
        for (const engine of processesBelow(child.pid!)) add("engine", engine);
      }
      const usage: Usage = { cpu, commands: 0, bytesIn: 0, bytesOut: 0, memory: 0 };
      for (const server of servers) {
        add("redis", server.process.pid!);
        await addRedis(usage, server.admin);
      }
      return usage;
    },
    async close() {
      for (const [, { child }] of processes) child.kill("SIGTERM");
      await Promise.all(processes.map(([, { exited }]) => exited));
      await Promise.all(servers.map((server) => server.close()));
      rmSync(join(folder, "data"), { recursive: true, force: true });
    },
  };
}

function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** Of the masters: a replica repeats what its master did. */
async function addRedis(usage: Usage, admin: Redis): Promise<void> {
  const info = await admin.info();
  const read = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, "m").exec(info)![1]);
  if (!info.includes("role:master")) return;
  usage.commands += read("total_commands_processed");
  usage.bytesIn += read("total_net_input_bytes");
  usage.bytesOut += read("total_net_output_bytes");
  usage.memory += read("used_memory");
}

const KINDS = ["api", "worker", "engine", "coordinator", "redis"];
const HEAD = ["", ...KINDS.map((kind) => `${kind} ms`), "commands", "B in", "B out"];

function print(cells: readonly (string | number)[]): void {
  const texts = cells.map((cell) => (typeof cell === "number" ? cell.toPrecision(3) : cell));
  console.log(texts.map((text, index) => (index === 0 ? text.padEnd(36) : text.padStart(16))).join(""));
}

/** What something cost, for each of `count`. */
async function measure(
  name: string,
  running: Running,
  count: number,
  work: () => Promise<void>,
): Promise<void> {
  const before = await running.usage();
  await work();
  const after = await running.usage();
  const each = (read: (usage: Usage) => number) => (read(after) - read(before)) / count;
  print([
    name,
    ...KINDS.map((kind) => each(({ cpu }) => cpu.get(kind) ?? 0)),
    each(({ commands }) => commands),
    each(({ bytesIn }) => bytesIn),
    each(({ bytesOut }) => bytesOut),
  ]);
}

async function repeat(count: number, one: () => Promise<void>): Promise<void> {
  let left = count;
  await Promise.all(
    Array.from({ length: CONCURRENCY }, async () => {
      while (left-- > 0) await one();
    }),
  );
}

async function send(
  url: string,
  type: string,
  body: Buffer,
  headers: Record<string, string> = {},
): Promise<string> {
  const { status, text } = await post(url, type, body, headers);
  if (status !== 200 && status !== 202) throw new Error(`${status}: ${text}`);
  return text;
}

async function runBulk(url: string, count: number): Promise<void> {
  const line = `${JSON.stringify({ request: {} })}\n`;
  const text = await send(
    `${url}/v1/bulk?model=Noop`,
    "application/x-ndjson",
    Buffer.from(line.repeat(count)),
  );
  const { id } = JSON.parse(text) as { id: string };
  await until(
    async () => {
      const run = (await (await fetch(`${url}/v1/bulk/${id}`)).json()) as { status: string };
      return run.status === "completed";
    },
    "the end of the run",
    300_000,
  );
}

async function measureWorkers(workers: number): Promise<void> {
  const running = await start(["Noop"]);
  const predictions = `${running.url}/v1/models/Noop/predictions`;
  const json = Buffer.from("{}");
  const upload = Buffer.alloc(UPLOAD_BYTES, 1);
  try {
    if (workers === 1) {
      // Nobody takes them yet.
      const before = await running.usage();
      await repeat(
        COUNT,
        async () => void (await send(predictions, "application/json", json, { Prefer: "wait=0" })),
      );
      const queued = await running.usage();
      await running.startWorker();
      await until(async () => {
        const { queue } = (await (await fetch(`${running.url}/v1/models/Noop`)).json()) as {
          queue: { completed: number };
        };
        return queue.completed === COUNT;
      }, "the end of the backlog");
      const ended = await running.usage();
      const bytes = (usage: Usage) => Math.round((usage.memory - before.memory) / COUNT);
      console.log(
        `memory of Redis: ${bytes(queued)} B for each that waits, ${bytes(ended)} B for each that ended\n`,
      );
    } else {
      await Promise.all(Array.from({ length: workers }, () => running.startWorker()));
    }
    const name = (what: string) => `${what}, ${workers} workers`;
    // What is measured is neither compiling nor the first connections.
    await repeat(COUNT / 4, async () => void (await send(predictions, "application/json", json)));
    await measure(name("JSON, waited for"), running, COUNT, () =>
      repeat(COUNT, async () => void (await send(predictions, "application/json", json))),
    );
    await measure(name("upload of 50 kB, waited for"), running, COUNT / 2, () =>
      repeat(COUNT / 2, async () => void (await send(predictions, "image/jpeg", upload))),
    );
    const batch = Buffer.from("{}\n".repeat(100));
    await measure(name("100 in a call, not waited for"), running, COUNT, () =>
      repeat(COUNT / 100, async () => void (await send(predictions, "application/x-ndjson", batch))).then(
        () => sleep(2000),
      ),
    );
    const receiver = await startReceiver();
    const hook = `${predictions}?webhook=${encodeURIComponent(receiver.url)}`;
    await measure(name("JSON with a webhook"), running, COUNT / 2, async () => {
      await repeat(COUNT / 2, async () => void (await send(hook, "application/json", json)));
      await until(() => receiver.received.length >= COUNT / 2, "all webhooks");
    });
    await receiver.close();
    await runBulk(running.url, COUNT);
    await measure(name("entry of a bulk run"), running, COUNT * BULK_FACTOR, () =>
      runBulk(running.url, COUNT * BULK_FACTOR),
    );
    await measure(`idle, a second, ${workers} workers`, running, IDLE_SECONDS, () =>
      sleep(IDLE_SECONDS * 1000),
    );
  } finally {
    await running.close();
  }
}

async function measureModels(): Promise<void> {
  const running = await start(Array.from({ length: MANY_MODELS }, (_, index) => `Noop${index}`));
  try {
    await running.startWorker();
    await sleep(2000);
    await measure(`idle, a second, ${MANY_MODELS} models`, running, IDLE_SECONDS, () =>
      sleep(IDLE_SECONDS * 1000),
    );
  } finally {
    await running.close();
  }
}

execFileSync("npm", ["run", "build", "--silent"], { stdio: ["ignore", "ignore", "inherit"] });
try {
  print(HEAD);
  for (const workers of options.workers) await measureWorkers(workers);
  await measureModels();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit();
