/**
 * The request dictionary as clients send it: light checks of the keys that IMIL
 * names (all faults at once, unknown keys kept), and its pictures taken out.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Config } from "../config/schema.ts";
import { BadInputError } from "../errors.ts";
import type { PredictionRequest } from "../loaders/dictionaries.ts";
import { decodeBase64 } from "../loaders/requestPictures.ts";
import { parseFileReference, type StoredInput } from "../queue/inputs.ts";
import { InvalidRequestError, type Fault } from "./problems.ts";

/** Deeper dictionaries would overflow the stack of whoever writes them as JSON. */
const DEEPEST_NESTING = 64;

const text = (description: string) =>
  z
    .union([z.string(), z.number()], { error: "must be a string or a number" })
    .nullish()
    .meta({ description });
const listOrText = (description: string) =>
  z
    .union([z.array(z.unknown()), z.string()], { error: "must be a list" })
    .nullish()
    .meta({ description });
const numberOrNumeric = "must be a number or a number in a string";

/** IMIL's request dictionary. Its real client sends null, " " and numbers in strings, so do we take them. */
export const requestSchema = z
  .looseObject({
    Tid: text("Tenant id."),
    Did: text("Device id."),
    Fid: text("Frame id."),
    Per: listOrText("Findings of the previous frame."),
    Ts: text("Time of the frame."),
    Ts_ntp: text("Time of the frame by the network's clock."),
    Inf_ver: text("Version of the inference."),
    Msg_ver: text("Version of the message."),
    Model: text("Name of the model, for the client's own use: the URL decides which one runs."),
    Ad: z.unknown().optional().meta({ description: "Additional data: a string or an object." }),
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
      .union([z.number(), z.string()], { error: numberOrNumeric })
      .refine((value) => Number.isFinite(Number(value)), { error: numberOrNumeric })
      .nullish()
      .meta({ description: "Lowest confidence (0 to 1) of a finding." }),
    I_fn: text("Name of the input file."),
    Msk_img: listOrText("Masks as base64."),
    Rep_img: listOrText("Replacement pictures as base64."),
    Prompt: listOrText("Text prompts, a list of lists of strings."),
  })
  .meta({
    id: "PredictionRequest",
    description:
      "The request dictionary. No key is required unless the model's loader needs it; others are handed to the loader as they came.",
    example: { Tid: "1", Did: "camera-7", Fid: "42", C_threshold: 0.5, Base_64: "/9j/4AAQSkZJRg…" },
  });

/** A dictionary without its pictures, and these: as bytes, or as files that stay where they are. */
export interface RequestParts {
  request: PredictionRequest;
  pictures: Buffer[];
  references: StoredInput[];
}

/** @throws InvalidRequestError or BadInputError naming the faulty keys */
export function readDictionary(value: unknown, config: Config): RequestParts {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const got = value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
    throw new BadInputError(`a request must be a JSON object, got ${got}`);
  }
  const checked = requestSchema.safeParse(value, { reportInput: true });
  if (!checked.success) throw new InvalidRequestError(checked.error.issues.map(faultOf));
  const {
    Base_64: base64,
    image,
    ...request
  } = value as PredictionRequest & { image?: string | string[] | null };
  if (isDeeperThan(request, DEEPEST_NESTING)) {
    throw new BadInputError(`a request must not nest deeper than ${DEEPEST_NESTING} levels`);
  }
  const encoded = listOf<unknown>(base64);
  const named = listOf(image);
  if (encoded.length > 0 && named.length > 0) {
    throw new BadInputError("a request's pictures come either in Base_64 or in image, got both");
  }
  if (encoded.length + named.length > config.max_pictures_per_request) {
    throw new BadInputError(
      `${encoded.length > 0 ? "Base_64" : "image"} must hold at most ${config.max_pictures_per_request} pictures (max_pictures_per_request), got ${encoded.length + named.length}`,
    );
  }
  return {
    request,
    pictures: encoded.map((part, index) =>
      decodeBase64(part, Array.isArray(base64) ? `Base_64[${index}]` : "Base_64"),
    ),
    references: named.map((path) => refer(path, config)),
  };
}

/** "" and null are what IMIL's clients send for "none". */
function listOf<T>(value: T | T[] | null | undefined): T[] {
  if (value === undefined || value === null || value === "") return [];
  return Array.isArray(value) ? value : [value];
}

function refer(path: string, config: Config): StoredInput {
  if (/^https?:/i.test(path)) {
    throw new BadInputError(
      `image can't be a URL yet in this version: name a file below bulk_roots, or send the picture itself; got ${JSON.stringify(path.slice(0, 200))}`,
    );
  }
  // Not the file's bytes: two requests are the same when they name the same file.
  return {
    ref: parseFileReference(path, config.bulk_roots),
    sha256: createHash("sha256").update(path).digest("hex"),
    bytes: 0,
  };
}

/** One zod issue as a fault. */
export function faultOf(issue: z.core.$ZodIssue): Fault {
  const key = issue.path
    .map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`))
    .join("")
    .slice(1);
  const got = "input" in issue && issue.input !== undefined ? `, got ${shown(issue.input)}` : "";
  return { key, problem: `${issue.message}${got}` };
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? typeof value;
  return json.length > 80 ? `${json.slice(0, 80)}…` : json;
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeperThan(inner, levels - 1));
}
