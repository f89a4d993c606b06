/** Request bodies with a limit: which form one has, as a stream, as text, as JSON. */
import { finished, Transform, type Readable } from "node:stream";
import type { Request } from "express";
import type { Config } from "../../config/schema.ts";
import {
  isPictureMediaType,
  PICTURE_FORMAT_NAMES,
  PICTURE_MEDIA_TYPE_NAMES,
} from "../../core/pictureFormats.ts";
import {
  BodyTooLargeError,
  BodyTooSlowError,
  ClientGoneError,
  MalformedBodyError,
  UnsupportedMediaTypeError,
} from "../problems.ts";
import { parseJson as parseExactJson, TooDeepError } from "../../core/json.ts";
import { BadInputError } from "../../errors.ts";
import { findJsonFault } from "../../core/jsonFault.ts";
import { decodeText } from "../../core/text.ts";

export type BodyForm = "json" | "ndjson" | "bytes" | "multipart";

const FORMS: ReadonlyMap<string, BodyForm> = new Map([
  ["application/json", "json"],
  ["application/x-ndjson", "ndjson"],
  ["application/jsonl", "ndjson"],
  ["multipart/form-data", "multipart"],
]);
/** Over so long a slow body is measured. */
const RATE_WINDOW_MS = 10_000;
/** Where the app keeps `min_upload_bytes_per_second`. */
export const MIN_RATE_SETTING = "min upload rate";
const BODY_BUFFER_BYTES = 1024 * 1024;
/** Finding the place of a fault reads the text once more, which is not worth it for more. */
const MAX_TEXT_TO_SEARCH = 1_000_000;

/**
 * The form that the Content-Type names, before anything of the body is read.
 * @throws UnsupportedMediaTypeError, BodyTooLargeError
 */
export function bodyForm(req: Request, maxBytes: number): BodyForm {
  const header = req.headers["content-type"] ?? "";
  const type = mediaType(header);
  const form = FORMS.get(type);
  if (!form && (!/^[\w.+-]+\/[\w.+*-]+$/.test(type) || type === "application/x-www-form-urlencoded"))
    throw unsupportedType(header);
  checkTransfer(req, maxBytes);
  return form ?? "bytes";
}

/**
 * The body where it can be JSON only. Its Content-Type must say so: pages of other sites can send every other one.
 * @throws UnsupportedMediaTypeError, BodyTooLargeError, MalformedBodyError
 */
export async function readJson(req: Request, maxBytes: number): Promise<unknown> {
  const header = req.headers["content-type"] ?? "";
  if (mediaType(header) !== "application/json") {
    throw new UnsupportedMediaTypeError(
      `Content-Type must be application/json, got ${JSON.stringify(header)}`,
    );
  }
  checkTransfer(req, maxBytes);
  return parseJson(textOf(await readWholeBody(req, maxBytes)), "the body");
}

export function unsupportedType(header: string): UnsupportedMediaTypeError {
  return new UnsupportedMediaTypeError(
    `Content-Type must be application/json, application/x-ndjson, multipart/form-data, or that of the bytes themselves, such as image/jpeg, got ${JSON.stringify(header)}`,
  );
}

/** @throws UnsupportedMediaTypeError, BodyTooLargeError */
export function checkTransfer(
  req: Request,
  maxBytes: number,
  setting?: ConstructorParameters<typeof BodyTooLargeError>[1],
): void {
  const encoding = req.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") {
    throw new UnsupportedMediaTypeError(
      `the body must come without a Content-Encoding, got ${JSON.stringify(encoding)}`,
    );
  }
  if (Number(req.headers["content-length"]) > maxBytes) throw new BodyTooLargeError(maxBytes, setting);
}

/** Of the body of a bulk run that names its entries itself. */
export type ManifestForm = "ndjson" | "csv" | "parquet";

const MANIFEST_FORMS: ReadonlyMap<string, ManifestForm> = new Map([
  ["application/x-ndjson", "ndjson"],
  ["application/jsonl", "ndjson"],
  ["text/csv", "csv"],
  ["application/vnd.apache.parquet", "parquet"],
  ["application/x-parquet", "parquet"],
]);

/**
 * Which form of a bulk run the body has.
 * @throws UnsupportedMediaTypeError, BodyTooLargeError
 */
export function bulkForm(req: Request, config: Config): "folder" | ManifestForm {
  const header = req.headers["content-type"] ?? "";
  const type = mediaType(header);
  const form = MANIFEST_FORMS.get(type);
  if (form) {
    checkTransfer(req, config.max_manifest_bytes, "max_manifest_bytes");
    return form;
  }
  if (type === "application/json") return "folder";
  throw new UnsupportedMediaTypeError(
    `Content-Type must be application/json for a folder or application/x-ndjson, text/csv or application/vnd.apache.parquet for a manifest, got ${JSON.stringify(header)}`,
  );
}

/** @throws UnsupportedMediaTypeError where a type names a picture that can't be decoded */
export function checkPictureType(header: string): void {
  const type = mediaType(header);
  if (!type.startsWith("image/") || isPictureMediaType(type)) return;
  throw new UnsupportedMediaTypeError(
    `pictures must be ${PICTURE_FORMAT_NAMES} (${PICTURE_MEDIA_TYPE_NAMES}), got ${JSON.stringify(type)}`,
  );
}

export function mediaType(header: string): string {
  return (header.split(";")[0] ?? "").trim().toLowerCase();
}

/**
 * The whole body, without a stream of its own in between: most are small, and there at once.
 * @throws BodyTooLargeError, BodyTooSlowError, ClientGoneError
 */
export function readWholeBody(
  req: Request,
  maxBytes: number,
  setting?: ConstructorParameters<typeof BodyTooLargeError>[1],
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let received = 0;
    const stopWatching = watchRate(
      req,
      () => received,
      () => false,
      fail,
    );
    function end(): void {
      stopWatching();
      req.off("data", take).off("end", finish).off("error", leave).off("close", leave);
    }
    function take(chunk: Buffer): void {
      received += chunk.length;
      if (received > maxBytes) fail(new BodyTooLargeError(maxBytes, setting));
      else chunks.push(chunk);
    }
    function finish(): void {
      end();
      resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    }
    function leave(cause?: Error): void {
      fail(new ClientGoneError("the client went away", { cause }));
    }
    function fail(error: Error): void {
      end();
      // The refusal must still travel on its connection.
      req.pause();
      reject(error);
    }
    req.on("data", take).on("end", finish).on("error", leave).on("close", leave);
    if (req.destroyed) leave();
  });
}

/** The body as it arrives; the stream fails with BodyTooLargeError, BodyTooSlowError or ClientGoneError. */
export function limitBody(
  req: Request,
  maxBytes: number,
  setting?: ConstructorParameters<typeof BodyTooLargeError>[1],
): Readable {
  let received = 0;
  const limited = new Transform({
    // Most pictures fit, and then the socket is never paused on their way.
    highWaterMark: BODY_BUFFER_BYTES,
    transform(chunk: Buffer, _encoding, done) {
      received += chunk.length;
      if (received > maxBytes) done(new BodyTooLargeError(maxBytes, setting));
      else done(null, chunk);
    },
  });
  const isHeldBack = () => limited.readableLength > 0 || limited.writableNeedDrain;
  const stopWatching = watchRate(
    req,
    () => received,
    isHeldBack,
    (error) => limited.destroy(error),
  );
  for (const [stream, event] of [
    [limited, "close"],
    [req, "close"],
    [req, "end"],
  ] as const)
    stream.once(event, stopWatching);
  // Whoever reads meets the error all the same; without a listener it would end the process if nobody reads yet.
  limited.on("error", () => {});
  // pipe() alone would leave the stream waiting for ever when its client goes away.
  finished(req, { writable: false }, (error) => {
    if (error) limited.destroy(new ClientGoneError("the client went away", { cause: error }));
  });
  // Not pipeline(): it would destroy the connection that the refusal must travel on.
  return req.pipe(limited);
}

/**
 * Fails the body of a client that sends next to nothing; one that isn't read at this moment is not the client's fault.
 * @returns stops it
 */
function watchRate(
  { app }: Request,
  received: () => number,
  isHeldBack: () => boolean,
  fail: (error: BodyTooSlowError) => void,
): () => void {
  const minRate = Number(app.get(MIN_RATE_SETTING) ?? 0);
  if (minRate === 0) return () => {};
  let before = 0;
  const timer = setInterval(() => {
    const now = received();
    if (!isHeldBack() && now - before < (minRate * RATE_WINDOW_MS) / 1000)
      fail(
        new BodyTooSlowError(
          `${now - before} bytes came in ${RATE_WINDOW_MS / 1000} s, and ${minRate} a second is the least (min_upload_bytes_per_second)`,
        ),
      );
    before = now;
  }, RATE_WINDOW_MS);
  return () => clearInterval(timer);
}

export async function readText(body: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk as Buffer);
  return textOf(Buffer.concat(chunks));
}

/** @throws MalformedBodyError where the bytes are neither UTF-8 nor UTF-16 */
export function textOf(bytes: Uint8Array): string {
  try {
    return decodeText(bytes);
  } catch (error) {
    throw new MalformedBodyError("JSON must be UTF-8 (or UTF-16), and this is not", { cause: error });
  }
}

/**
 * @param what names the text in errors: "the body", "line 3"
 * @throws MalformedBodyError with the place of the fault, BadInputError where it nests too deep
 */
export function parseJson(text: string, what: string): unknown {
  try {
    return parseExactJson(text);
  } catch (error) {
    if (error instanceof TooDeepError) throw new BadInputError(`${what} ${error.message}`, { cause: error });
    const reason = (error as Error).message.replace(/ in JSON at position.*$/, "");
    throw new MalformedBodyError(`${what} is not JSON: ${reason}${placeOfFault(text, error as Error)}`, {
      cause: error,
    });
  }
}

function placeOfFault(text: string, { message }: Error): string {
  if (text.length > MAX_TEXT_TO_SEARCH) return "";
  const told = /at position (\d+)/.exec(message)?.[1];
  const at = told === undefined ? findJsonFault(text) : Number(told);
  const before = text.slice(0, at).split("\n");
  return `, at position ${at} (line ${before.length}, column ${before.at(-1)!.length + 1})`;
}
