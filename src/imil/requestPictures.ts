/**
 * The pictures of a request as bytes. An engine attaches the inputs that it read
 * by reference, so that they need no base64 on the way; a request that was built
 * by hand (`executeModel`) carries base64 in `Base_64`. Loaders see no difference.
 */
import {
  attachInputs,
  DEFAULT_INPUT,
  inputsOf,
  UNKNOWN_MEDIA_TYPE,
  type Input,
  type RequestDictionary,
} from "../core/request.ts";
import { BadInputError } from "../errors.ts";
import type { PredictionRequest } from "./dictionaries.ts";

/** Encoded pictures of a request, in the order in which they came; empty where it brings none. */
export function picturesOf(request: PredictionRequest): Buffer[] {
  const attached = inputsOf(request);
  if (attached.length > 0) return attached.filter(isPicture).map(({ bytes }) => bytes);
  const given = request.Base_64;
  if (given === undefined || given === null || (typeof given === "string" && given.trim() === "")) return [];
  return (Array.isArray(given) ? given : [given]).map((text, index) =>
    decodeBase64(text, Array.isArray(given) ? `Base_64[${index}]` : "Base_64"),
  );
}

function isPicture({ mediaType }: Input): boolean {
  return mediaType.startsWith("image/") || mediaType === UNKNOWN_MEDIA_TYPE;
}

/** Attaches inputs to a request; `Base_64` is then computed from the pictures among them if somebody reads it. */
export function attachRequestInputs<T extends RequestDictionary>(request: T, inputs: readonly Input[]): T {
  attachInputs(request, inputs);
  const pictures = inputs.filter(isPicture);
  if (pictures.length === 0) return request;
  let encoded: string | string[] | undefined;
  return Object.defineProperty(request, "Base_64", {
    enumerable: true,
    configurable: true,
    get: () => {
      if (encoded !== undefined) return encoded;
      const all = pictures.map(({ bytes }) => bytes.toString("base64"));
      return (encoded = all.length === 1 ? all[0]! : all);
    },
    set: (value: string | string[]) => {
      encoded = value;
    },
  });
}

/** Attaches encoded pictures to a request as its inputs. */
export function attachPictures<T extends RequestDictionary>(request: T, pictures: readonly Buffer[]): T {
  return attachRequestInputs(
    request,
    pictures.map((bytes) => ({ name: DEFAULT_INPUT, mediaType: UNKNOWN_MEDIA_TYPE, bytes })),
  );
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
