/** `infermill test`: one picture through a model some times, here and without Redis, as IMIL's test.py does. */
import { closeModels, chooseModel, executeModel, openConfig, openLocalModel } from "../executeModel.ts";
import type { PredictionRequest } from "../imil/dictionaries.ts";
import { EXIT_FAILED, UsageError } from "./exit.ts";
import { readPicture } from "./predict.ts";
import { formatJson } from "../core/json.ts";

export interface TestOptions {
  config?: string;
  model?: string;
  confidence: string;
  iteration: string;
  image?: string;
  prompt?: string;
}

/** Prints each response as a line of JSON on stdout, and how long they took on stderr. */
export async function test(options: TestOptions): Promise<void> {
  const iterations = readIterations(options.iteration);
  const request = await buildRequest(options);
  const local = { config: options.config, onProgress: (line: string) => console.error(line) };
  try {
    const { models, default_model: defaultModel } = await openConfig(local).config;
    const modelName = chooseModel(request, Object.keys(models), defaultModel);
    const loadMs = await timed(() => openLocalModel(modelName, local));
    const runMs: number[] = [];
    for (let iteration = 0; iteration < iterations; iteration++) {
      runMs.push(
        await timed(async () => {
          const response = await executeModel({ ...request, Model: modelName }, local);
          console.log(formatJson(response));
          if (response.Rc !== "200") process.exitCode = EXIT_FAILED;
        }),
      );
    }
    console.error(summary(modelName, loadMs, runMs));
  } finally {
    await closeModels();
  }
}

/** A request as IMIL's clients send it. */
async function buildRequest({ model, confidence, image, prompt }: TestOptions): Promise<PredictionRequest> {
  return {
    Tid: "1",
    Did: "infermill test",
    Fid: "1",
    Per: [],
    Mtp: [],
    Ts: "",
    Ts_ntp: "",
    Inf_ver: "",
    Msg_ver: "",
    Model: model ?? "",
    Ad: "",
    Ffp: "",
    Ltsize: "",
    Lfp: "",
    Base_64: image === undefined ? "" : (await readPicture(image)).toString("base64"),
    C_threshold: confidence,
    I_fn: image ?? "",
    Msk_img: [],
    Rep_img: [],
    Prompt: readPrompt(prompt),
  };
}

function readIterations(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw new UsageError(`--iteration must be a whole number ≥ 1, got ${text}`);
}

/** A JSON list of prompts, or a list of lists; with single quotes, too, as one writes it for test.py. */
function readPrompt(text: string | undefined): unknown[] {
  if (text === undefined) return [];
  for (const json of [text, text.replaceAll("'", '"')]) {
    try {
      const prompt: unknown = JSON.parse(json);
      if (Array.isArray(prompt)) return Array.isArray(prompt[0]) ? prompt : [prompt];
    } catch {
      // Then it is told below.
    }
  }
  throw new UsageError(`--prompt must be a JSON list such as '["fire","smoke"]', got ${text}`);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

function summary(modelName: string, loadMs: number, runMs: readonly number[]): string {
  const mean = runMs.reduce((sum, ms) => sum + ms, 0) / runMs.length;
  const [shortest, longest] = [Math.min(...runMs), Math.max(...runMs)];
  const runs = runMs.length === 1 ? "1 run" : `${runMs.length} runs`;
  return (
    `${modelName}: loaded in ${loadMs.toFixed(1)} ms, ${runs}: ` +
    `${mean.toFixed(1)} ms on average, ${shortest.toFixed(1)} at best, ${longest.toFixed(1)} at worst`
  );
}
