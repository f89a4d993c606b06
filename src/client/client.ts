/** A client of infermill's HTTP API for JavaScript and TypeScript, in Node and in browsers. It needs nothing but `fetch`. */
import type { Problem } from "../core/problem.ts";
import type { BulkResult, BulkRun, SkippedLine } from "../core/bulkRun.ts";
import type { BulkEntryPage, BulkSummary, EntrySort } from "../core/bulkSummary.ts";
import type { DeliveryCounts, ModelStatus } from "../core/modelStatus.ts";
import { InfermillError } from "../errors.ts";
import type { PredictionRequest, PredictionResponse } from "../imil/dictionaries.ts";
import type * as jobs from "../core/prediction.ts";
import type { Priority, Status } from "../core/prediction.ts";

/** With the response dictionary that models answer which find things; others have keys of their own. */
export type Prediction = jobs.Prediction<PredictionResponse>;

/** What the api waits at most, in seconds. */
const MAX_WAIT_SECONDS = 60;
/** Answers after which the same call may do better. */
const PASSING: ReadonlySet<number> = new Set([429, 502, 503, 504]);
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 30_000;

export interface ClientOptions {
  /** One of the server's `api_keys`. */
  apiKey?: string | undefined;
  /**
   * How often a call is made again where the server can't be reached, is full (429) or away (502, 503, 504); it waits
   * for as long as `Retry-After` says, else 0.25 s, 0.5 s, 1 s and so on. Default: 5.
   */
  retries?: number;
}

export interface SubmitOptions {
  /** Pictures of any format that the server decodes. Else the request names or holds them (`image`, `Base_64`). */
  pictures?: readonly Uint8Array<ArrayBuffer>[];
  priority?: Priority;
  /** Longest wait in the queue, in milliseconds. */
  ttlMs?: number;
  /** Longest run, in milliseconds. */
  timeoutMs?: number;
  /** URL that is notified of the end. */
  webhook?: string;
  /** The same key and the same request give the first prediction again. Default: a random one for each call. */
  idempotencyKey?: string;
  /** Seconds to wait for the prediction's end, up to 60. Default: 0. */
  waitSeconds?: number;
}

export interface BulkRunRequest {
  model: string;
  /** `<root>` or `<root>/<path>` below the server's `bulk_roots`. */
  folder: string;
  /** Which files, such as `*.jpg`. Default: whatever is a picture. */
  glob?: string | undefined;
  /** Keys for the request dictionary of every file. */
  request?: PredictionRequest;
  /** `<root>` or `<root>/<path>` below the server's `annotate_roots`, for annotated copies. Default: none. */
  annotate?: string | undefined;
  /** `<root>/<path>.ndjson` below the server's `results_roots`, where the results are also written to. Default: nowhere. */
  results?: string | undefined;
  priority?: Priority;
  /** Ends the run as failed with the first entry that fails. */
  fail_fast?: boolean;
  /** Entries that may fail; with one more the run ends as failed. Default: any number. */
  max_failures?: number;
  /** When the run ends as failed if it has not ended: ISO 8601 with its zone, or seconds from now. */
  deadline?: string | number;
  /** Comes back in the run and its webhook: at most 16 keys. */
  metadata?: Record<string, string>;
  webhook?: string;
  webhook_events?: string[];
}

export interface BulkEntryQuery {
  status?: BulkResult["status"];
  /** Only entries with a finding of this label. */
  label?: string;
  /** Only entries with a finding of such a score, 0 to 1. */
  min_score?: number;
  max_score?: number;
  /** Default: `line`, as they ended. */
  sort?: EntrySort;
  /** Default: 50; at most 200. */
  limit?: number;
  cursor?: string;
}

/** The server refused a call; `problem` is its answer (RFC 9457), `code` and `status` are taken from it. */
export class ApiError extends InfermillError {
  override readonly code: string;
  override readonly title: string;
  override readonly status: number;
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
    this.code = problem.code;
    this.title = problem.title;
    this.status = problem.status;
  }
}

/** The server could not be reached at all. */
export class ServerUnreachableError extends InfermillError {
  override readonly code = "server_unreachable";
  override readonly title = "The server can't be reached";
}

/** A prediction ended without a response; `prediction.error` says why. */
export class PredictionFailedError extends InfermillError {
  readonly prediction: Prediction;

  constructor(prediction: Prediction) {
    super(`${prediction.id} ${prediction.status}: ${prediction.error?.detail ?? "no reason was told"}`);
    this.prediction = prediction;
  }
}

interface Call {
  method?: "GET" | "POST" | "DELETE";
  headers?: Record<string, string>;
  body?: string | FormData;
  signal?: AbortSignal | undefined;
  /** Whether it may be made again where it isn't known what became of it. */
  isRepeatable?: boolean;
}

/**
 * Every method throws ApiError where the server refuses, and ServerUnreachableError where it can't be reached.
 * @example
 * const infermill = new InfermillClient("http://127.0.0.1:8448");
 * const response = await infermill.predict("CocoObjectDetection", {}, { pictures: [await readFile("sheep.jpg")] });
 */
export class InfermillClient {
  readonly #base: URL;
  readonly #apiKey: string | undefined;
  readonly #retries: number;

  /** @param url where the server is, such as `http://127.0.0.1:8448` or `https://example.org/infermill` */
  constructor(url: string | URL, { apiKey, retries = 5 }: ClientOptions = {}) {
    this.#base = new URL(url);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#apiKey = apiKey;
    this.#retries = retries;
  }

  /**
   * Submits a request and waits for its end, however long that takes.
   * @param options with `signal`: aborted to wait no longer; the prediction continues
   * @returns the response dictionary
   * @throws PredictionFailedError where it failed, was cancelled or expired
   */
  async predict(
    model: string,
    request: PredictionRequest,
    options: SubmitOptions & { signal?: AbortSignal } = {},
  ): Promise<PredictionResponse> {
    const { signal, ...submission } = options;
    const accepted = await this.submit(model, request, { waitSeconds: MAX_WAIT_SECONDS, ...submission });
    const prediction = await this.wait(accepted, signal);
    if (prediction.result === null) throw new PredictionFailedError(prediction);
    return prediction.result;
  }

  /** Submits a request; with `waitSeconds` the prediction may have ended in the answer. */
  async submit(model: string, request: PredictionRequest, options: SubmitOptions = {}): Promise<Prediction> {
    const { pictures, priority, ttlMs, timeoutMs, webhook, waitSeconds } = options;
    const query = { priority, ttl_ms: ttlMs, timeout_ms: timeoutMs, webhook };
    return this.#json(pathOf("v1/models", model, "predictions", query), {
      method: "POST",
      ...bodyOf(request, pictures),
      headers: {
        ...(pictures === undefined && { "Content-Type": "application/json" }),
        ...(waitSeconds && { Prefer: `wait=${Math.min(waitSeconds, MAX_WAIT_SECONDS)}` }),
        "Idempotency-Key": options.idempotencyKey ?? randomKey(),
      },
      isRepeatable: true,
    });
  }

  /** Waits until a prediction has ended. */
  async wait({ model, id }: Pick<Prediction, "model" | "id">, signal?: AbortSignal): Promise<Prediction> {
    for (;;) {
      const prediction = await this.get(model, id, MAX_WAIT_SECONDS, signal);
      if (prediction.finished_at !== null) return prediction;
    }
  }

  /** Reads a prediction, with `waitSeconds` (up to 60) as it is when it ends or that time has passed. */
  get(model: string, id: string, waitSeconds = 0, signal?: AbortSignal): Promise<Prediction> {
    const path = pathOf("v1/models", model, "predictions", id, { wait: waitSeconds || undefined });
    return this.#json(path, { signal });
  }

  /** Cancels a prediction. Once more is harmless. */
  cancel(model: string, id: string): Promise<Prediction> {
    return this.#json(pathOf("v1/models", model, "predictions", id), {
      method: "DELETE",
      isRepeatable: true,
    });
  }

  /** A model's predictions, the newest first. */
  async list(model: string, options: { status?: Status; limit?: number } = {}): Promise<Prediction[]> {
    const path = pathOf("v1/models", model, "predictions", options);
    return (await this.#json<{ predictions: Prediction[] }>(path)).predictions;
  }

  /** How each model stands: state, engines, queue, what became of its predictions lately. */
  async listModels(signal?: AbortSignal): Promise<ModelStatus[]> {
    return (await this.#json<{ models: ModelStatus[] }>("v1/models", { signal })).models;
  }

  /** Webhook deliveries by how they stand; `failed` ones are tried no more. */
  async countDeliveries(signal?: AbortSignal): Promise<DeliveryCounts> {
    const path = pathOf("v1/webhooks", "deliveries", { limit: 1 });
    return (await this.#json<{ counts: DeliveryCounts }>(path, { signal })).counts;
  }

  /** The bulk runs, the newest first. */
  async listBulkRuns(options: { limit?: number } = {}, signal?: AbortSignal): Promise<BulkRun[]> {
    return (await this.#json<{ runs: BulkRun[] }>(pathOf("v1/bulk", options), { signal })).runs;
  }

  /** Starts a bulk run over a folder of the server, once: the same key and the same request give the first run again. */
  startBulkRun(run: BulkRunRequest, options: { idempotencyKey?: string } = {}): Promise<BulkRun> {
    return this.#json("v1/bulk", {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "Idempotency-Key": options.idempotencyKey ?? randomKey(),
      },
      body: JSON.stringify(run),
      isRepeatable: true,
    });
  }

  getBulkRun(id: string, signal?: AbortSignal): Promise<BulkRun> {
    return this.#json(pathOf("v1/bulk", id), { signal });
  }

  /**
   * The results of a bulk run as they come, until it has ended.
   * @param options with `after`: continues behind this `line`
   * @throws TypeError where the connection breaks; resume `after` as the last result's `line`
   */
  async *bulkResults(
    id: string,
    options: { after?: number; status?: BulkResult["status"]; follow?: boolean } = {},
    signal?: AbortSignal,
  ): AsyncGenerator<BulkResult> {
    for await (const line of this.bulkResultLines(id, options, signal)) yield JSON.parse(line) as BulkResult;
  }

  /** The same as the lines of JSON that they are, in which no number changes. */
  async *bulkResultLines(
    id: string,
    options: { after?: number; status?: BulkResult["status"]; follow?: boolean } = {},
    signal?: AbortSignal,
  ): AsyncGenerator<string> {
    const { body } = await this.#call(pathOf("v1/bulk", id, "results", options), { signal });
    yield* wholeLines(body);
  }

  /** What a bulk run found in its folder and left out. */
  async *bulkSkipped(id: string, signal?: AbortSignal): AsyncGenerator<SkippedLine> {
    const { body } = await this.#call(pathOf("v1/bulk", id, "skipped"), { signal });
    for await (const line of wholeLines(body)) yield JSON.parse(line) as SkippedLine;
  }

  /** What came out of a bulk run, also while it continues. */
  getBulkSummary(id: string, signal?: AbortSignal): Promise<BulkSummary> {
    return this.#json(pathOf("v1/bulk", id, "summary"), { signal });
  }

  /** Entries of a bulk run that have ended, a page at a time: `cursor` is the `next_cursor` of the page before. */
  bulkEntries(id: string, query: BulkEntryQuery = {}, signal?: AbortSignal): Promise<BulkEntryPage> {
    return this.#json(pathOf("v1/bulk", id, "entries", { ...query }), { signal });
  }

  /** The report of a bulk run: an HTML page in one text. */
  async bulkReport(id: string, signal?: AbortSignal): Promise<string> {
    return (await this.#call(pathOf("v1/bulk", id, "report"), { signal })).text();
  }

  /** The results of a bulk run that has ended, as CSV or in COCO's format. */
  async *bulkResultsAs(
    id: string,
    format: "csv" | "coco" | "parquet",
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { body } = await this.#call(pathOf("v1/bulk", id, "results", { format }), { signal });
    const reader = body!.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        yield value;
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  }

  /** Cancels a bulk run; its results stay. One that has ended is left as it is. */
  cancelBulkRun(id: string): Promise<BulkRun> {
    return this.#json(pathOf("v1/bulk", id, "cancel"), { method: "POST", isRepeatable: true });
  }

  /** Resumes a bulk run that failed or was cancelled. */
  resumeBulkRun(id: string): Promise<BulkRun> {
    return this.#json(pathOf("v1/bulk", id, "resume"), { method: "POST" });
  }

  async #json<T>(path: string, call: Call = {}): Promise<T> {
    return (await (await this.#call(path, call)).json()) as T;
  }

  async #call(path: string, call: Call = {}): Promise<Response> {
    const { isRepeatable = call.method === undefined, ...init } = call;
    const headers = { ...init.headers, ...(this.#apiKey && { Authorization: `Bearer ${this.#apiKey}` }) };
    for (let attempt = 1; ; attempt++) {
      const mayRepeat = isRepeatable && attempt <= this.#retries;
      try {
        const answer = await fetch(new URL(path, this.#base), { ...init, headers });
        if (answer.ok) return answer;
        if (!mayRepeat || !PASSING.has(answer.status)) throw new ApiError(await problemOf(answer));
        await answer.body?.cancel();
        await sleep(retryDelay(attempt, answer.headers.get("Retry-After")), call.signal);
      } catch (error) {
        // fetch's own word for a connection that failed.
        if (!(error instanceof TypeError)) throw error;
        if (!mayRepeat) throw unreachable(this.#base, error);
        await sleep(retryDelay(attempt, null), call.signal);
      }
    }
  }
}

type Query = Record<string, string | number | boolean | undefined>;

/** The parts of a path, and at the end what is asked for. */
function pathOf(first: string, ...rest: (string | Query)[]): string {
  const query = new URLSearchParams();
  let path = first;
  for (const part of rest) {
    if (typeof part === "string") path += `/${encodeURIComponent(part)}`;
    else
      for (const [key, value] of Object.entries(part)) if (value !== undefined) query.set(key, String(value));
  }
  return query.size > 0 ? `${path}?${query.toString()}` : path;
}

function bodyOf(
  request: PredictionRequest,
  pictures: readonly Uint8Array<ArrayBuffer>[] | undefined,
): Pick<Call, "body"> {
  if (pictures === undefined) return { body: JSON.stringify(request) };
  const form = new FormData();
  form.set("request", JSON.stringify(request));
  for (const picture of pictures) form.append("image", new Blob([picture]), "picture");
  return { body: form };
}

async function problemOf(answer: Response): Promise<Problem> {
  const { status, statusText } = answer;
  const problem = (await answer.json().catch(() => ({}))) as Partial<Problem>;
  const detail = `the server answered ${status} ${statusText}`;
  return { type: "about:blank", title: statusText, code: "unknown", detail, ...problem, status };
}

function unreachable({ origin }: URL, error: TypeError): ServerUnreachableError {
  const { message } = error.cause instanceof Error ? error.cause : error;
  return new ServerUnreachableError(`${origin} can't be reached: ${message}`, { cause: error });
}

function retryDelay(attempt: number, retryAfter: string | null): number {
  const asked = Number(retryAfter) * 1000;
  return Math.min(asked > 0 ? asked : FIRST_RETRY_MS * 2 ** (attempt - 1), MAX_RETRY_MS);
}

/** The lines of a stream; one without a line break at its end was cut off and is left out. */
async function* wholeLines(body: Response["body"]): AsyncGenerator<string> {
  if (!body) return;
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop()!;
      yield* lines;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function sleep(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      // As fetch does it.
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Browsers have `randomUUID` on pages of https and of this machine only. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
