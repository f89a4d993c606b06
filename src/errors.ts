/**
 * Every error that infermill throws on purpose, with the three things that the
 * rest of the house decides by: a stable `code`, the HTTP status that fits, and
 * whether trying again can help. Whatever is not one of these is a bug or a
 * loader's own exception and is shown to clients without its inner details.
 */

/** What a client sees of a failed prediction. */
export interface ErrorSummary {
  /** Stable, snake_case, made to be compared with. */
  code: string;
  /** The kind of error in a few words; the same for every error of one code. */
  title: string;
  /** What happened this time: what was expected, what came, what to do. */
  detail: string;
}

export class InfermillError extends Error {
  readonly code: string = "internal_error";
  readonly title: string = "Internal error";
  readonly status: number = 500;
  /** Whether the same prediction can succeed when it is run again. */
  readonly retryable: boolean = false;

  constructor(detail: string, options?: { cause?: unknown }) {
    super(detail, options);
    this.name = new.target.name;
  }

  toSummary(): ErrorSummary {
    return { code: this.code, title: this.title, detail: this.message };
  }
}

/** The request or its picture can't be used; trying again can't help. */
export class BadInputError extends InfermillError {
  override readonly code = "bad_input";
  override readonly title = "The input can't be used";
  override readonly status = 422;
}

/** One fault of a request. */
export interface Fault {
  /** The faulty key: of the dictionary, the query or a header. */
  key: string;
  /** "must be a number, got "high"" */
  problem: string;
}

/** Several faults of one request, all told at once. */
export class InvalidRequestError extends BadInputError {
  readonly faults: readonly Fault[];

  constructor(faults: readonly Fault[]) {
    super(faults.map(({ key, problem }) => `${key} ${problem}`).join("; "));
    this.faults = faults;
  }
}

/** One fault of a configuration: where it is, what was expected, what was found. */
export interface ConfigFault {
  /** File that holds the setting, or the name of an environment variable. */
  source: string;
  /** Path of the key, such as `models.PyTorch.max_batch_size`; empty for the whole file. */
  key: string;
  /** "must be a whole number ≥ 1, got "8x"". */
  problem: string;
}

/** All faults of a configuration at once, a line each. */
export class ConfigError extends InfermillError {
  override readonly code = "bad_configuration";
  override readonly title = "The configuration can't be used";
  readonly faults: readonly ConfigFault[];

  constructor(faults: readonly ConfigFault[]) {
    super(
      faults
        .map(({ source, key, problem }) => [source, [key, problem].filter(Boolean).join(" ")].join(": "))
        .join("\n"),
    );
    this.faults = faults;
  }
}

/** A loader threw on this prediction alone. */
export class LoaderError extends InfermillError {
  override readonly code = "loader_failed";
  override readonly title = "The model loader failed";
}

/** What a model put out can't be a result: NaN as a score, a box off the picture, a class that there is none of. */
export class ImplausibleOutputError extends InfermillError {
  override readonly code = "implausible_output";
  override readonly title = "The model's output can't be a result";
}

/** A loader throws this for a fault that passes, such as a remote service that is down: the prediction is tried again. */
export class RetryableError extends InfermillError {
  override readonly code = "temporary_fault";
  override readonly title = "A temporary fault";
  override readonly status = 503;
  override readonly retryable = true;
}

/** The engine process died while it ran this prediction alone. */
export class EngineLostError extends InfermillError {
  override readonly code = "engine_lost";
  override readonly title = "The engine died while it ran this prediction";
}

/** The prediction ran longer than its `timeout_ms`. */
export class PredictionTimeoutError extends InfermillError {
  override readonly code = "timeout";
  override readonly title = "The prediction ran too long";
  override readonly status = 504;
}

/** The queue gave a prediction up, in most cases because worker after worker was lost while it ran. */
export class WorkerLostError extends InfermillError {
  override readonly code = "worker_lost";
  override readonly title = "The worker was lost";
}

export class PredictionCancelledError extends InfermillError {
  override readonly code = "cancelled";
  override readonly title = "The prediction was cancelled";
  override readonly status = 409;
}

export class PredictionExpiredError extends InfermillError {
  override readonly code = "expired";
  override readonly title = "The prediction waited in the queue for longer than its ttl_ms";
  override readonly status = 410;
}

export class NotFoundError extends InfermillError {
  override readonly code: string = "not_found";
  override readonly title: string = "Not found";
  override readonly status = 404;
}

export class ModelNotFoundError extends NotFoundError {
  override readonly code = "model_not_found";
  override readonly title = "No such model";
}

export class PredictionNotFoundError extends NotFoundError {
  override readonly code = "prediction_not_found";
  override readonly title = "No such prediction";
}

export class OutputNotFoundError extends NotFoundError {
  override readonly code = "output_not_found";
  override readonly title = "No such output";
}

export class ThumbnailNotFoundError extends NotFoundError {
  override readonly code = "thumbnail_not_found";
  override readonly title = "No thumbnail";
}

export class DeliveryNotFoundError extends NotFoundError {
  override readonly code = "delivery_not_found";
  override readonly title = "No such webhook delivery";
}

/** The queue of a model holds `max_queue_length` predictions already. */
export class QueueFullError extends InfermillError {
  override readonly code = "queue_full";
  override readonly title = "The model's queue is full";
  override readonly status = 429;
  override readonly retryable = true;
  readonly retryAfterSeconds: number;

  constructor(detail: string, retryAfterSeconds: number) {
    super(detail);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** Redis can't be reached or didn't answer in time. */
export class RedisUnavailableError extends InfermillError {
  override readonly code: string = "redis_unavailable";
  override readonly title: string = "The queue can't be reached";
  override readonly status = 503;
  override readonly retryable = true;
  readonly retryAfterSeconds: number = 2;
}

/** Redis answers, and refuses what the queue needs: a replica, no permission, no disk, a wrong password. */
export class RedisRefusedError extends RedisUnavailableError {
  override readonly code = "redis_refused";
  override readonly title = "Redis refuses what the queue needs";
  override readonly retryAfterSeconds = 5;
}

/** Redis has no room for more: what was accepted needs the rest of it to end. */
export class QueueStorageFullError extends RedisUnavailableError {
  override readonly code = "queue_storage_full";
  override readonly title = "The queue's storage is full";
  override readonly retryAfterSeconds = 10;
}

/** The disk that holds inputs and bulk runs is full, or nearly. */
export class DiskFullError extends InfermillError {
  override readonly code = "disk_full";
  override readonly title = "The disk is full";
  override readonly status = 507;
  override readonly retryable = true;
  readonly retryAfterSeconds = 30;
}

/** Object storage can't be reached, doesn't answer in time, or doesn't know our credentials. */
export class StorageUnavailableError extends InfermillError {
  override readonly code = "storage_unavailable";
  override readonly title = "The object storage can't be reached";
  override readonly status = 503;
  override readonly retryable = true;
  readonly retryAfterSeconds = 5;
}

/** An id or Idempotency-Key was used before with another request. */
export class IdempotencyConflictError extends InfermillError {
  override readonly code = "idempotency_conflict";
  override readonly title = "The key was used with another request";
  override readonly status = 422;
}

/** The prediction ended already, so that it can't be cancelled. */
export class AlreadyEndedError extends InfermillError {
  override readonly code = "already_ended";
  override readonly title = "The prediction ended already";
  override readonly status = 409;
}

/** What is asked for is there only once the prediction, or the bulk run, has ended. */
export class NotEndedError extends InfermillError {
  override readonly code = "not_ended";
  override readonly title = "It has not ended";
  override readonly status = 409;
}

/** The inputs of a prediction that was to run again are no longer there. */
export class InputsGoneError extends InfermillError {
  override readonly code = "inputs_gone";
  override readonly title = "The prediction's inputs are gone";
  override readonly status = 410;
}

export class BulkRunNotFoundError extends NotFoundError {
  override readonly code = "bulk_run_not_found";
  override readonly title = "No such bulk run";
}

/** The bulk run continues by itself, or is complete, or is the command line's. */
export class NotResumableError extends InfermillError {
  override readonly code = "not_resumable";
  override readonly title = "The bulk run can't be resumed";
  override readonly status = 409;
}

/** Turns whatever was thrown into an InfermillError; a foreign error becomes one through `wrap`. */
export function toInfermillError(
  thrown: unknown,
  wrap: (detail: string, options: { cause: unknown }) => InfermillError,
): InfermillError {
  if (thrown instanceof InfermillError) return thrown;
  const detail = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  return wrap(detail, { cause: thrown });
}

/** Of onnxruntime, CUDA and V8. */
export function isOutOfMemory(error: unknown): boolean {
  return (
    error instanceof Error &&
    /out of memory|failed to allocate memory|(array buffer|array) allocation failed/i.test(error.message)
  );
}
