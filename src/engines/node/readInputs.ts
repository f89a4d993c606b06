/** Reads the files that a chunk names by reference. */
import { readFileSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { OPEN_FLAGS, openBelowRoot } from "../../config/bulkRoots.ts";
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

/** The bytes of each input, side by side. What can't be read is an error in its place, so that it fails its own prediction only. */
export async function readInputs(
  places: readonly InputPlace[],
  sources: InputSources,
): Promise<(Buffer | BadInputError)[]> {
  return Promise.all(
    places.map(async (place) => {
      if ("bytes" in place) return place.bytes;
      try {
        // At once: the run of a model blocks the event loop, and each of four steps would wait for its end.
        if ("file" in place) return readFileSync(toFilePath(join(sources.folder, place.file)));
        return await readWhole(await openPlace(place, sources.roots), nameOf(place));
      } catch (error) {
        if (error instanceof BadInputError) return error;
        if ("file" in place) return lostInput(error);
        const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
        const problem = isMissing ? `there is no file ${nameOf(place)}` : `${nameOf(place)} can't be read`;
        return new BadInputError(problem, { cause: error });
      }
    }),
  );
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

function openPlace(
  place: Exclude<FilePlace, { file: string }>,
  roots: InputSources["roots"],
): Promise<FileHandle> {
  return "root" in place ? openBelowRoot(place, roots) : open(toFilePath(place.path), OPEN_FLAGS);
}

function nameOf(place: FilePlace): string {
  if ("file" in place) return place.file;
  return "root" in place ? `${place.root}/${place.path}` : place.path;
}
