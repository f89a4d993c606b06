/**
 * The one service behind every protocol: it accepts predictions, waits for them
 * and runs them to their end. Accepting is in this order: reserve room, store
 * the inputs, add the job, give back what was not used. Whatever fails on the
 * way leaves neither a slot nor an input behind; only where Redis doesn't
 * answer the last step, the inputs stay for a prediction that may be there.
 */
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import type { Response } from "express";
import type { LoaderDescription } from "../core/description.ts";
import type { RequestDictionary } from "../core/request.ts";
import {
  AlreadyEndedError,
  BadInputError,
  IdempotencyConflictError,
  InfermillError,
  PredictionTimeoutError,
  RedisUnavailableError,
  RetryableError,
  type ErrorSummary,
} from "../errors.ts";
import type { Webhook } from "../queue/deliveries.ts";
import type { InputLabel, StoredInput } from "../queue/inputs.ts";
import { errorOfSummary } from "../queue/jobs.ts";
import { isFinal, type Prediction, type Priority } from "../core/prediction.ts";
import { newPredictionId } from "../queue/names.ts";
import type { Submission } from "../queue/predictions.ts";
import type { Api } from "./api.ts";
import { ClientGoneError } from "./problems.ts";
import { abortWhenGone } from "./waiting.ts";

/** Inputs of a call with many predictions that are written side by side. */
const PARALLEL_WRITES = 16;

/** How a prediction is to be run. */
export interface SubmissionOptions {
  priority?: Priority | undefined;
  /** Longest wait in the queue, in milliseconds. */
  ttlMs?: number | undefined;
  /** Longest run, in milliseconds. */
  timeoutMs?: number | undefined;
  webhook?: Webhook | undefined;
}

/** Writes the next input of a prediction to the input store. */
export type StoreInput = (source: Buffer | Readable, label: InputLabel) => Promise<StoredInput>;

/** A prediction before its inputs are stored. */
export interface Draft {
  id: string;
  /** Whether the id is the client's, so that the submission is idempotent. */
  isIdempotent: boolean;
  /** Called once there is room: stores the inputs, in their order. */
  receive: (store: StoreInput) => Promise<{ request: RequestDictionary; inputs: StoredInput[] }>;
}

/** An input that is in memory and not stored yet. */
export interface NewInput {
  bytes: Buffer;
  label: InputLabel;
}

/** A dictionary without its inputs, and these: as bytes, or as files and URLs that stay where they are. */
export interface RequestParts {
  request: RequestDictionary;
  inputs: (NewInput | StoredInput)[];
}

/** What a model says that its requests bring, as a live worker reports it; with no worker to ask, its loader decides later. */
export async function descriptionOf(api: Api, model: string): Promise<LoaderDescription | undefined> {
  const reports = await api.recentReports();
  for (const { models } of reports) {
    const description = models[model]?.description;
    if (description) return description;
  }
  return undefined;
}

/** A draft whose bytes are in memory already. */
export function draftOf(parts: RequestParts, clientId?: string): Draft {
  return {
    id: clientId ?? newPredictionId(),
    isIdempotent: clientId !== undefined,
    receive: async (store) => {
      const inputs: StoredInput[] = [];
      for (const input of parts.inputs)
        inputs.push("ref" in input ? input : await store(input.bytes, input.label));
      return { request: parts.request, inputs };
    },
  };
}

/**
 * @returns for each draft its prediction, or the error that it alone was refused with
 * @throws QueueFullError when there is no room at all, and whatever fails in storing
 */
export async function acceptPredictions(
  api: Api,
  model: string,
  drafts: readonly Draft[],
  options: SubmissionOptions,
): Promise<(Prediction | InfermillError)[]> {
  const { predictions } = api;
  const exist = await Promise.all(
    drafts.map(async (draft) => draft.isIdempotent && (await predictions.exists(model, draft.id))),
  );
  const fresh = drafts.filter((_, index) => !exist[index]);
  const slots = fresh.length > 0 ? await predictions.reserve(model, fresh.length) : undefined;
  try {
    const withoutRoom = new Set(fresh.slice(slots?.granted));
    const submissions = await storeInputs(api, drafts, withoutRoom, options);
    const added =
      slots &&
      (await predictions.submit(
        slots,
        submissions.filter((_, index) => !exist[index]),
      ));
    const outcomes: (Prediction | InfermillError)[] = [];
    for (const [index, submission] of submissions.entries()) {
      outcomes.push(exist[index] ? await repeat(api, model, submission) : added!.shift()!);
    }
    return outcomes;
  } finally {
    slots?.release();
  }
}

/**
 * Accepts a prediction and waits for its end, up to `waitMs`: what comes back may not have ended.
 * @throws whatever it is refused with
 */
export async function submitAndWait(
  api: Api,
  model: string,
  draft: Draft,
  options: SubmissionOptions,
  { waitMs, res }: { waitMs: number; res: Response },
): Promise<Prediction> {
  // The watch begins before the job is added, so that its end can't be missed and one look at the end is enough.
  const watch = waitMs > 0 ? api.predictions.watch(model, draft.id) : undefined;
  const gone = abortWhenGone(res, api.closing);
  try {
    const [outcome] = await acceptPredictions(api, model, [draft], options);
    if (outcome instanceof InfermillError) throw outcome;
    const accepted = outcome!;
    if (!watch || isFinal(accepted.status)) return accepted;
    // What was accepted is accepted, also where Redis goes away while its end is waited for.
    return await api.predictions.wait(model, draft.id, waitMs, gone.signal, watch).catch((error: unknown) => {
      if (error instanceof RedisUnavailableError) return accepted;
      throw error;
    });
  } finally {
    watch?.stop();
    gone.stop();
  }
}

/**
 * Runs a prediction to its end for a client that waits for it and knows no id: it is cancelled where the client leaves,
 * and after `limitMs` (default `sync_timeout_ms`).
 * @throws what the prediction failed with, PredictionTimeoutError after the limit
 */
export async function runToEnd(
  api: Api,
  model: string,
  draft: Draft,
  options: SubmissionOptions,
  res: Response,
  limitMs: number = api.config.sync_timeout_ms,
): Promise<Prediction> {
  let prediction = await submitAndWait(
    api,
    model,
    draft,
    { ttlMs: limitMs, ...options },
    { waitMs: limitMs, res },
  );
  const isGivenUp = !isFinal(prediction.status);
  if (isGivenUp) prediction = await giveUp(api, model, draft.id);
  if (prediction.result) return prediction;
  if (isGivenUp && res.destroyed) throw new ClientGoneError("the client went away");
  if (isGivenUp && api.closing.aborted) throw new RetryableError("the api shuts down: send it again");
  if (isGivenUp || prediction.status === "expired") {
    throw new PredictionTimeoutError(
      `no response within ${limitMs} ms (sync_timeout_ms); POST /v1/models/${model}/predictions doesn't wait`,
    );
  }
  throw errorOfSummary(prediction.error as ErrorSummary);
}

/** Its id was told to nobody, so nobody could ask for its response later. */
async function giveUp({ predictions }: Api, model: string, id: string): Promise<Prediction> {
  try {
    return await predictions.cancel(model, id);
  } catch (error) {
    if (error instanceof AlreadyEndedError) return predictions.read(model, id);
    throw error;
  }
}

async function repeat(api: Api, model: string, submission: Submission): Promise<Prediction | InfermillError> {
  try {
    await api.predictions.confirmSame(model, submission);
  } catch (error) {
    if (error instanceof IdempotencyConflictError) return error;
    throw error;
  }
  return api.predictions.read(model, submission.id);
}

async function storeInputs(
  api: Api,
  drafts: readonly Draft[],
  withoutRoom: ReadonlySet<Draft>,
  options: SubmissionOptions,
): Promise<Submission[]> {
  const { inputs: store } = api.predictions;
  const stored: StoredInput[] = [];
  const toSubmission = async ({ id, isIdempotent, receive }: Draft): Promise<Submission> => {
    // Under the client's id the inputs of its first submission may still wait.
    const inputsId = isIdempotent ? newPredictionId() : id;
    let count = 0;
    const { request, inputs } = await receive(async (source, label) => {
      const hash = isIdempotent ? createHash("sha256") : undefined;
      const input = await store.write(inputsId, count++, source, hash);
      stored.push(input);
      if (input.bytes === 0)
        throw new BadInputError(`the input ${label.name ?? "image"} is empty: it has 0 bytes`);
      return { ...input, ref: { ...input.ref, ...label } };
    });
    const { priority = "normal", ttlMs, timeoutMs, webhook } = options;
    return { id, isIdempotent, request, inputs, priority, ttlMs, timeoutMs, webhook };
  };

  const submissions: Submission[] = [];
  try {
    for (let start = 0; start < drafts.length; start += PARALLEL_WRITES) {
      const outcomes = await Promise.allSettled(
        drafts
          .slice(start, start + PARALLEL_WRITES)
          .map((draft) => (withoutRoom.has(draft) ? unstored(draft) : toSubmission(draft))),
      );
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") throw outcome.reason;
        submissions.push(outcome.value);
      }
    }
    return submissions;
  } catch (error) {
    await store.remove(stored.map(({ ref }) => ref)).catch(() => {});
    throw error;
  }
}

/** What is refused for lack of a slot needs no inputs. */
async function unstored({ id, isIdempotent }: Draft): Promise<Submission> {
  return { id, isIdempotent, request: {}, inputs: [] };
}
