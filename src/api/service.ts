/**
 * The one service behind every protocol: it accepts predictions, waits for them
 * and runs them to their end. Accepting is in this order: reserve room, store
 * the inputs, add the job, give back what was not used. Whatever fails on the
 * way leaves neither a slot nor an input behind; only where Redis doesn't
 * answer the last step, the inputs stay for a prediction that may be there.
 */
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import type { LoaderDescription } from "../core/description.ts";
import type { RequestDictionary } from "../core/request.ts";
import {
  AlreadyEndedError,
  BadInputError,
  IdempotencyConflictError,
  InfermillError,
  PredictionCancelledError,
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

/** Inputs of at most so many bytes are stored before it is known whether the queue has room, unless it was full lately. */
export const LIGHT_BYTES = 512 * 1024;
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
  /** Whether there is so little to store that room need not be held meanwhile: it is looked for in the step that adds it. */
  isLight?: boolean;
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
    isLight: parts.inputs.every((input) => "ref" in input || input.bytes.length <= LIGHT_BYTES),
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
  const slots = fresh.length > 0 ? await roomFor(api, model, fresh, options) : undefined;
  try {
    const withoutRoom = new Set(fresh.slice(slots?.granted));
    const submissions = await storeInputs(api, model, drafts, withoutRoom, options);
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

async function roomFor(
  { predictions }: Api,
  model: string,
  drafts: readonly Draft[],
  options: SubmissionOptions,
) {
  const [first] = drafts;
  if (drafts.length === 1 && first!.isLight && !options.webhook && !predictions.wasFull(model))
    return predictions.roomWhenAdded(model);
  return predictions.reserve(model, drafts.length);
}

/**
 * Accepts a prediction and waits for its end, up to `waitMs`: what comes back may not have ended.
 * @param client aborted when the client is gone
 * @throws whatever it is refused with
 */
export async function submitAndWait(
  api: Api,
  model: string,
  draft: Draft,
  options: SubmissionOptions,
  { waitMs, client }: { waitMs: number; client: AbortSignal },
): Promise<Prediction> {
  const [outcome] = await submitAllAndWait(api, model, [draft], options, { waitMs, client });
  if (outcome instanceof InfermillError) throw outcome;
  return outcome!;
}

/** @returns for each draft its prediction, or the error that it alone was refused with */
async function submitAllAndWait(
  api: Api,
  model: string,
  drafts: readonly Draft[],
  options: SubmissionOptions,
  { waitMs, client }: { waitMs: number; client: AbortSignal },
): Promise<(Prediction | InfermillError)[]> {
  // The watches begin before the jobs are added, so that no end can be missed and one look at the end is enough.
  const watches = waitMs > 0 ? drafts.map(({ id }) => api.predictions.watch(model, id)) : [];
  const gone = abortWhenGone(client, api.closing);
  try {
    const outcomes = await acceptPredictions(api, model, drafts, options);
    // They belong together, so the others are not worth a wait.
    if (outcomes.some((outcome) => outcome instanceof InfermillError)) return outcomes;
    return await Promise.all(
      outcomes.map(async (accepted, index) => {
        const watch = watches[index];
        if (!watch || accepted instanceof InfermillError || isFinal(accepted.status)) return accepted;
        try {
          return await api.predictions.wait(model, accepted.id, waitMs, gone.signal, watch);
        } catch (error) {
          // What was accepted is accepted, also where Redis goes away while its end is waited for.
          if (error instanceof RedisUnavailableError) return accepted;
          throw error;
        }
      }),
    );
  } finally {
    for (const watch of watches) watch.stop();
    gone.stop();
  }
}

/** Who waits for the end of what is run, and for how long. */
export interface SyncClient {
  /** Aborted when the client is gone. */
  client: AbortSignal;
  /** Default: `sync_timeout_ms`. */
  limitMs?: number | undefined;
}

/**
 * Runs a prediction to its end for a client that waits for it and knows no id: it is cancelled where the client leaves,
 * and after `limitMs`.
 * @throws what the prediction failed with, PredictionTimeoutError after the limit
 */
export async function runToEnd(
  api: Api,
  model: string,
  draft: Draft,
  options: SubmissionOptions,
  waiting: SyncClient,
): Promise<Prediction> {
  const [outcome] = await runAllToEnd(api, model, [draft], options, waiting);
  if (outcome instanceof InfermillError) throw outcome;
  return outcome!;
}

/**
 * The same for several predictions of one request, which the queue batches like all others.
 * @returns for each draft its prediction, which succeeded, or the error that it failed with
 */
export async function runAllToEnd(
  api: Api,
  model: string,
  drafts: readonly Draft[],
  options: SubmissionOptions,
  { client, limitMs = api.config.sync_timeout_ms }: SyncClient,
): Promise<(Prediction | InfermillError)[]> {
  const outcomes = await submitAllAndWait(
    api,
    model,
    drafts,
    { ttlMs: limitMs, ...options },
    { waitMs: limitMs, client },
  );
  const refused = outcomes.some((outcome) => outcome instanceof InfermillError);
  return Promise.all(
    outcomes.map(async (outcome) => {
      if (outcome instanceof InfermillError) return outcome;
      const isGivenUp = !isFinal(outcome.status);
      const prediction = isGivenUp ? await giveUp(api, model, outcome.id) : outcome;
      if (prediction.result) return prediction;
      if (isGivenUp && refused)
        return new PredictionCancelledError("another prediction of the same request was refused");
      if (isGivenUp && client.aborted) return new ClientGoneError("the client went away");
      if (isGivenUp && api.closing.aborted) return new RetryableError("the api shuts down: send it again");
      if (isGivenUp || prediction.status === "expired") {
        return new PredictionTimeoutError(
          `no response within ${limitMs} ms (sync_timeout_ms); POST /v1/models/${model}/predictions doesn't wait`,
        );
      }
      return errorOfSummary(prediction.error as ErrorSummary);
    }),
  );
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
  model: string,
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
      const input = await store.write({ model, id: inputsId }, count++, source, hash);
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
