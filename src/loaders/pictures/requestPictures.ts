/**
 * The pictures of a request as bytes. An engine attaches the bytes that it read
 * by reference, so that they need no base64 on the way; a request that was built
 * by hand (`executeModel`) carries base64 in `Base_64`. Loaders see no difference.
 */
import { BadInputError } from "../../errors.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";

const PICTURES = Symbol("infermill.pictures");

/** Encoded pictures (JPEG, PNG, WebP) of a request, in the order of `Base_64`; empty where it brings none. */
export function picturesOf(request: PredictionRequest): Buffer[] {
  const attached = (request as { [PICTURES]?: Buffer[] })[PICTURES];
  if (attached) return attached;
  const given = request.Base_64;
  if (given === undefined || given === null || (typeof given === "string" && given.trim() === "")) return [];
  return (Array.isArray(given) ? given : [given]).map((text, index) =>
    decodeBase64(text, Array.isArray(given) ? `Base_64[${index}]` : "Base_64"),
  );
}

/** Attaches bytes to a request; `Base_64` is then computed from them if somebody reads it. */
export function attachPictures(request: PredictionRequest, pictures: Buffer[]): PredictionRequest {
  Object.defineProperty(request, PICTURES, { value: pictures });
  let encoded: string | string[] | undefined;
  Object.defineProperty(request, "Base_64", {
    enumerable: true,
    configurable: true,
    get: () =>
      (encoded ??=
        pictures.length === 1 ? pictures[0]!.toString("base64") : pictures.map((p) => p.toString("base64"))),
    set: (value: string | string[]) => {
      encoded = value;
    },
  });
  return request;
}

const DATA_URL = /^data:[^,]*;base64,/i;

/**
 * Decodes base64, with or without a `data:…;base64,` prefix, standard or URL-safe alphabet, line breaks tolerated.
 * @throws BadInputError naming `key` where the text is no base64.
 */
export function decodeBase64(text: unknown, key: string): Buffer {
  if (typeof text !== "string") {
    throw new BadInputError(
      `${key} must be a picture as a base64 string, got ${text === null ? "null" : typeof text}`,
    );
  }
  const prefix = DATA_URL.exec(text);
  const body = prefix ? text.slice(prefix[0].length) : text;
  const bytes = Buffer.from(body, "base64");
  // Buffer.from skips what is not base64 without a word, so a shorter result means that something was skipped.
  if (bytes.length === 0 || bytes.length < Math.floor((unpaddedLength(body) * 3) / 4)) {
    throw new BadInputError(`${key} is not base64: it begins with ${JSON.stringify(body.slice(0, 24))}`);
  }
  return bytes;
}

function unpaddedLength(body: string): number {
  let length = body.length;
  if (/\s/.test(body)) length = body.replaceAll(/\s+/g, "").length;
  const padding = /=*\s*$/.exec(body)?.[0].replaceAll(/\s/g, "").length ?? 0;
  return length - padding;
}
