/** Reads the files that a chunk names by reference. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { OPEN_FLAGS, openBelowRoot, openBelowRootNow } from "../../config/bulkRoots.ts";
import { toFilePath } from "../../core/filePaths.ts";
import { BadInputError } from "../../errors.ts";
import { lostInput, type InputPlace } from "../protocol.ts";

/** Where the files are. */
export interface InputSources {
  /** Folder of the file store. */
  folder: string;
  /** Folders by the name of their bulk root. */
  roots: Readonly<Record<string, string>>;
}

/**
 * A file that the system has in memory is read at once: each of the four calls would take longer on its way to another
 * thread than it takes, and wait there for the end of a model's run, which blocks the event loop. Where two in a row take
 * so long (one may have had to wait for its core), a disk or the network is asked: the files of users are read side by
 * side for a while then, by other threads, while a model runs in this one. Uploads were written a moment ago.
 */
const QUICK_MS = 5;
const SLOW_FOR_MS = 1000;
/** A larger one takes a moment in any case. */
const MAX_QUICK_BYTES = 4 * 1024 * 1024;
let slowInARow = 0;
let slowUntil = 0;

/** The bytes of each input. What can't be read is an error in its place, so that it fails its own prediction only. */
export async function readInputs(
  places: readonly InputPlace[],
  sources: InputSources,
): Promise<(Buffer | BadInputError)[]> {
  const read: (Buffer | BadInputError | undefined)[] = [];
  for (const place of places) read.push("bytes" in place ? place.bytes : readNow(place, sources));
  if (read.every((each) => each !== undefined)) return read;
  return Promise.all(read.map(async (each, at) => each ?? readSoon(places[at] as UsersPlace, sources)));
}

/** Undefined where it is better read by another thread. */
function readNow(place: FilePlace, sources: InputSources): Buffer | BadInputError | undefined {
  const startedAt = performance.now();
  const isUpload = "file" in place;
  if (!isUpload && startedAt < slowUntil) return undefined;
  try {
    return readWholeNow(openPlaceNow(place, sources), nameOf(place), isUpload ? Infinity : MAX_QUICK_BYTES);
  } catch (error) {
    return faultOf(error, place);
  } finally {
    noteTime(performance.now() - startedAt);
  }
}

function noteTime(ms: number): void {
  slowInARow = ms > QUICK_MS ? slowInARow + 1 : 0;
  if (slowInARow < 2) return;
  slowInARow = 0;
  slowUntil = performance.now() + SLOW_FOR_MS;
}

async function readSoon(place: UsersPlace, sources: InputSources): Promise<Buffer | BadInputError> {
  try {
    return await readWhole(await openPlace(place, sources.roots), nameOf(place));
  } catch (error) {
    return faultOf(error, place);
  }
}

function faultOf(error: unknown, place: FilePlace): BadInputError {
  if (error instanceof BadInputError) return error;
  if ("file" in place) return lostInput(error);
  const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
  const problem = isMissing ? `there is no file ${nameOf(place)}` : `${nameOf(place)} can't be read`;
  return new BadInputError(problem, { cause: error });
}

/** Undefined where it is larger than that. */
function readWholeNow(file: number, name: string, maxBytes: number): Buffer | undefined {
  try {
    const stats = fstatSync(file);
    if (!stats.isFile()) throw new BadInputError(`${name} is no regular file`);
    const { size } = stats;
    if (size > maxBytes) return undefined;
    const bytes = Buffer.allocUnsafeSlow(size);
    let length = 0;
    while (length < size) {
      const count = readSync(file, bytes, length, size - length, null);
      if (count === 0) break;
      length += count;
    }
    return bytes.subarray(0, length);
  } finally {
    closeSync(file);
  }
}

/** A regular file's bytes, with one call to the system for each of open, look, read and close, as they cost on the way. */
async function readWhole(file: FileHandle, name: string): Promise<Buffer> {
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new BadInputError(`${name} is no regular file`);
    const { size } = stats;
    const bytes = Buffer.allocUnsafeSlow(size);
    let length = 0;
    while (length < size) {
      const { bytesRead } = await file.read(bytes, length, size - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return bytes.subarray(0, length);
  } finally {
    file.close().catch(() => {});
  }
}

type FilePlace = Exclude<InputPlace, { bytes: Buffer }>;
type UsersPlace = Exclude<FilePlace, { file: string }>;

function openPlace(place: UsersPlace, roots: InputSources["roots"]): Promise<FileHandle> {
  return "root" in place ? openBelowRoot(place, roots) : open(toFilePath(place.path), OPEN_FLAGS);
}

function openPlaceNow(place: FilePlace, { folder, roots }: InputSources): number {
  if ("root" in place) return openBelowRootNow(place, roots);
  return openSync(toFilePath("file" in place ? join(folder, place.file) : place.path), OPEN_FLAGS);
}

function nameOf(place: FilePlace): string {
  if ("file" in place) return place.file;
  return "root" in place ? `${place.root}/${place.path}` : place.path;
}
