/**
 * The request dictionary as clients send it: light checks of the keys that IMIL
 * names, all faults at once. Keys that are not listed are kept as they came.
 */
import { z } from "zod";
import { BadInputError, InvalidRequestError, type Fault } from "../errors.ts";
import type { LoaderDescription } from "../core/description.ts";
import { faultOf } from "../core/faults.ts";
import type { PredictionRequest } from "./dictionaries.ts";

/** Deeper dictionaries would overflow the stack of whoever writes them as JSON. */
const DEEPEST_NESTING = 64;

const text = (description: string) =>
  z
    .union([z.string(), z.number()], { error: "must be a string or a number" })
    .nullish()
    .meta({ description });
const textOrTexts = (description: string) =>
  z
    .union([z.string(), z.number(), z.array(z.union([z.string(), z.number()]))], {
      error: "must be a string or a number, or a list of them",
    })
    .nullish()
    .meta({ description });
const listOrText = (description: string) =>
  z
    .union([z.array(z.unknown()), z.string()], { error: "must be a list" })
    .nullish()
    .meta({ description });
const anything = (description: string) => z.unknown().optional().meta({ description });
const threshold = "must be a number from 0 to 1 (or one in a string)";

/** A picture of one grey pixel (PNG), so that the example can be sent as it stands. */
const GREY_PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";

/** IMIL's request dictionary. Its real clients send null, " " and numbers in strings, so we take them. */
export const requestSchema = z
  .looseObject({
    Tid: text("Tenant id."),
    Did: text("Device id."),
    Fid: textOrTexts("Frame id; a list where several frames are explained together."),
    Per: listOrText("Findings of the previous frame."),
    Ts: text("Time of the frame."),
    Ts_ntp: text("Time of the frame by the network's clock."),
    Inf_ver: text("Version of the inference."),
    Msg_ver: text("Version of the message."),
    Model: text("Name of the model, for the client's own use: the URL decides which one runs."),
    Ad: anything("Additional data: a string or an object."),
    Ffp: text("First frame."),
    Ltsize: text("Lot size."),
    Lfp: text("Last frame."),
    Mtp: z
      .array(z.looseObject({}, { error: "must be an object" }), { error: "must be a list of objects" })
      .nullish()
      .meta({ description: "Message travel path: a list of {Stime, Etime, Src}." }),
    Base_64: z
      .union([z.string(), z.array(z.unknown())], {
        error: "must be a picture as a base64 string, or a list of them",
      })
      .nullish()
      .meta({
        description: "The picture as base64, with or without a data-URL prefix, or a list of pictures.",
        override: {
          anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }, { type: "null" }],
        },
      }),
    image: z
      .union([z.string(), z.array(z.string())], {
        error: "must be a string <root>/<path>, or a list of them",
      })
      .nullish()
      .meta({
        description:
          "Instead of Base_64: a file below one of the configuration's bulk_roots, as <root>/<path>, or a list.",
      }),
    C_threshold: z
      .union([z.number(), z.string()], { error: threshold })
      .refine((value) => isThreshold(value), { error: threshold })
      .nullish()
      .meta({ description: "Lowest confidence (0 to 1) of a finding." }),
    I_fn: text("Name of the input file."),
    Msk_img: listOrText("Masks as base64."),
    Rep_img: listOrText("Replacement pictures as base64."),
    Prompt: listOrText("Text prompts, a list of lists of strings, of which the first is used."),
    Roi_c: anything("Regions of interest."),
    Fs: anything("Findings of an earlier model."),
    Hp: anything("Hyper-parameters."),
    Text: anything("A text."),
    Xai_ver: anything("Version of the explanation."),
    Xai_explainers: anything("Who is to explain."),
    Xai_url: anything("Where explanations are sent."),
    FeedId: anything("Id of the feed."),
  })
  .meta({
    id: "PredictionRequest",
    description:
      "The request dictionary. No key is required unless the model's loader needs it; others are handed to the loader as they came.",
    example: { Tid: "1", Did: "camera-7", Fid: "42", C_threshold: 0.5, Base_64: GREY_PIXEL },
  });

/** "" and blanks are what IMIL's clients send for "none". */
function isThreshold(value: number | string): boolean {
  if (typeof value === "string" && value.trim() === "") return true;
  return Number(value) >= 0 && Number(value) <= 1;
}

/** What a model's loader needs of every request, as far as it is known. */
export type Needs = Pick<LoaderDescription, "picture" | "requiredKeys">;

/**
 * All that is wrong with a request dictionary, and what it lacks; empty where it can be used.
 * @param needs of the loader; left out where its worker hasn't told them
 * @throws BadInputError where it is no dictionary at all
 */
export function findFaults(value: unknown, modelName: string, needs?: Needs): Fault[] {
  const request = asDictionary(value);
  if (isDeeperThan(request, DEEPEST_NESTING))
    throw new BadInputError(`a request must not nest deeper than ${DEEPEST_NESTING} levels`);

  const checked = requestSchema.safeParse(value, { reportInput: true });
  const faults = checked.success ? [] : checked.error.issues.map(faultOf);
  if (needs?.picture === "required" && isBlank(request.Base_64) && isBlank(request.image)) {
    faults.push({
      key: "Base_64",
      problem: `is missing: the model "${modelName}" needs a picture, as base64 or a list of it (or image, a file below bulk_roots)`,
    });
  }
  for (const key of needs?.requiredKeys ?? []) {
    if (isBlank(request[key])) faults.push({ key, problem: `is missing: the model "${modelName}" needs it` });
  }
  return faults;
}

/** @throws BadInputError where it is none */
export function asDictionary(value: unknown): PredictionRequest {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as PredictionRequest;
  const got = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
  throw new BadInputError(`a request must be a JSON object, got ${got}`);
}

/** @throws InvalidRequestError with all faults */
export function checkRequest(value: unknown, modelName: string, needs?: Needs): PredictionRequest {
  const faults = findFaults(value, modelName, needs);
  if (faults.length > 0) throw new InvalidRequestError(faults);
  return value as PredictionRequest;
}

/** Whether a key holds nothing, as clients write it: null, "", " ", [] or [""]. */
export function isBlank(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  if (typeof value === "string") return value.trim() === "";
  return Array.isArray(value) && value.every(isBlank);
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(inner, levels - 1));
}
