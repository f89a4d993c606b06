/**
 * The order of work between a checked request and its prediction: reserve room,
 * store the inputs, add the job, give back what was not used. Whatever fails on
 * the way leaves neither a slot nor an input behind; only where Redis doesn't
 * answer the last step, the inputs stay for a prediction that may be there.
 */
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { BadInputError, IdempotencyConflictError, type InfermillError } from "../errors.ts";
import type { RequestDictionary } from "../core/request.ts";
import type { Needs } from "../imil/requestSchema.ts";
import type { StoredInput } from "../queue/inputs.ts";
import type { Prediction } from "../queue/jobs.ts";
import { newPredictionId } from "../queue/names.ts";
import type { Submission } from "../queue/predictions.ts";
import type { Api } from "./api.ts";
import type { RequestParts } from "./requestDictionary.ts";
import type { SubmissionOptions } from "../protocols/native/submissionOptions.ts";

/** Inputs of a call with many predictions that are written side by side. */
const PARALLEL_WRITES = 16;

/** Writes the picture with an index to the input store. */
export type StoreInput = (index: number, source: Buffer | Readable) => Promise<StoredInput>;

/** A prediction before its inputs are stored. */
export interface Draft {
  id: string;
  /** Whether the id is the client's, so that the submission is idempotent. */
  isIdempotent: boolean;
  /** Called once there is room: stores the pictures, in their order. */
  receive: (store: StoreInput) => Promise<{ request: RequestDictionary; inputs: StoredInput[] }>;
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
    const { request, inputs } = await receive(async (index, source) => {
      const input = await store.write(
        inputsId,
        index,
        source,
        isIdempotent ? createHash("sha256") : undefined,
      );
      stored.push(input);
      if (input.bytes === 0) throw new BadInputError("the picture is empty: it has 0 bytes");
      return input;
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

/** A draft of what is in memory already. */
export function draftOf(parts: RequestParts, clientId: string | undefined): Draft {
  return {
    id: clientId ?? newPredictionId(),
    isIdempotent: clientId !== undefined,
    receive: async (store) => {
      const inputs: StoredInput[] = [];
      for (const [index, bytes] of parts.pictures.entries()) inputs.push(await store(index, bytes));
      return { request: parts.request, inputs: [...inputs, ...parts.references] };
    },
  };
}

/** What every request of a model must bring, as a live worker says; with no worker to ask, its loader decides later. */
export async function needsOf(api: Api, model: string): Promise<Needs | undefined> {
  const reports = await api.recentReports();
  for (const { models } of reports) {
    const description = models[model]?.description;
    if (description) return description;
  }
  return undefined;
}
