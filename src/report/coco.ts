/**
 * Results in COCO's format: `images`, `annotations` and `categories`. Boxes are in pixels of the upright picture, whose
 * size the mask says or the picture's own header. An entry that failed is no image of it: it would read as one in which
 * nothing was found. Those stand in `infermill`, beside what COCO knows, with the reason.
 */
import { readResults } from "../bulk/resultsFile.ts";
import type { RunFolder } from "../bulk/runFolder.ts";
import type { BulkSpec } from "../bulk/spec.ts";
import type { StorageConfig } from "../storage/storage.ts";
import type { BulkResult, BulkRun } from "../core/bulkRun.ts";
import { BadInputError } from "../errors.ts";
import type { Box, Finding } from "../imil/dictionaries.ts";
import { findingsOf } from "../imil/response.ts";
import { coco91Labels, cocoLabels } from "../loaders/labels/coco.ts";
import { expandRuns } from "../imil/runLengths.ts";
import { version } from "../version.ts";
import { readEntrySize } from "./entryPicture.ts";

/** As the overlay has it: a point below is not surely seen. */
const VISIBLE_SCORE = 0.3;
const PARALLEL_HEADERS = 16;
const BLOCK_CHARACTERS = 64 * 1024;
/** COCO's names of a person's 17 key points, and which of them belong together. */
const PERSON_POINTS =
  "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle".split(
    " ",
  );
const PERSON_SKELETON =
  "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2 1-3 2-4 3-5 4-6 5-7"
    .split(" ")
    .map((pair) => pair.split("-").map(Number));

export interface CocoOptions {
  spec: BulkSpec;
  run: BulkRun;
  folder: RunFolder;
  resultsFile: string;
  config: StorageConfig;
}

interface Survey {
  /** Category ids by label. */
  categories: Map<string, number>;
  /** Key points of a category's findings. */
  keyPoints: Map<string, number>;
  /** Width and height of each line's picture; 0 where it is no image of the document. */
  sizes: number[];
  failed: { index: number; file_name: string; code: string; detail: string }[];
}

/** Failures that are listed one by one. */
const MAX_LISTED = 10_000;

/**
 * The document, some of it at a time. Everything is looked through before the first part comes.
 * @throws BadInputError where findings have no box, or the size of a picture can't be found out
 */
export async function writeCoco(options: CocoOptions): Promise<AsyncGenerator<string>> {
  const survey = await lookThrough(options);
  return write(options, survey);
}

async function lookThrough(options: CocoOptions): Promise<Survey> {
  const labels = new Set<string>();
  const keyPoints = new Map<string, number>();
  const sizes: number[] = [];
  const failed: Survey["failed"] = [];
  let waiting: { place: number; result: BulkResult }[] = [];
  const readSizes = async () => {
    const some = waiting;
    waiting = [];
    await Promise.all(
      some.map(async ({ place, result }) => {
        const { width, height } = await sizeOf(result, options);
        [sizes[2 * place], sizes[2 * place + 1]] = [width, height];
      }),
    );
  };
  let place = 0;
  for await (const { text } of readResults(options.resultsFile)) {
    const result = JSON.parse(text) as BulkResult;
    sizes.push(0, 0);
    if (result.status === "succeeded") {
      checkFindings(result);
      for (const { Lb, Kp } of findingsOf(result.result)) {
        labels.add(Lb);
        if (Kp) keyPoints.set(Lb, Math.max(keyPoints.get(Lb) ?? 0, highestPoint(Kp)));
      }
      waiting.push({ place, result });
      if (waiting.length === PARALLEL_HEADERS) await readSizes();
    } else if (failed.length < MAX_LISTED) {
      const { code = "", detail = "" } = result.error ?? {};
      failed.push({ index: result.index, file_name: fileName(result), code, detail });
    }
    place++;
  }
  await readSizes();
  return { categories: numberCategories(labels), keyPoints, sizes, failed };
}

function checkFindings({ result, index, path }: BulkResult): void {
  const name = path ?? `entry ${index}`;
  if (!Array.isArray(result?.["Fs"]))
    throw new BadInputError(`COCO's format is for findings, and ${name} has none; ask for csv or ndjson`);
  if (findingsOf(result).some(({ Dm }) => !("W" in Dm)))
    throw new BadInputError(
      `COCO's format is for findings with boxes, and those of ${name} have none; ask for csv or ndjson`,
    );
  if (findingsOf(result).some(({ Info }) => Info !== undefined && Info !== "0"))
    throw new BadInputError(
      `COCO's format knows one picture for each entry, and ${name} has several; ask for csv or ndjson`,
    );
}

async function sizeOf(result: BulkResult, { spec, folder, config }: CocoOptions) {
  const mask = findingsOf(result.result).find(({ Msk }) => Msk?.Rle)?.Msk;
  if (mask) return { width: mask.Rle.size[1], height: mask.Rle.size[0] };
  try {
    return await readEntrySize(spec, folder, result, config);
  } catch (cause) {
    throw new BadInputError(
      `COCO's format has boxes in pixels, and the size of ${fileName(result)} can't be found out: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** COCO's own numbers where all labels are COCO's, so that its evaluation fits; else from 1 in the order of the alphabet. */
function numberCategories(labels: ReadonlySet<string>): Map<string, number> {
  const known = new Set(cocoLabels);
  const areCoco = [...labels].every((label) => known.has(label));
  return new Map(
    [...labels].toSorted().map((label, at) => [label, areCoco ? coco91Labels.indexOf(label) : at + 1]),
  );
}

async function* write(options: CocoOptions, survey: Survey): AsyncGenerator<string> {
  const { run, spec } = options;
  const info = {
    description: `${spec.model} over ${run.folder ?? "a manifest"}`,
    version: "1.0",
    year: new Date(run.created_at).getUTCFullYear(),
    contributor: `infermill ${version}`,
    date_created: run.finished_at ?? run.created_at,
  };
  yield `{"info":${JSON.stringify(info)},"licenses":[],"images":[`;
  yield* join(images(options, survey));
  yield `],"annotations":[`;
  yield* join(annotations(options, survey));
  const beside = { run: run.id, status: run.status, counts: run.counts, failed: survey.failed };
  yield `],"categories":${JSON.stringify(categoriesOf(survey))},"infermill":${JSON.stringify(beside)}}\n`;
}

/** In blocks: a part for each of a million entries would take longer than what it holds. */
async function* join(items: AsyncIterable<unknown>): AsyncGenerator<string> {
  let text = "";
  let isFirst = true;
  for await (const item of items) {
    text += `${isFirst ? "" : ",\n"}${JSON.stringify(item)}`;
    isFirst = false;
    if (text.length < BLOCK_CHARACTERS) continue;
    yield text;
    text = "";
  }
  yield text;
}

/** The entries that the survey has seen, with the size of their pictures. */
async function* imagesOf({ resultsFile }: CocoOptions, { sizes }: Survey) {
  let place = 0;
  for await (const { text } of readResults(resultsFile)) {
    const [width, height] = [sizes[2 * place] ?? 0, sizes[2 * place + 1] ?? 0];
    // Lines that came since then are none of this document.
    if (2 * ++place > sizes.length) return;
    if (width > 0) yield { result: JSON.parse(text) as BulkResult, width, height };
  }
}

async function* images(options: CocoOptions, survey: Survey) {
  for await (const { result, width, height } of imagesOf(options, survey))
    yield { id: imageId(result), file_name: fileName(result), width, height };
}

async function* annotations(options: CocoOptions, survey: Survey) {
  let id = 1;
  for await (const { result, width, height } of imagesOf(options, survey))
    for (const finding of findingsOf(result.result)) {
      const { X, Y, W, H } = finding.Dm as Box;
      const bbox = [X * width, Y * height, W * width, H * height].map(hundredth);
      yield {
        id: id++,
        image_id: imageId(result),
        category_id: survey.categories.get(finding.Lb)!,
        bbox,
        ...outlineOf(finding, { width, height }, bbox),
        iscrowd: 0,
        score: finding.Cs,
        ...keyPointsOf(finding, { width, height }),
      };
    }
}

/** The mask, a box at an angle as its outline, else none; and how many pixels that is. */
function outlineOf({ Msk, Rb }: Finding, size: { width: number; height: number }, bbox: readonly number[]) {
  if (Msk?.Rle) {
    const area = expandRuns(Msk.Rle.counts).reduce((sum, run, at) => sum + (at % 2 === 1 ? run : 0), 0);
    return { segmentation: Msk.Rle, area };
  }
  if (Rb) {
    const corners = Rb.Corners.map(([x, y]) => [x * size.width, y * size.height] as const);
    return {
      segmentation: [corners.flat().map(hundredth)],
      area: hundredth(areaOf(corners)),
    };
  }
  return { segmentation: [], area: hundredth(bbox[2]! * bbox[3]!) };
}

function areaOf(corners: readonly (readonly [number, number])[]): number {
  const twice = corners.reduce((sum, [x, y], at) => {
    const [nextX, nextY] = corners[(at + 1) % corners.length]!;
    return sum + x * nextY - nextX * y;
  }, 0);
  return Math.abs(twice) / 2;
}

/** `[x, y, v, …]` by number; v is 2 where it is surely seen, 1 where it may be, 0 where the model has none. */
function keyPointsOf({ Kp }: Finding, { width, height }: { width: number; height: number }) {
  if (!Kp) return {};
  const keypoints: number[] = [];
  for (let number = 1; number <= highestPoint(Kp); number++) {
    const [x, y, , score = 1] = Kp[String(number)] ?? [];
    if (x === undefined || y === undefined) keypoints.push(0, 0, 0);
    else keypoints.push(hundredth(x * width), hundredth(y * height), score >= VISIBLE_SCORE ? 2 : 1);
  }
  const seen = keypoints.filter((value, at) => at % 3 === 2 && value > 0);
  return { keypoints, num_keypoints: seen.length };
}

function categoriesOf({ categories, keyPoints }: Survey) {
  return [...categories].map(([name, id]) => {
    const points = keyPoints.get(name);
    if (points === undefined) return { id, name, supercategory: "" };
    const isPerson = points === PERSON_POINTS.length;
    return {
      id,
      name,
      supercategory: "",
      keypoints: isPerson ? PERSON_POINTS : Array.from({ length: points }, (_, at) => String(at + 1)),
      skeleton: isPerson ? PERSON_SKELETON : [],
    };
  });
}

function highestPoint(points: NonNullable<Finding["Kp"]>): number {
  return Object.keys(points).reduce((most, number) => Math.max(most, Number(number)), 0);
}

/** COCO's begin with 1. */
function imageId({ index }: BulkResult): number {
  return index + 1;
}

function fileName({ index, path, custom_id }: BulkResult): string {
  return path ?? custom_id ?? `entry ${index}`;
}

function hundredth(value: number): number {
  return Math.round(value * 100) / 100;
}
