/** Removes what processes left behind that were killed while they wrote a file. */
import { readdir, rm, stat } from "node:fs/promises";
import path from "node:path";

const ABANDONED_AFTER_MS = 24 * 60 * 60_000;

/** Removes the files of `folder` whose name matches and that nobody wrote to for a day. Never throws: it can wait for the next time. */
export async function removeLeftovers(folder: string, name: RegExp): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const file of names.filter((each) => name.test(each)).map((each) => path.join(folder, each))) {
    const found = await stat(file).catch(() => undefined);
    if (found?.isFile() && Date.now() - found.mtimeMs > ABANDONED_AFTER_MS) {
      await rm(file, { force: true }).catch(() => {});
    }
  }
}
