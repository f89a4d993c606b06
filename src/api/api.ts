/** What every handler gets: the opened parts of the api, and the table's view of a route. */
import type { Request, Response } from "express";
import type { Logger } from "pino";
import type { ZodOpenApiOperationObject } from "zod-openapi";
import type { BulkRuns } from "../bulk/runs.ts";
import type { Config } from "../config/schema.ts";
import type { Predictions } from "../queue/predictions.ts";
import type { WorkerReport } from "../queue/workerReports.ts";
import type { Metrics } from "./metrics.ts";
import type { EncodeError } from "./problems.ts";

export interface Api {
  readonly config: Config;
  readonly predictions: Predictions;
  readonly bulk: BulkRuns;
  readonly log: Logger;
  readonly metrics: Metrics;
  /**
   * Reports of the live workers, at most two seconds old; older where Redis can't be asked: of a cluster, the node that
   * has them is needed for no prediction.
   */
  readonly recentReports: () => Promise<WorkerReport[]>;
  /** The OpenAPI document; made when it is first asked for. */
  readonly openapi: () => Promise<object>;
  /** Aborted when the api closes, so that nobody is kept waiting. */
  readonly closing: AbortSignal;
}

export interface Route {
  method: "get" | "post" | "put" | "delete";
  /** As OpenAPI writes it: `/v1/models/{model}`. */
  path: string;
  handler: (api: Api, req: Request, res: Response) => void | Promise<void>;
  operation: ZodOpenApiOperationObject;
}

/** A way in which clients speak to the api: it decodes requests into predictions, and encodes what becomes of them. */
export interface Protocol {
  name: string;
  /** Its routes over HTTP. */
  routes(config: Config): readonly Route[];
  /** Where every error is written as this protocol does, also of paths that are no route. */
  errors?: { below: string; encode: EncodeError };
  /** Opens what it listens on beside HTTP; undefined where the configuration names nothing. */
  listen?(api: Api): Promise<Listener | undefined>;
}

/** What a protocol listens on beside HTTP. */
export interface Listener {
  /** Such as `grpc://127.0.0.1:8001`. */
  readonly url: string;
  /** Accepts no more, and lets what runs finish for up to `limitMs`. */
  close(limitMs: number): Promise<void>;
}

/** A parameter of a route's path; the table says that it is there. */
export function pathParameter(
  req: Request,
  name: "model" | "id" | "run" | "delivery" | "name" | "index" | "version",
): string {
  return String(req.params[name]);
}
