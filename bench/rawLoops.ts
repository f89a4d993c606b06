/** Starts raw loops: one process for each core that does a model's work over and over, without queue, HTTP or batcher. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import type { Config } from "../src/config/schema.ts";
import type { LoaderSpec } from "../src/loaders/loaderSpec.ts";
import { resolveModelPaths } from "../src/loaders/openLoader.ts";
import { checkFindings, findingsOf, type Findings } from "./answers.ts";
import { openEnvironment, type Environment } from "./environments.ts";
import type { RepeatedRequest } from "./rawLoop.ts";
import {
  ask,
  BATCH,
  configFor,
  CORES,
  end,
  folder,
  forkTs,
  options,
  say,
  SECONDS,
  type PictureModel,
} from "./setting.ts";

const PYTHON_LOOP = fileURLToPath(new URL("rawLoop.py", import.meta.url));
const REQUIREMENTS = fileURLToPath(new URL("rawLoop.txt", import.meta.url));
const LIBRARIES = ["simplejpeg", "opencv-python-headless", "onnxruntime"];

export interface RawLoops {
  name: string;
  /** The libraries that it is made of. */
  madeOf: string;
  /** Pictures or requests per second of all together. */
  rate(): Promise<number>;
  close(): Promise<void>;
}

/**
 * The fastest loop over a picture: libjpeg-turbo, OpenCV and onnxruntime in Python; where they can't be had, the loader's
 * own code with sharp. Its answer must be the expected one.
 */
export async function startPictureLoops(
  model: PictureModel,
  file: string,
  expected: Findings,
): Promise<RawLoops> {
  let environment: Environment;
  try {
    environment = await openEnvironment(REQUIREMENTS, { existing: options.venv });
  } catch (error) {
    say(`the raw loop is the slower one of sharp: ${(error as Error).message}`);
    const config = await configFor(`raw-${model.plain.kind}`, "files", 1, model.section);
    return await startLoaderLoops(config, { name: "raw loop of sharp", files: [file] });
  }
  return await startPythonLoops(environment, model, file, expected);
}

async function startPythonLoops(
  { python, packages }: Environment,
  { plain }: PictureModel,
  file: string,
  expected: Findings,
): Promise<RawLoops> {
  const loops = Array.from({ length: CORES }, () => {
    const child = spawn(python, [PYTHON_LOOP], {
      env: {
        ...process.env,
        BENCH_MODEL: JSON.stringify(plain),
        BENCH_DECODER: "turbo",
        OMP_NUM_THREADS: "1",
        ORT_DISABLE_TELEMETRY: "1",
      },
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout });
    const question = async (message: object): Promise<string> => {
      child.stdin.write(`${JSON.stringify(message)}\n`);
      const [line] = (await Promise.race([
        once(lines, "line"),
        once(child, "exit").then(() => Promise.reject(new Error("the raw loop in Python ended"))),
      ])) as [string];
      return line;
    };
    return { child, question };
  });
  const close = async () => {
    for (const { child } of loops) await end(child);
  };
  try {
    for (const { question } of loops)
      checkFindings("the raw loop", findingsOf(await question({ files: [file] })), expected, plain.threshold);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    name: "raw loop",
    madeOf: LIBRARIES.map((name) => `${name} ${packages[name]}`).join(", "),
    close,
    rate: async () => {
      const answers = await Promise.all(loops.map(({ question }) => question({ seconds: SECONDS })));
      return answers.reduce((sum, line) => sum + (JSON.parse(line) as { rate: number }).rate, 0);
    },
  };
}

/** Loops of a loader's own code over pictures or over one request. */
export async function startLoaderLoops(
  config: Config,
  { name = "raw loop", ...work }: { name?: string; files?: string[]; repeated?: RepeatedRequest },
): Promise<RawLoops> {
  const spec = await specFor(config);
  const loops: ChildProcess[] = Array.from({ length: CORES }, () => forkTs("rawLoop.ts"));
  await Promise.all(loops.map((loop) => ask(loop, { spec, batch: BATCH, ...work })));
  return {
    name,
    madeOf: "the loader's own code",
    rate: async () => {
      const answers = await Promise.all(loops.map((loop) => ask(loop, { seconds: SECONDS })));
      return answers.reduce((sum, { rate }) => sum + (rate as number), 0);
    },
    close: async () => {
      for (const loop of loops) await end(loop);
    },
  };
}

export async function specFor(config: Config): Promise<LoaderSpec> {
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
