/**
 * The raw loop: one process of it per core reads pictures and runs them through the same loader code, without queue,
 * HTTP or batcher. Messages: `{ spec, files, batch }` loads, or with a `request` (and its inputs as base64) instead of
 * the files; `{ seconds }` runs and answers requests per second.
 */
import { readFile } from "node:fs/promises";
import sharp from "sharp";
import type { BaseModelLoader } from "../src/loaders/BaseModelLoader.ts";
import type { LoaderSpec } from "../src/loaders/loaderSpec.ts";
import { openLoader } from "../src/loaders/openLoader.ts";
import { attachInputs, UNKNOWN_MEDIA_TYPE } from "../src/core/request.ts";
import { attachPictures } from "../src/imil/requestPictures.ts";

sharp.concurrency(1);
sharp.cache(false);
let loader: BaseModelLoader;
let files: string[] = [];
let batch = 1;
let repeated: RepeatedRequest | undefined;

/** What is run over and over where no pictures are read. */
export interface RepeatedRequest {
  request: Record<string, unknown>;
  inputs?: { name: string; data: string }[];
}

async function readRequest(index: number): Promise<Record<string, unknown>> {
  if (!repeated) return attachPictures({}, [await readFile(files[index % files.length]!)]);
  const inputs = (repeated.inputs ?? []).map(({ name, data }) => ({
    name,
    mediaType: UNKNOWN_MEDIA_TYPE,
    bytes: Buffer.from(data, "base64"),
  }));
  return attachInputs({ ...repeated.request }, inputs);
}

async function runBatch(start: number): Promise<void> {
  const requests = await Promise.all(Array.from({ length: batch }, (_, index) => readRequest(start + index)));
  const outcomes = await loader.predictRequests(requests, {
    preprocess_ms: 0,
    infer_ms: 0,
    postprocess_ms: 0,
  });
  for (const outcome of outcomes) if (outcome instanceof Error) throw outcome;
}

async function run(seconds: number): Promise<number> {
  const startedAt = performance.now();
  const isOver = () => performance.now() - startedAt > seconds * 1000;
  let done = 0;
  // Two batches under way, so that one is decoded while the other runs, as in an engine.
  const bulkQueue = async (first: number) => {
    for (let start = first; !isOver(); start += 2 * batch) {
      await runBatch(start);
      done += batch;
    }
  };
  await Promise.all([bulkQueue(0), bulkQueue(batch)]);
  return done / ((performance.now() - startedAt) / 1000);
}

process.on(
  "message",
  async (message: {
    spec?: LoaderSpec;
    files?: string[];
    repeated?: RepeatedRequest;
    batch?: number;
    seconds?: number;
  }) => {
    if (message.spec) {
      loader = await openLoader(message.spec);
      files = message.files ?? [];
      repeated = message.repeated;
      batch = Math.min(message.batch!, loader.batchLimit);
      process.send!({ ready: true });
    } else {
      process.send!({ rate: await run(message.seconds!) });
    }
  },
);
process.on("disconnect", () => process.exit(0));
