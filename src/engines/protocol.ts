/** The messages between a worker and its engine processes. */
import { InfermillError } from "../errors.ts";
import type { BatchTrace } from "../loaders/BaseModelLoader.ts";
import type { LoaderDescription } from "../core/description.ts";
import type { LoaderSpec } from "../loaders/openLoader.ts";
import type { RequestDictionary, ResponseDictionary } from "../core/request.ts";
import type { LocalInputRef } from "../queue/inputs.ts";

/** What an engine process needs: its loader, and where the inputs are. */
export interface EngineSpec extends LoaderSpec {
  inputs: { folder: string; roots: Readonly<Record<string, string>>; redisUrl?: string };
}

/** One prediction of a chunk. */
export interface Member {
  /** Unique in its worker; a job's id isn't, as a job whose lock was lost comes again. */
  key: number;
  request: RequestDictionary;
  inputs: readonly LocalInputRef[];
}

export type ToEngine =
  | { type: "load"; spec: EngineSpec }
  /** Predictions that travel together; the engine forms batches of them. Urgent ones run before what has not begun. */
  | { type: "chunk"; members: Member[]; isUrgent: boolean }
  | { type: "close" };

export type FromEngine =
  | { type: "ready"; description: LoaderDescription; batchLimit: number }
  | { type: "load failed"; error: WireError }
  | { type: "outcomes"; outcomes: MemberOutcome[] };

export interface MemberOutcome {
  key: number;
  response?: ResponseDictionary;
  /** Bytes beside the response. */
  outputs?: { name: string; mediaType: string; base64: string }[];
  error?: WireError;
  timings: BatchTrace & { read_ms: number };
  batchSize: number;
}

/** Of a prediction that failed before its batch was formed. */
export function noTimings(): MemberOutcome["timings"] {
  return { read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
}

/** An InfermillError on its way between processes. */
export interface WireError {
  code: string;
  title: string;
  status: number;
  retryable: boolean;
  detail: string;
  stack?: string | undefined;
}

export function toWire(error: InfermillError): WireError {
  const { code, title, status, retryable, message: detail } = error;
  const cause = error.cause instanceof Error ? error.cause : error;
  return { code, title, status, retryable, detail, stack: cause.stack };
}

export function fromWire({ detail, stack, ...kind }: WireError): InfermillError {
  return Object.assign(new InfermillError(detail), kind, stack && { stack });
}
