/** The entries of a manifest, each checked as a prediction of its own would be. Nothing runs while one has a fault. */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { BulkEntry, ManifestEntry } from "../../bulk/spec.ts";
import { namesRoot, rootNames } from "../../config/bulkRoots.ts";
import type { Config } from "../../config/schema.ts";
import { BadInputError, InfermillError, InvalidRequestError, type Fault } from "../../errors.ts";
import { decodeBase64 } from "../../imil/requestPictures.ts";
import type { Needs } from "../../imil/requestSchema.ts";
import { PICTURE_FORMAT_NAMES, sniffPicture } from "../../core/pictureFormats.ts";
import { parseWith } from "../../core/faults.ts";
import { readDictionary } from "../../api/requestDictionary.ts";
import type { ManifestForm } from "../../api/body/read.ts";
import { readRows } from "./manifestRows.ts";

/** With more faulty lines than this the rest is not read. */
const MAX_FAULTS = 100;
/** They are in memory while the manifest is read, some hundred bytes each. */
const MAX_UNIQUE_IDS = 1_000_000;

export const manifestLineSchema = z
  .strictObject({
    custom_id: z.string().max(512).optional().meta({ description: "Comes back in the results." }),
    image: z
      .union([z.string(), z.array(z.string())], { error: "must be a string, or a list of them" })
      .optional()
      .meta({
        description:
          "The picture: <root>/<path> below bulk_roots, an http(s) URL, or the bytes as base64 or data: URL.",
      }),
    request: z
      .record(z.string(), z.unknown())
      .default({})
      .meta({ description: "Further keys of the request dictionary." }),
  })
  .meta({ id: "ManifestLine" });

export interface ManifestOptions {
  model: string;
  needs: Needs | undefined;
  /** Whether a custom_id that comes twice is a fault. */
  hasUniqueIds: boolean;
}

/**
 * The entries of a manifest, none after the first fault.
 * @throws InvalidRequestError at its end with the faults of all lines, as `line 3: image`
 */
export async function* readManifest(
  form: ManifestForm,
  body: AsyncIterable<Buffer>,
  config: Config,
  { model, needs, hasUniqueIds }: ManifestOptions,
): AsyncGenerator<BulkEntry> {
  const faults: Fault[] = [];
  const ids = hasUniqueIds ? new UniqueIds() : undefined;
  let count = 0;
  for await (const { place, read } of readRows(form, body, config)) {
    count++;
    try {
      const entry = readEntry(read(), config, model, needs);
      if (typeof entry.custom_id === "string") ids?.add(entry.custom_id, place);
      if (faults.length === 0) yield entry;
    } catch (error) {
      faults.push(...faultsOfRow(error, place));
      if (faults.length >= MAX_FAULTS) break;
    }
  }
  if (faults.length > 0) throw new InvalidRequestError(faults);
  if (count === 0) throw new BadInputError("the manifest must hold at least one entry, got none");
}

/** The ids of a manifest, in memory that does not grow with how long they are. */
class UniqueIds {
  readonly #places = new Map<string, string>();

  /** @throws InvalidRequestError where it came before, BadInputError where there are too many */
  add(id: string, place: string): void {
    const key = id.length <= 32 ? id : createHash("sha256").update(id).digest("base64");
    const before = this.#places.get(key);
    if (before !== undefined) {
      const problem = `must be unique, ${JSON.stringify(id.slice(0, 80))} is that of ${before}, too`;
      throw new InvalidRequestError([{ key: "custom_id", problem }]);
    }
    if (this.#places.size >= MAX_UNIQUE_IDS)
      throw new BadInputError(
        `with unique_custom_ids a manifest may have at most ${MAX_UNIQUE_IDS} of them; leave it out, or send several`,
      );
    this.#places.set(key, place);
  }
}

function readEntry(row: unknown, config: Config, model: string, needs: Needs | undefined): ManifestEntry {
  const checked = parseWith(manifestLineSchema, row);
  const { custom_id, image, request } = checked;
  if (image !== undefined && ("image" in request || "Base_64" in request))
    throw new BadInputError("a line's pictures stand either in image or inside request, not in both");
  const { key, pictures } = placeOf(image, config);
  const parts = readDictionary({ ...request, ...(key && { [key]: image }) }, config, model, needs);
  const refs = parts.inputs.flatMap((input) => ("ref" in input ? [input.ref] : []));
  const base64 = parts.inputs.length > refs.length ? (pictures ?? [request["Base_64"]].flat()) : [];
  return {
    ...(custom_id !== undefined && { custom_id }),
    ...(Object.keys(parts.request).length > 0 && { request: parts.request }),
    ...(refs.length > 0 && { refs }),
    ...(base64.length > 0 && { base64: base64.map(String) }),
  };
}

/** Whether a line's `image` names its pictures or is them. */
function placeOf(
  image: string | string[] | undefined,
  config: Config,
): { key?: "image" | "Base_64"; pictures?: string[] } {
  if (image === undefined) return {};
  const pictures = [image].flat();
  const areNames = pictures.map((text) => isName(text, config));
  if (areNames.every(Boolean)) return { key: "image" };
  if (!areNames.some(Boolean)) return { key: "Base_64", pictures };
  throw new InvalidRequestError([{ key: "image", problem: "must hold either names or base64, got both" }]);
}

function isName(text: string, { bulk_roots }: Config): boolean {
  if (/^https?:/i.test(text)) return true;
  if (/^data:/i.test(text)) return false;
  if (namesRoot(text, bulk_roots)) return true;
  if (isPicture(text)) return false;
  throw new InvalidRequestError([
    {
      key: "image",
      problem: `must be <root>/<path> with a root of bulk_roots (${rootNames(bulk_roots)}), an http(s) URL, or a picture (${PICTURE_FORMAT_NAMES}) as base64, got ${JSON.stringify(text.slice(0, 80))}`,
    },
  ]);
}

function isPicture(base64: string): boolean {
  try {
    return sniffPicture(decodeBase64(base64.slice(0, 64), "image")) !== undefined;
  } catch {
    return false;
  }
}

function faultsOfRow(error: unknown, place: string): Fault[] {
  if (!(error instanceof InfermillError) || error.status >= 500) throw error;
  if (!(error instanceof InvalidRequestError))
    return [{ key: place, problem: error.message.replace(/^it /, "") }];
  return error.faults.map(({ key, problem }) => ({
    key: key === "" ? place : `${place}: ${key}`,
    problem,
  }));
}
