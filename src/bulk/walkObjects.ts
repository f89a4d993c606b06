/** The objects below a path of object storage, by the rules of `walk.ts`, and from time to time a mark to resume at. */
import { isSafeKey } from "../config/storagePlace.ts";
import { MAGIC_BYTES } from "../core/pictureFormats.ts";
import { MissingObjectError, RefusedObjectError } from "../storage/objectStore.ts";
import type { FoundObject, StorageFolder } from "../storage/storageFolder.ts";
import { chooseEntries, Skipped, type Choose } from "./walk.ts";

/** Objects that are looked into side by side. */
const PARALLEL_HEADS = 16;

/** All that comes before it is listed: whoever resumes begins behind the mark. */
export class Listed {
  readonly mark: string;

  constructor(mark: string) {
    this.mark = mark;
  }
}

/**
 * Paths below `below`.
 * @param after the mark behind which to begin
 * @throws BadInputError where `glob` is no pattern, or the bucket is refused; StorageUnavailableError
 */
export async function* walkObjects(
  folder: StorageFolder,
  below: string,
  { glob, after }: { glob?: string | undefined; after?: string | undefined },
): AsyncGenerator<string | Skipped | Listed> {
  const choose = chooseEntries(glob);
  for await (const page of folder.list(below, { after })) {
    for (let start = 0; start < page.length; start += PARALLEL_HEADS) {
      const some = page.slice(start, start + PARALLEL_HEADS).filter((object) => !isFolderMark(object));
      yield* await Promise.all(some.map((object) => look(folder, below, object, choose)));
    }
    yield new Listed(page.at(-1)!.mark);
  }
}

/** What consoles leave behind for a folder that has no objects yet. */
function isFolderMark({ path, bytes }: FoundObject): boolean {
  return bytes === 0 && (path === "" || path.endsWith("/"));
}

async function look(
  folder: StorageFolder,
  below: string,
  { path, bytes }: FoundObject,
  choose: Choose,
): Promise<string | Skipped> {
  if (!isSafeKey(path)) return new Skipped(path, "unreadable", "its key has an empty part, . or ..");
  if (path.split("/").some((part) => part.startsWith("."))) return new Skipped(path, "hidden");
  return choose(path, async () => {
    if (bytes === 0) return Buffer.alloc(0);
    try {
      return await folder.read(below === "" ? path : `${below}/${path}`, { first: MAGIC_BYTES });
    } catch (error) {
      if (error instanceof MissingObjectError || error instanceof RefusedObjectError) return error.message;
      throw error;
    }
  });
}
