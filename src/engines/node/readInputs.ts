/** Reads the files that a chunk names by reference. */
import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import { decodeFileName, toFilePath } from "../../core/filePaths.ts";
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
        return await readWhole(await pathOf(place, sources), nameOf(place));
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
async function readWhole(path: string, name: string): Promise<Buffer> {
  // A pipe that nobody writes to would hold up a plain open for ever.
  const file = await open(toFilePath(path), constants.O_RDONLY | constants.O_NONBLOCK);
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

async function pathOf(place: FilePlace, { folder, roots }: InputSources): Promise<string> {
  if ("file" in place) return join(folder, place.file);
  if ("root" in place) return realFile(place, roots);
  return place.path;
}

function nameOf(place: FilePlace): string {
  if ("file" in place) return place.file;
  return "root" in place ? `${place.root}/${place.path}` : place.path;
}

async function realFile(
  place: { root: string; path: string },
  roots: Readonly<Record<string, string>>,
): Promise<string> {
  const root = roots[place.root];
  if (!root) throw new BadInputError(`there is no bulk root "${place.root}"`);
  const [folder, file] = await Promise.all([realFilePath(root), realFilePath(join(root, place.path))]);
  if (!file.startsWith(folder + sep))
    throw new BadInputError(`${place.root}/${place.path} leads out of its bulk root`);
  return file;
}

async function realFilePath(path: string): Promise<string> {
  return decodeFileName(await realpath(toFilePath(path), { encoding: "buffer" }));
}
