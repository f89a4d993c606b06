/**
 * What a prediction looks like as a BullMQ job: its data, its return value, how
 * its failure is written down, and how all of that reads as a prediction again.
 */
import { PRIORITIES, type Priority, type Timings } from "../core/prediction.ts";
import type { Job, JobsOptions } from "bullmq";
import type { ModelConfig } from "../config/schema.ts";
import * as errors from "../errors.ts";
import type { ErrorSummary } from "../errors.ts";
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import type { InputRef } from "./inputs.ts";
import type { OutputRef } from "./outputs.ts";

/** A prediction's job data. The bytes of its inputs are elsewhere. */
export interface PredictionJobData {
  /** The request dictionary without its pictures. */
  request: RequestDictionary;
  inputs: InputRef[];
  /** Unix time in ms after which it must not start any more. */
  expires_at?: number;
  /** Longest run in milliseconds, where that is less than the model's `timeout_ms`. */
  timeout_ms?: number;
  /** Of the request and its pictures; there where the client gave an id or an Idempotency-Key. */
  fingerprint?: string;
  /** Tells submissions with the same id apart. */
  submission?: string;
  /** Id of the webhook delivery of its end. */
  webhook?: string;
}

/** A job's return value. BullMQ copies it into its event stream, so a large response is in the job's log. */
export interface Completion {
  response?: ResponseDictionary;
  /** Where in the job's log a large response is, counted from 0. */
  response_log?: number;
  /** Bytes beside the response. */
  outputs?: OutputRef[];
  timings: Timings;
  /** How many predictions the model ran together with this one, itself included. */
  batch_size: number;
  engine: string;
}

/** The job's progress of a prediction that was ended without its worker; it outweighs how its job finished. */
export interface EndMark {
  ended: "cancelled" | "expired";
  /** Unix time in ms. */
  ended_on: number;
}

export type PredictionJob = Job<PredictionJobData, Completion>;

/** How a job ended, as far as its prediction is described by it. */
export type EndedJob = Pick<
  PredictionJob,
  "timestamp" | "processedOn" | "finishedOn" | "attemptsStarted" | "returnvalue" | "failedReason" | "progress"
>;

/** BullMQ's fields of a job's hash that `endedJobOf` reads, in its order. */
export const END_FIELDS = [
  "timestamp",
  "processedOn",
  "finishedOn",
  "ats",
  "returnvalue",
  "failedReason",
  "progress",
] as const;

/** @param fields false or null where a job has none */
export function endedJobOf(fields: readonly (string | false | null)[]): EndedJob {
  const [timestamp, processedOn, finishedOn, attemptsStarted, returnvalue, reason, progress] = fields;
  return {
    timestamp: Number(timestamp),
    ...(processedOn && { processedOn: Number(processedOn) }),
    ...(finishedOn && { finishedOn: Number(finishedOn) }),
    attemptsStarted: Number(attemptsStarted || 0),
    returnvalue: returnvalue ? (JSON.parse(returnvalue) as Completion) : (null as never),
    failedReason: reason || "",
    progress: progress ? (JSON.parse(progress) as PredictionJob["progress"]) : 0,
  };
}

export function endMarkOf({ progress }: Pick<PredictionJob, "progress">): EndMark | undefined {
  return typeof progress === "object" && "ended" in progress ? (progress as EndMark) : undefined;
}

export function jobOptions(model: ModelConfig, id: string, priority: Priority): JobsOptions {
  return {
    jobId: id,
    priority: PRIORITIES[priority],
    attempts: model.attempts,
    backoff: { type: "exponential", delay: 1000, jitter: 0.5 },
    stackTraceLimit: 1,
  };
}

/** A failure as the job's failedReason: readable on the dashboard, and parsed again by `failureOf`. */
export function failedReason(error: errors.InfermillError): string {
  return `${error.code}: ${error.message}`;
}

const FAILURES: ReadonlyMap<string, new (detail: string) => errors.InfermillError> = new Map(
  [
    errors.InfermillError,
    errors.BadInputError,
    errors.LoaderError,
    errors.ImplausibleOutputError,
    errors.RetryableError,
    errors.StorageUnavailableError,
    errors.EngineLostError,
    errors.WorkerLostError,
    errors.PredictionTimeoutError,
    errors.PredictionCancelledError,
    errors.PredictionExpiredError,
  ].map((ErrorClass) => [new ErrorClass("").code, ErrorClass]),
);

/** The error of a failed job. BullMQ writes reasons of its own where a worker was lost too often. */
export function failureOf(reason: string): ErrorSummary {
  const [, code = "", detail = ""] = /^([a-z_]+): ([\s\S]*)$/.exec(reason) ?? [];
  const Failure = FAILURES.get(code);
  return (Failure ? new Failure(detail) : new errors.WorkerLostError(reason)).toSummary();
}

/** The error of a prediction as one to throw, with the HTTP status that fits. */
export function errorOfSummary({ code, detail }: ErrorSummary): errors.InfermillError {
  return new (FAILURES.get(code) ?? errors.InfermillError)(detail);
}

export function toIsoTime(time: number | undefined): string | null {
  return time ? new Date(time).toISOString() : null;
}
