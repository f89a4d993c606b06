/**
 * Names of everything that infermill keeps in Redis, in one place. A Redis Cluster takes several keys in one step only
 * where they lie in one hash slot, which is that of what stands in braces: there each model has a slot, and what belongs
 * to no model has one. On a single Redis there are no braces.
 */
import { createHash } from "node:crypto";
import { QueueKeys } from "./bullmqPackage.ts";
import { v7 as uuidv7 } from "uuid";
import { BadInputError } from "../errors.ts";

export interface Names {
  /**
   * Prefix of BullMQ's own keys for the queues of a model: its own, which has the model's name, and that of its webhook
   * deliveries. Undefined: for those that belong to no model.
   */
  queuePrefix(model: string | undefined): string;
  input(model: string, predictionId: string, index: number): string;
  /** @param ownerId of the prediction with its model before it, or of the entry of a bulk run */
  output(model: string, ownerId: string, name: string): string;
  thumbnail(model: string, id: string): string;
  /** Slots that submissions in progress hold in a model's queue. */
  slots(model: string): string;
  /** Channel on which the loading of a model that failed is asked for. */
  readonly loadRequests: string;
  worker(workerId: string): string;
  /** Sorted set of worker ids by the time of their last heartbeat. */
  readonly workers: string;
  /** Sorted set of what the workers counted of a model in the last minutes, by time. */
  statistics(model: string): string;
  /** Sorted set of coordinators by the time of their last sign of life. */
  readonly coordinators: string;
  /** Queue of webhook deliveries; no model can have this name. */
  readonly deliveryQueue: string;
  /** The models that have a queue of deliveries of their own; undefined stands for all other deliveries. */
  deliveryOwners(models: readonly string[]): (string | undefined)[];
  /** Sorted set of webhook URLs that answered 410, by the time until which they are left alone. */
  readonly goneWebhooks: string;
  /** Channel on which the end of every prediction is published. */
  readonly completions: string;
  /** Prefix of BullMQ's keys for a model's bulkQueue: the queue that holds the predictions of bulk runs only. */
  bulkQueuePrefix(model: string): string;
  /** Channel on which the end of every prediction of a bulk run is published. */
  readonly bulkCompletions: string;
  /** Hash with what is known of a bulk run. */
  bulkRun(id: string): string;
  /** Held by the one process that works on a bulk run. */
  bulkOwner(id: string): string;
  /** Id of the bulk run that a client's Idempotency-Key stands for. */
  bulkIdempotency(key: string): string;
  /** Sorted set of bulk run ids by the time of their creation. */
  readonly bulkRuns: string;
}

/** Queue of the bulk runs themselves, one job a run. No model has this name. */
export const BULK_QUEUE = "_bulk";

/** @param isCluster whether they are for a Redis Cluster */
export function createNames(prefix: string, isCluster = false): Names {
  const own = isCluster ? `{${prefix}}` : prefix;
  const of = (model: string) => (isCluster ? `{${prefix}:${model}}` : prefix);
  return {
    queuePrefix: (model) => `${model === undefined ? own : of(model)}:queue`,
    input: (model, id, index) => `${of(model)}:input:${id}:${index}`,
    output: (model, id, name) => `${of(model)}:output:${id}:${name}`,
    thumbnail: (model, id) => `${of(model)}:thumbnail:${model}:${id}`,
    slots: (model) => `${of(model)}:slots:${model}`,
    loadRequests: `${prefix}:load-requests`,
    worker: (id) => `${own}:worker:${id}`,
    workers: `${own}:workers`,
    statistics: (model) => `${of(model)}:statistics:${model}`,
    coordinators: `${own}:coordinators`,
    deliveryQueue: "_webhooks",
    deliveryOwners: (models) => (isCluster ? [undefined, ...models] : [undefined]),
    goneWebhooks: `${own}:webhooks:gone`,
    completions: `${prefix}:completions`,
    bulkQueuePrefix: (model) => `${of(model)}:bulk-queue`,
    bulkCompletions: `${prefix}:bulk-completions`,
    bulkRun: (id) => `${own}:bulk:${id}`,
    bulkOwner: (id) => `${own}:bulk-owner:${id}`,
    bulkIdempotency: (key) => `${own}:bulk-key:${idOfIdempotencyKey(key)}`,
    bulkRuns: `${own}:bulk-runs`,
  };
}

/** A new id; ids that are made one after the other sort in that order. */
export function newPredictionId(): string {
  return `pred_${uuidv7().replaceAll("-", "")}`;
}

/** A new id of a bulk run; its predictions are `<id>-<index>`. */
export function newBulkRunId(): string {
  return `bulk_${uuidv7().replaceAll("-", "")}`;
}

/** The run and the number of the entry that a prediction of a bulk run is. */
export function partsOfBulkPredictionId(id: string): { run: string; index: string } {
  const dash = id.lastIndexOf("-");
  return { run: id.slice(0, dash), index: id.slice(dash + 1) };
}

/** Whether a bulk run can have this id: what else a client sends must not reach a file name. */
export function isBulkRunId(id: string): boolean {
  return /^bulk_[0-9a-f]{32}$/.test(id);
}

/** A new id of a delivery, which is also its `webhook-id`. */
export function newDeliveryId(): string {
  return `msg_${uuidv7().replaceAll("-", "")}`;
}

/** The id of the one prediction that a client's Idempotency-Key stands for. */
export function idOfIdempotencyKey(key: string): string {
  return `idem_${createHash("sha256").update(key).digest("hex").slice(0, 32)}`;
}

/** Keys that BullMQ keeps beside a queue's jobs: an id of that name would write into them. */
const QUEUE_KEYS: ReadonlySet<string> = new Set(Object.keys(new QueueKeys().getKeys("")));

/** Whether a prediction can have this id. BullMQ takes no ":" and no id that is all digits. */
export function isPredictionId(id: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(id) && !/^\d+$/.test(id) && !QUEUE_KEYS.has(id);
}

/**
 * Checks an id that a client chose.
 * @throws BadInputError
 */
export function checkPredictionId(id: string): string {
  if (QUEUE_KEYS.has(id))
    throw new BadInputError(`a prediction can't have the id "${id}", which the queue uses itself`);
  if (!isPredictionId(id)) {
    throw new BadInputError(
      `a prediction's id must be 1 to 128 letters, digits, "_", "." or "-", begin with a letter or digit and not be all digits, got ${JSON.stringify(id.slice(0, 200))}`,
    );
  }
  return id;
}
