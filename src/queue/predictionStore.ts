/** What the functions of this folder share: connections, queues and stores of one producer. */
import { Job, type Queue } from "./bullmqPackage.ts";
import type { Config, ModelConfig } from "../config/schema.ts";
import { ModelNotFoundError, PredictionNotFoundError } from "../errors.ts";
import { reachRedis, type RedisClient } from "../redis/connections.ts";
import type { StorageWatch } from "./storageWatch.ts";
import type { CompletionEvents, NotifyCompletion } from "./completionEvents.ts";
import type { Deliveries } from "./deliveries.ts";
import type { DiskWatch } from "./diskWatch.ts";
import type { InputStore, StoredInput } from "./inputs.ts";
import type { PredictionJob } from "./jobs.ts";
import type { Names } from "./names.ts";
import type { OutputStore } from "./outputs.ts";
import type { Scripts } from "./scripts.ts";
import type { ThumbnailStore } from "./thumbnails.ts";

export interface PredictionStore {
  readonly config: Config;
  readonly names: Names;
  readonly redis: RedisClient;
  readonly scripts: Scripts;
  /** BullMQ's queues by model name. */
  readonly queues: ReadonlyMap<string, Queue>;
  /** Those that hold the predictions of bulk runs, by model name. */
  readonly bulkQueues: ReadonlyMap<string, Queue>;
  /** When a model's queue was found full last, in Unix time in ms. */
  readonly fullAt: Map<string, number>;
  readonly inputs: InputStore;
  readonly storage: StorageWatch;
  readonly disk: DiskWatch;
  readonly outputs: OutputStore;
  readonly thumbnails: ThumbnailStore;
  readonly deliveries: Deliveries;
  readonly completions: CompletionEvents;
  readonly notifyCompletion: NotifyCompletion;
}

/** @throws ModelNotFoundError naming the models that there are */
export function modelOf(store: PredictionStore, name: string): ModelConfig {
  const model = Object.hasOwn(store.config.models, name) ? store.config.models[name] : undefined;
  if (model) return model;
  throw new ModelNotFoundError(
    `there is no model "${name}"; configured are: ${Object.keys(store.config.models).join(", ")}`,
  );
}

export function queueOf(store: PredictionStore, model: string): Queue {
  modelOf(store, model);
  return store.queues.get(model)!;
}

export async function readJob(
  store: PredictionStore,
  model: string,
  id: string,
): Promise<PredictionJob | undefined> {
  return reachRedis(() => Job.fromId(queueOf(store, model), id) as Promise<PredictionJob | undefined>);
}

export function removeInputs(store: PredictionStore, inputs: readonly StoredInput[]): Promise<void> {
  return store.inputs.remove(inputs.map(({ ref }) => ref));
}

export function notFound(store: PredictionStore, model: string, id: string): PredictionNotFoundError {
  return new PredictionNotFoundError(
    `the model "${model}" has no prediction "${id}"; ended predictions are kept for ${modelOf(store, model).result_ttl_seconds} s`,
  );
}
