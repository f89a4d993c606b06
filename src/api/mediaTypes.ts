/** Which of a model's inputs some bytes are: by the form field that brought them, and by their media type. */
import { inputsOfDescription, type InputDescription, type LoaderDescription } from "../core/description.ts";
import { DEFAULT_INPUT, UNKNOWN_MEDIA_TYPE } from "../core/request.ts";
import type { InputLabel } from "../queue/inputs.ts";
import { checkPictureType, unsupportedType } from "./body/read.ts";
import { UnsupportedMediaTypeError } from "./problems.ts";

/** Form fields that clients use for "the file", whatever it is. */
const ANY_FILE = /^(files?|images?|pictures?|uploads?)(\[\d*\])?$/;

/** What may be bytes for a model that no worker has described yet. */
const BYTES = /^((image|audio|video)\/|application\/octet-stream$)/;

/**
 * The label of bytes that a client sent.
 * @param field the form field; undefined for a body that is the bytes themselves
 * @param description of the model, where a live worker has told it
 * @throws UnsupportedMediaTypeError naming what the model takes
 */
export function labelInput(
  claimed: string,
  field: string | undefined,
  description: LoaderDescription | undefined,
): InputLabel {
  // A range, which some clients send for "any picture", says nothing of these bytes.
  const given = claimed.endsWith("/*") ? UNKNOWN_MEDIA_TYPE : claimed;
  const known = description ? inputsOfDescription(description) : undefined;
  const mediaType = field === undefined ? given : mediaTypeOfPart(given, known);
  const role = roleOf(field, mediaType, known);
  if (role && !accepts(role, mediaType)) {
    throw new UnsupportedMediaTypeError(
      `the model takes ${describeInputs(known!)}, got ${JSON.stringify(mediaType)}`,
    );
  }
  if (known && !role)
    throw new UnsupportedMediaTypeError(
      `the model takes no files${field === undefined ? "" : `, got ${JSON.stringify(field)}`}; send the request as application/json`,
    );
  if (!known && !BYTES.test(mediaType)) throw unsupportedType(mediaType);
  checkPictureType(mediaType);
  const name = role?.name ?? (field === undefined || ANY_FILE.test(field) ? DEFAULT_INPUT : field);
  return {
    ...(name !== DEFAULT_INPUT && { name }),
    ...(mediaType !== UNKNOWN_MEDIA_TYPE && { media_type: mediaType }),
  };
}

/** A part of a form without a Content-Type counts as text/plain (RFC 7578), also where it is a picture. */
function mediaTypeOfPart(given: string, known: readonly InputDescription[] | undefined): string {
  const takesText = known?.some((input) => accepts(input, "text/plain"));
  return given === "text/plain" && !takesText ? UNKNOWN_MEDIA_TYPE : given;
}

function roleOf(
  field: string | undefined,
  mediaType: string,
  known: readonly InputDescription[] | undefined,
): InputDescription | undefined {
  if (!known) return undefined;
  const named = known.find(({ name }) => name === field?.replace(/\[\d*\]$/, ""));
  return named ?? known.find((input) => accepts(input, mediaType)) ?? known[0];
}

function accepts({ mediaTypes }: InputDescription, mediaType: string): boolean {
  // Bytes of which the client knows nothing are for the loader to recognise.
  if (mediaType === UNKNOWN_MEDIA_TYPE) return true;
  return mediaTypes.some(
    (range) =>
      range === "*/*" ||
      range === mediaType ||
      (range.endsWith("/*") && mediaType.startsWith(range.slice(0, -1))),
  );
}

/** "image (image/*), audio (audio/wav, audio/flac)" */
export function describeInputs(inputs: readonly InputDescription[]): string {
  if (inputs.length === 0) return "no bytes beside its JSON";
  return inputs.map(({ name, mediaTypes }) => `${name} (${mediaTypes.join(", ")})`).join(", ");
}
