/** One engine of Node and one of Python over the same work: what the protocol, reading and a loader that does nothing cost. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { configSchema } from "../src/config/schema.ts";
import { PRIORITIES } from "../src/core/prediction.ts";
import type { Member, MemberInput } from "../src/engines/protocol.ts";
import { planEngines } from "../src/worker/enginePlan.ts";
import { EnginePool } from "../src/worker/enginePool.ts";

const BATCH = 32;
const CONCURRENCY = 8 * BATCH;
const FILE_BYTES = 164_000;

interface Work {
  name: string;
  request: Record<string, unknown>;
  inputs: MemberInput[];
  /** Least ratio of Python to Node. */
  aim: number;
}

export interface EngineFigure {
  figure: string;
  value: number;
  aim: number;
  node: number;
  python: number;
}

/** Predictions per second of either engine, in interleaved rounds, as the ratio of Python to Node. */
export async function measureEngines(
  folder: string,
  rounds: number,
  seconds: number,
): Promise<EngineFigure[]> {
  const file = join(folder, "engine-input.bin");
  writeFileSync(file, Buffer.alloc(FILE_BYTES, "infermill"));
  const work: Work[] = [
    {
      name: "echo",
      request: { Tid: "1", Did: "camera", Fid: "42", C_threshold: 0.4 },
      inputs: [],
      aim: 0.7,
    },
    { name: "a file of 164 KB", request: {}, inputs: [{ path: file }], aim: 1 },
    { name: "16,000 floats back", request: { Floats: true }, inputs: [], aim: 0.7 },
  ];
  const pools = {
    node: await startPool(folder, "echo.ts"),
    python: await startPool(folder, "echo.py"),
  };
  const figures: EngineFigure[] = [];
  for (const each of work) {
    await rate(pools.node, each, seconds / 3);
    await rate(pools.python, each, seconds / 3);
    const runs: { node: number; python: number }[] = [];
    for (let round = 0; round < rounds; round++)
      runs.push({
        node: await rate(pools.node, each, seconds),
        python: await rate(pools.python, each, seconds),
      });
    figures.push({
      figure: `Python ÷ Node engine, ${each.name}`,
      value: median(runs.map(({ node, python }) => python / node)),
      aim: each.aim,
      node: median(runs.map(({ node }) => node)),
      python: median(runs.map(({ python }) => python)),
    });
  }
  await Promise.all(Object.values(pools).map((pool) => pool.close(0)));
  return figures;
}

async function startPool(folder: string, loaderFile: string): Promise<EnginePool> {
  const model = {
    loader: "EchoModelLoader",
    model_loader_file: fileURLToPath(new URL(loaderFile, import.meta.url)),
    instances: 1,
    max_batch_size: BATCH,
  };
  const config = { ...configSchema.parse({ models: { Echo: model } }), file: join(folder, "engines.json") };
  const pool = new EnginePool({
    modelName: "Echo",
    specs: planEngines(config, ["Echo"]).get("Echo")!,
    maxBatchSize: BATCH,
    maxQueueDelayMs: 0,
    readStored: (members) => members as Member[],
    log: pino({ level: "warn" }),
  });
  await pool.loaded;
  return pool;
}

async function rate(pool: EnginePool, { request, inputs }: Work, seconds: number): Promise<number> {
  const startedAt = performance.now();
  let done = 0;
  const client = async () => {
    while (performance.now() - startedAt < seconds * 1000) {
      const task = { id: "bench", request: { ...request }, inputs: inputs as [], timeoutMs: 60_000 };
      await pool.run({ ...task, priority: PRIORITIES.normal });
      done++;
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, client));
  return done / ((performance.now() - startedAt) / 1000);
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}
