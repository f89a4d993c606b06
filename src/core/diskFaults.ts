/** What the system says when a disk has no room. */
import { DiskFullError } from "../errors.ts";

const FULL: ReadonlySet<string | undefined> = new Set(["ENOSPC", "EDQUOT"]);

/** The error that a full disk is for a client; undefined for every other error. */
export function diskFaultOf(thrown: unknown): DiskFullError | undefined {
  if (thrown instanceof DiskFullError) return thrown;
  const { code } = (thrown ?? {}) as NodeJS.ErrnoException;
  if (!(thrown instanceof Error) || !FULL.has(code)) return undefined;
  return new DiskFullError(`the disk of data_dir is full (${code}); free space there, and try again`, {
    cause: thrown,
  });
}
