/** How much room the disk of the data folder has. Uploads and bulk runs are refused before it is gone. */
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import type { Config } from "../config/schema.ts";
import { formatMebibytes } from "../core/byteSize.ts";
import { DiskFullError } from "../errors.ts";

const LOOK_MS = 1000;

export interface DiskState {
  /** Undefined where the system doesn't tell. */
  freeBytes: number | undefined;
  /** Why uploads are refused at this moment. */
  problem: string | undefined;
}

export interface DiskWatch {
  read(): DiskState;
  /** @throws DiskFullError where the reserve is touched */
  check(): void;
  close(): void;
}

export async function watchDisk({
  data_dir: folder,
  min_free_disk_bytes: reserve,
}: Pick<Config, "data_dir" | "min_free_disk_bytes">): Promise<DiskWatch> {
  let freeBytes: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;

  async function look(): Promise<void> {
    freeBytes = await readFree(folder).catch(() => undefined);
    if (!isClosed) timer = setTimeout(() => void look(), LOOK_MS).unref();
  }

  function problem(): string | undefined {
    if (freeBytes === undefined || freeBytes >= reserve) return undefined;
    return `the disk of data_dir has ${formatMebibytes(freeBytes)} left, and ${formatMebibytes(reserve)} are kept free (min_free_disk_bytes)`;
  }

  await look();
  return {
    read: () => ({ freeBytes, problem: problem() }),
    check() {
      const found = problem();
      if (found !== undefined) throw new DiskFullError(`${found}; nothing was accepted, free space there`);
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
    },
  };
}

/** Of the folder, or of the one that it will be made in. */
async function readFree(folder: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (error) {
    const parent = dirname(folder);
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" || parent === folder) throw error;
    return readFree(parent);
  }
}
