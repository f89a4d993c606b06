/**
 * A lock between processes, as a file. Its holder keeps touching it, so that
 * the lock of a killed process expires by itself, also across containers where
 * process ids mean nothing.
 */
import { open, rename, rm, stat, utimes } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const TOUCH_EVERY_MS = 1000;
const EXPIRES_AFTER_MS = 8000;
const RETRY_AFTER_MS = 25;

/** Runs the task while no other process runs one with the same lock file. */
export async function withFileLock<T>(
  file: string,
  task: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  while (!(await createLock(file))) {
    await breakExpiredLock(file);
    await sleep(RETRY_AFTER_MS, undefined, { ...(signal && { signal }) });
  }
  const touching = setInterval(() => {
    const now = new Date();
    utimes(file, now, now).catch(() => {});
  }, TOUCH_EVERY_MS);
  try {
    return await task();
  } finally {
    clearInterval(touching);
    await rm(file, { force: true });
  }
}

async function createLock(file: string): Promise<boolean> {
  try {
    await (await open(file, "wx", 0o600)).close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function breakExpiredLock(file: string): Promise<void> {
  const seen = await modifiedMs(file);
  if (seen === undefined || Date.now() - seen < EXPIRES_AFTER_MS) return;
  const aside = `${file}.${process.pid}`;
  try {
    await rename(file, aside);
  } catch {
    return; // Another process broke it first.
  }
  // Between the look and the rename another process may have broken the old lock and taken a new one.
  if ((await modifiedMs(aside)) === seen) await rm(aside, { force: true });
  else await rename(aside, file);
}

async function modifiedMs(file: string): Promise<number | undefined> {
  return await stat(file).then(
    ({ mtimeMs }) => mtimeMs,
    () => undefined,
  );
}
