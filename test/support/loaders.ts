/** Loaders for tests, opened as an engine opens them, and small models to open them with. */
import { mkdtempSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { InferenceSession } from "onnxruntime-node";
import { afterAll, onTestFinished, vi } from "vitest";
import { modelSchema } from "../../src/config/schema.ts";
import {
  attachPictures,
  type BaseModelLoader,
  type BatchTrace,
  type Finding,
  type LoaderClass,
  type Outcome,
  type PredictionRequest,
} from "../../src/index.ts";
import { findingsOf } from "../../src/imil/response.ts";
import { buildModelSection } from "../../src/loaders/section.ts";
import { encodeModel, type OnnxModel } from "../../src/models/onnxProto.ts";

/** A model's loader with these settings in its section, checked, loaded and warmed up; closed when the test ends. */
export async function openLoader<T extends BaseModelLoader>(
  Loader: LoaderClass & { readonly prototype: T },
  modelPaths: string[],
  settings: Record<string, unknown> = {},
): Promise<T> {
  const model = modelSchema.parse({ loader: Loader.name, model_path: modelPaths, ...settings });
  const section = await buildModelSection("Model", model, Loader, {
    baseDir: tmpdir(),
    device: "cpu",
    intraOpThreads: 1,
    maxPicturePixels: 64_000_000,
    modelPaths,
  });
  const loader = new Loader({ Model: section }, "Model") as T;
  await loader.load();
  onTestFinished(() => loader.close());
  await loader.warmUp();
  return loader;
}

export const noTime = (): BatchTrace => ({ preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 });

/** What one batch of these requests comes to: the findings of each, or its error. */
export async function predictBatch(
  loader: BaseModelLoader,
  requests: [picture: Buffer, keys?: PredictionRequest][],
): Promise<(Finding[] | Error)[]> {
  const outcomes: Outcome[] = await loader.predictRequests(
    requests.map(([picture, keys]) => attachPictures({ ...keys }, [picture])),
    noTime(),
  );
  return outcomes.map((outcome) => (outcome instanceof Error ? outcome : [...findingsOf(outcome)]));
}

/** The findings of one picture. */
export async function predictOne(
  loader: BaseModelLoader,
  picture: Buffer,
  keys?: PredictionRequest,
): Promise<Finding[]> {
  const [outcome] = await predictBatch(loader, [[picture, keys]]);
  if (outcome instanceof Error) throw outcome;
  return outcome!;
}

const { prototype: sessions } = InferenceSession as unknown as { prototype: InferenceSession };
// oxlint-disable-next-line typescript/unbound-method -- called with its session below
const realRun = sessions.run as (...args: unknown[]) => ReturnType<InferenceSession["run"]>;

/** How many rows each run of a model with this input takes, from now to the end of the test. */
export function watchRuns(input: string): number[] {
  const rows: number[] = [];
  const spy = vi.spyOn(sessions, "run").mockImplementation(function (
    this: InferenceSession,
    ...args: unknown[]
  ) {
    const feeds = args[0] as InferenceSession.FeedsType;
    if (feeds[input]) rows.push(feeds[input].dims[0]!);
    return realRun.call(this, ...args);
  });
  onTestFinished(() => spy.mockRestore());
  return rows;
}

let folder: string | undefined;
let files = 0;

/** The path of a file with this model, in a folder that is removed after the test file. */
export async function modelFile(model: OnnxModel): Promise<string> {
  return temporaryFile("onnx", encodeModel(model));
}

export async function temporaryFile(ending: string, content: string | Uint8Array): Promise<string> {
  folder ??= mkdtempSync(path.join(tmpdir(), "infermill-models-"));
  const file = path.join(folder, `${files++}.${ending}`);
  await writeFile(file, content);
  return file;
}

afterAll(() => {
  if (folder) rmSync(folder, { recursive: true });
});
