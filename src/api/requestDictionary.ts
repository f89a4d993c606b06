/**
 * A request dictionary as it came over HTTP: checked, and its pictures taken out
 * of it, as bytes or as files that stay where they are.
 */
import { createHash } from "node:crypto";
import type { Config } from "../config/schema.ts";
import { parseOutsideUrl } from "../egress/egress.ts";
import { BadInputError, InvalidRequestError, type Fault } from "../errors.ts";
import type { RequestDictionary } from "../core/request.ts";
import { decodeBase64 } from "../imil/requestPictures.ts";
import { findFaults, type Needs } from "../imil/requestSchema.ts";
import { parseFileName } from "../config/bulkRoots.ts";
import type { StoredInput } from "../queue/inputs.ts";
import { BodyTooLargeError } from "./problems.ts";
import type { RequestParts } from "./service.ts";

/**
 * @param needs of the model's loader; what the request lacks of it is a fault like any other
 * @throws InvalidRequestError naming every faulty key, BadInputError, BodyTooLargeError
 */
export function readDictionary(
  value: unknown,
  config: Config,
  modelName: string,
  needs?: Needs,
): RequestParts {
  const faults = findFaults(value, modelName, needs);
  const {
    Base_64: base64,
    image,
    ...request
  } = value as RequestDictionary & { image?: string | string[] | null };
  const pictures = takePictures(base64, image, config, faults);
  if (faults.length > 0) throw new InvalidRequestError(faults);
  checkRequestSize(request, config);
  return { request, inputs: pictures };
}

/**
 * What is left of a dictionary travels with its job.
 * @throws BodyTooLargeError
 */
export function checkRequestSize(request: RequestDictionary, { max_request_bytes: maxBytes }: Config): void {
  if (Buffer.byteLength(JSON.stringify(request)) <= maxBytes) return;
  throw new BodyTooLargeError(maxBytes, "max_request_bytes", "the request without its pictures, as JSON,");
}

/** What is wrong with the pictures is added to the faults. */
function takePictures(
  base64: RequestDictionary["Base_64"],
  image: string | string[] | null | undefined,
  config: Config,
  faults: Fault[],
): RequestParts["inputs"] {
  const encoded = listOf<unknown>(base64);
  const named = listOf(image);
  const key = encoded.length > 0 ? "Base_64" : "image";
  const count = encoded.length + named.length;
  if (faults.some((fault) => /^(Base_64|image)\b/.test(fault.key))) return [];
  if (encoded.length > 0 && named.length > 0) {
    faults.push({ key, problem: "must be left out where image names the pictures, got both" });
    return [];
  }
  if (count > config.max_pictures_per_request) {
    const limit = config.max_pictures_per_request;
    faults.push({
      key,
      problem: `must hold at most ${limit} pictures (max_pictures_per_request), got ${count}`,
    });
    return [];
  }

  const each = <T, U>(list: T[], isList: boolean, read: (item: T, place: string) => U): U[] =>
    list.flatMap((item, index) => {
      const place = isList ? `${key}[${index}]` : key;
      try {
        return [read(item, place)];
      } catch (error) {
        if (!(error instanceof BadInputError)) throw error;
        faults.push({ key: place, problem: error.message.replace(/^(Base_64|image)(\[\d+\])? /, "") });
        return [];
      }
    });
  return encoded.length > 0
    ? each(encoded, Array.isArray(base64), (text, place) => ({
        bytes: decodeBase64(text, place),
        label: {},
      }))
    : each(named, Array.isArray(image), (path) => refer(path, config));
}

/** "", " " and null are what IMIL's clients send for "none". */
function listOf<T>(value: T | T[] | null | undefined): T[] {
  if (value === undefined || value === null || (typeof value === "string" && value.trim() === "")) return [];
  return Array.isArray(value) ? value : [value];
}

function refer(path: string, config: Config): StoredInput {
  // Not the picture's bytes: two requests are the same when they name the same file.
  return {
    ref: /^https?:/i.test(path)
      ? { url: parseOutsideUrl(path, "image").href }
      : parseFileName(path, config.bulk_roots),
    sha256: createHash("sha256").update(path).digest("hex"),
    bytes: 0,
  };
}
