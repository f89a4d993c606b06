/** Names of everything that infermill keeps in Redis, in one place. */
import { createHash } from "node:crypto";
import { QueueKeys } from "bullmq";
import { v7 as uuidv7 } from "uuid";
import { BadInputError } from "../errors.ts";

export interface Names {
  /** Prefix of BullMQ's own keys; a model's queue has the model's name. */
  readonly queuePrefix: string;
  input(predictionId: string, index: number): string;
  response(model: string, predictionId: string, attempt: number): string;
  /** Slots that submissions in progress hold in a model's queue. */
  slots(model: string): string;
  worker(workerId: string): string;
  /** Sorted set of worker ids by the time of their last heartbeat. */
  readonly workers: string;
  /** Channel on which the end of every prediction is published. */
  readonly endings: string;
}

export function createNames(prefix: string): Names {
  return {
    queuePrefix: `${prefix}:queue`,
    input: (id, index) => `${prefix}:input:${id}:${index}`,
    response: (model, id, attempt) => `${prefix}:response:${model}:${id}:${attempt}`,
    slots: (model) => `${prefix}:slots:${model}`,
    worker: (id) => `${prefix}:worker:${id}`,
    workers: `${prefix}:workers`,
    endings: `${prefix}:endings`,
  };
}

/** A new id; ids that are made one after the other sort in that order. */
export function newPredictionId(): string {
  return `pred_${uuidv7().replaceAll("-", "")}`;
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
