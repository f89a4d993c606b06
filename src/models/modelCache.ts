/**
 * The folder of fetched models, shared by all configurations and processes of a user. A file in it is whole and
 * checked; what is under way lies in `.downloads`.
 */
import { createHash } from "node:crypto";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { withFileLock } from "../fileLock.ts";
import { downloadFile, etagFileOf, sha256Of, type DownloadOptions } from "./download.ts";
import { removeLeftovers } from "./leftovers.ts";
import { ModelSourceError } from "./modelSourceError.ts";
import type { RemoteFile } from "./remoteFile.ts";

export interface CacheOptions extends DownloadOptions {
  env: NodeJS.ProcessEnv;
}

/**
 * Path of the file in the cache, fetched if it isn't there. One process fetches, others wait for it. A file with a
 * known checksum is read and compared each time.
 */
export async function fetchIntoCache(remote: RemoteFile, options: CacheOptions): Promise<string> {
  const models = path.join(cacheFolder(options.env), "models");
  const file = path.join(models, remote.cachePath);
  if (await isCached(file, remote)) return file;

  const downloads = path.join(models, ".downloads");
  const unfinished = path.join(downloads, downloadName(remote.cachePath));
  const part = `${unfinished}.part`;
  const lock = `${unfinished}.lock`;
  try {
    await mkdir(downloads, { recursive: true });
    if (await stat(lock).catch(() => undefined)) {
      options.tell("Another process downloads it, or did until a moment ago; waiting for it");
    }
    await withFileLock(lock, async () => {
      if (await isCached(file, remote)) return;
      await downloadFile(remote, part, options);
      await mkdir(path.dirname(file), { recursive: true });
      await rename(part, file);
      await rm(etagFileOf(part), { force: true });
    });
    await removeLeftovers(downloads, /./);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw new ModelSourceError(
      `"${remote.source}" can't be kept in ${models}: ${(error as Error).message}. ` +
        `Make room there, or set INFERMILL_CACHE_DIR to a folder that can be written`,
      { cause: error },
    );
  }
  return file;
}

async function isCached(file: string, { sha256 }: RemoteFile): Promise<boolean> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) return false;
  return sha256 === undefined || (await sha256Of(file)) === sha256;
}

function cacheFolder(env: NodeJS.ProcessEnv): string {
  const own = env["INFERMILL_CACHE_DIR"];
  if (own) return path.resolve(own);
  const shared = env["XDG_CACHE_HOME"];
  // The XDG specification has relative paths ignored.
  const cache = shared && path.isAbsolute(shared) ? shared : path.join(env["HOME"] || homedir(), ".cache");
  return path.join(cache, "infermill");
}

function downloadName(cachePath: string): string {
  const hash = createHash("sha256").update(cachePath).digest("hex").slice(0, 16);
  return `${hash}-${path.basename(cachePath).slice(-100)}`;
}
