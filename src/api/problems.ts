/**
 * Error bodies of the api (RFC 9457, `application/problem+json`): one builder,
 * the errors that only HTTP knows, and the last handler of the app, which logs
 * what nobody expected and shows nothing of it but an id.
 */
import type { Problem } from "../core/problem.ts";
import { randomUUID } from "node:crypto";
import type { NextFunction, Request, Response } from "express";
import type { Logger } from "pino";
import { InfermillError, InvalidRequestError } from "../errors.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import { formatJson } from "../core/json.ts";
import { redisFaultOf } from "../redis/refusals.ts";

/** How long the rest of a refused body is read and dropped before the connection is cut. */
const DRAIN_LIMIT_MS = 5000;

/** The body isn't what its Content-Type says. */
export class MalformedBodyError extends InfermillError {
  override readonly code = "malformed_body";
  override readonly title = "The body can't be read";
  override readonly status = 400;
}

/** The path holds a percent-encoding that stands for no text. */
export class MalformedPathError extends InfermillError {
  override readonly code = "malformed_path";
  override readonly title = "The path can't be read";
  override readonly status = 400;
}

export class BodyTooLargeError extends InfermillError {
  override readonly code = "body_too_large";
  override readonly title = "The body is too large";
  override readonly status = 413;

  constructor(
    maxBytes: number,
    setting: "max_body_bytes" | "max_manifest_bytes" | "max_request_bytes" = "max_body_bytes",
    what = "the body",
  ) {
    super(`${what} must be at most ${maxBytes} bytes (${setting})`);
  }
}

/** The body comes so slowly that it would hold its connection for ever. */
export class BodyTooSlowError extends InfermillError {
  override readonly code = "body_too_slow";
  override readonly title = "The body comes too slowly";
  override readonly status = 408;
}

/** The api holds as many connections as it may. */
export class TooManyConnectionsError extends InfermillError {
  override readonly code = "too_many_connections";
  override readonly title = "Too many connections";
  override readonly status = 503;
  override readonly retryable = true;
  readonly retryAfterSeconds = 2;
}

export class UnsupportedMediaTypeError extends InfermillError {
  override readonly code = "unsupported_media_type";
  override readonly title = "Unsupported Content-Type";
  override readonly status = 415;
}

export class UnauthorizedError extends InfermillError {
  override readonly code = "unauthorized";
  override readonly title = "A key is needed";
  override readonly status = 401;
}

/** The name under which the api was called could be a foreign page's. */
export class HostNotAllowedError extends InfermillError {
  override readonly code = "host_not_allowed";
  override readonly title = "The api isn't called like this";
  override readonly status = 403;
}

/** A page of another site, or nobody knows whose, would change something. */
export class ForeignPageError extends InfermillError {
  override readonly code = "foreign_page";
  override readonly title = "Another site's page may not do this";
  override readonly status = 403;
}

export class ReadOnlyError extends InfermillError {
  override readonly code = "read_only";
  override readonly title = "Pages may only look";
  override readonly status = 403;
}

export class MethodNotAllowedError extends InfermillError {
  override readonly code = "method_not_allowed";
  override readonly title = "Method not allowed";
  override readonly status = 405;
}

/** The client went away in the middle of its request; there is nobody to tell. */
export class ClientGoneError extends InfermillError {
  override readonly code = "client_gone";
  override readonly title = "The client went away";
  override readonly status = 400;
}

/** The problem that an error is. */
export function problemOf(error: InfermillError, extensions: Record<string, unknown> = {}): Problem {
  const { code, title, detail } = error.toSummary();
  return {
    type: `urn:infermill:problem:${code}`,
    title,
    status: error.status,
    detail,
    code,
    ...(error instanceof InvalidRequestError && { errors: error.faults }),
    ...extensions,
  };
}

/** An error as a protocol writes it. */
export interface EncodedError {
  status: number;
  /** Default: `application/json`. */
  mediaType?: string;
  body: object;
}

export type EncodeError = (error: InfermillError, problem: Problem) => EncodedError;

const encodeProblem: EncodeError = (_error, problem) => ({
  status: problem.status,
  mediaType: "application/problem+json",
  body: problem,
});

/** From now on, whatever error this answer becomes is written so. Default: as a problem. */
export function encodeErrors(res: Response, encode: EncodeError): void {
  res.locals["encodeError"] = encode;
}

/** The one place where an error becomes an answer. */
export function sendError(res: Response, error: InfermillError, extensions?: Record<string, unknown>): void {
  if ("retryAfterSeconds" in error) res.set("Retry-After", String(error.retryAfterSeconds));
  // What is missing now may be there a moment later.
  res.set("Cache-Control", "no-store");
  const encode = (res.locals["encodeError"] as EncodeError | undefined) ?? encodeProblem;
  const { status, mediaType = "application/json", body } = encode(error, problemOf(error, extensions));
  res.status(status).type(mediaType).send(formatJson(body));
}

/** Express's error handler: everything that a route throws ends here. */
export function createProblemHandler(log: Logger) {
  return (thrown: unknown, req: Request, res: Response, _next: NextFunction): void => {
    if (thrown instanceof ClientGoneError || res.destroyed) return;
    if (res.headersSent) {
      log.warn({ err: thrown, path: req.path }, "an answer broke off");
      res.destroy();
      return;
    }
    const error = knownError(thrown);
    if (error instanceof BodyTooSlowError) res.set("Connection", "close");
    dropRestOfBody(req, res);
    if (error) return sendError(res, error);
    const { error: unexpected, id } = hideUnexpected(thrown, log, { method: req.method, path: req.path });
    sendError(res, unexpected, { id });
  };
}

/** What clients see of an error that nobody expected: an id, under which the log has the rest. */
export function hideUnexpected(
  thrown: unknown,
  log: Logger,
  where: Record<string, string>,
): { error: InfermillError; id: string } {
  const id = randomUUID();
  log.error({ err: thrown, id, ...where }, "unexpected error");
  return { error: new InfermillError(`something went wrong here; the log has more under ${id}`), id };
}

/** What clients may see; undefined for an error that nobody expected. */
export function knownError(thrown: unknown): InfermillError | undefined {
  if (thrown instanceof InfermillError) return thrown;
  const fault = redisFaultOf(thrown) ?? diskFaultOf(thrown);
  if (fault) return fault;
  // Express's own of a path, and those of the dashboard's parser of bodies.
  if (thrown instanceof Error && "status" in thrown && thrown.status === 400) {
    const KnownError = thrown instanceof URIError ? MalformedPathError : MalformedBodyError;
    return new KnownError(thrown.message, { cause: thrown });
  }
  return undefined;
}

/** A client that still sends may never come to read its answer, so what is left is read and dropped, for a while. */
function dropRestOfBody(req: Request, res: Response): void {
  if (req.complete) return;
  // Slow bodies and connections beyond the limit aren't waited for.
  if (res.getHeader("Connection") === "close") {
    res.once("finish", () => req.destroy());
    return;
  }
  req.resume();
  res.once("finish", () => {
    const cut = setTimeout(() => req.destroy(), DRAIN_LIMIT_MS).unref();
    req.once("close", () => clearTimeout(cut));
  });
}
