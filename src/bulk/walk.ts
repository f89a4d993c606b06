/**
 * The files of a folder as they are found, never all names at once: which of them are entries of a run, and what is
 * left out and why. Links to folders are not followed, and only regular files count.
 */
import { constants, type Dirent } from "node:fs";
import { open, opendir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { isBelow } from "../config/bulkRoots.ts";
import type { SkipReason } from "../core/bulkRun.ts";
import { decodeFileName, toFilePath } from "../core/filePaths.ts";
import { describeBytes, hasPictureExtension, MAGIC_BYTES, sniffPicture } from "../core/pictureFormats.ts";
import { compileGlob } from "./glob.ts";

/** What a walk leaves out. */
export class Skipped {
  /** Below the folder, with "/"; that of a folder ends in "/". */
  readonly path: string;
  readonly reason: SkipReason;
  /** What it is instead, where that is known. */
  readonly detail: string | undefined;

  constructor(path: string, reason: SkipReason, detail?: string) {
    this.path = path;
    this.reason = reason;
    this.detail = detail;
  }
}

export interface WalkOptions {
  /**
   * Which files, by their path below the folder; one without a slash is matched with the name alone. Default: files
   * that are called like a picture, and those that begin like one.
   */
  glob?: string | undefined;
  /** Links to files that lead out of this real folder are left out. Default: they are followed. */
  within?: string | undefined;
}

/**
 * Paths below the folder, with "/", as `decodeFileName` writes them. A subfolder that can't be opened comes as a path
 * that ends in "/", so that it shows in the results.
 * @throws BadInputError where `glob` is no pattern
 */
export async function* walkFolder(
  folder: string,
  { glob, within }: WalkOptions = {},
): AsyncGenerator<string | Skipped> {
  yield* walk(folder, "", chooseEntries(glob), within);
}

/**
 * The path where a file is an entry, or why it is not.
 * @param readHead reads its first MAGIC_BYTES, or answers why it can't
 */
export type Choose = (
  path: string,
  readHead: () => Promise<Buffer | string>,
) => string | Skipped | Promise<string | Skipped>;

/** @throws BadInputError where `glob` is no pattern */
export function chooseEntries(glob: string | undefined): Choose {
  return glob === undefined ? choosePictures : chooseMatching(compileGlob(glob));
}

const chooseMatching =
  (matches: (path: string) => boolean): Choose =>
  (path) =>
    matches(path) ? path : new Skipped(path, "not_matched");

/** Only what isn't called like a picture is looked into: reading each of a million files would take longer than the walk. */
const choosePictures: Choose = async (path, readHead) => {
  if (hasPictureExtension(path)) return path;
  const head = await readHead();
  if (!Buffer.isBuffer(head)) return new Skipped(path, "unreadable", head);
  if (head.length === 0) return new Skipped(path, "empty");
  return sniffPicture(head) ? path : new Skipped(path, "not_a_picture", describeBytes(head, "bytes that"));
};

/** The first bytes, or what the system says instead. */
async function readHeadOf(file: string): Promise<Buffer | string> {
  try {
    const handle = await open(toFilePath(file), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

async function* walk(
  folder: string,
  below: string,
  choose: Choose,
  within: string | undefined,
): AsyncGenerator<string | Skipped> {
  const entries = await openFolder(join(folder, below)).catch((error: unknown) => {
    if (below === "") throw error;
    return undefined;
  });
  if (!entries) {
    yield `${below}/`;
    return;
  }
  for await (const entry of entries) {
    const name = decodeFileName(entry.name);
    const path = below === "" ? name : `${below}/${name}`;
    const file = join(folder, path);
    if (name.startsWith(".")) yield new Skipped(entry.isDirectory() ? `${path}/` : path, "hidden");
    else if (entry.isDirectory()) yield* walk(folder, path, choose, within);
    else {
      const reason = await whyNoFile(entry, file, within);
      yield reason ? new Skipped(path, reason) : await choose(path, () => readHeadOf(file));
    }
  }
}

type BufferDirent = Omit<Dirent, "name"> & { name: Buffer };

async function openFolder(path: string): Promise<AsyncIterable<BufferDirent>> {
  // The types know no names as bytes.
  const options = { bufferSize: 256, encoding: "buffer" as BufferEncoding };
  return (await opendir(toFilePath(path), options)) as unknown as AsyncIterable<BufferDirent>;
}

async function whyNoFile(
  entry: BufferDirent,
  path: string,
  within: string | undefined,
): Promise<SkipReason | undefined> {
  if (!entry.isSymbolicLink()) return entry.isFile() ? undefined : "not_a_file";
  const target = await realpath(toFilePath(path), { encoding: "buffer" }).catch(() => undefined);
  if (target === undefined) return "broken_link";
  const name = decodeFileName(target);
  if (within !== undefined && name !== within && !isBelow(name, within)) return "link_outside";
  const stats = await stat(target).catch(() => undefined);
  if (stats?.isDirectory()) return "link_to_folder";
  return stats?.isFile() ? undefined : "not_a_file";
}
