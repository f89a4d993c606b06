/** What else a bulk run may be told: when it gives up, and what it is known by. Read alike wherever a run is started. */
import { z } from "zod";
import { PRIORITIES, type Priority } from "./prediction.ts";

/** As OpenAI's batches have it. */
const MAX_METADATA = 16;
const MAX_METADATA_KEY = 64;
const MAX_METADATA_VALUE = 512;
/** Longer ones are no deadline, but a mistake in the unit. */
const MAX_DEADLINE_SECONDS = 365 * 24 * 60 * 60;
const DEADLINE_PROBLEM = `must be a time as 2027-01-31T18:00:00Z that is still to come, or whole seconds from 1 to ${MAX_DEADLINE_SECONDS}`;

export const prioritySchema = z.enum(Object.keys(PRIORITIES) as [Priority, ...Priority[]], {
  error: "must be high, normal or low",
});

export const metadataSchema = z
  .record(
    z
      .string()
      .min(1)
      .max(MAX_METADATA_KEY, { error: `must have keys of at most ${MAX_METADATA_KEY} characters` }),
    z
      .string({ error: "must hold texts only" })
      .max(MAX_METADATA_VALUE, { error: `must have values of at most ${MAX_METADATA_VALUE} characters` }),
  )
  .refine((given) => Object.keys(given).length <= MAX_METADATA, {
    error: `must have at most ${MAX_METADATA} keys`,
  })
  .meta({
    description: `What the run is known by at its client: at most ${MAX_METADATA} keys of ${MAX_METADATA_KEY} characters with texts of ${MAX_METADATA_VALUE}. Comes back in the run and in its webhook.`,
    example: { order: "4711" },
  });

export const maxFailuresSchema = z
  .int({ error: "must be a whole number ≥ 0" })
  .min(0, { error: "must be a whole number ≥ 0" })
  .meta({
    description:
      "Entries that may fail; with one more the run ends as failed (too_many_failures). Its lines stay, and it can be resumed. Default: any number.",
  });

export const failFastSchema = z.boolean({ error: "must be true or false" }).meta({
  description: "The same as max_failures 0: the run ends with the first entry that fails.",
});

export const deadlineSchema = z.union([z.string(), z.number()], { error: DEADLINE_PROBLEM }).meta({
  description:
    "When the run ends as failed (deadline_exceeded) if it has not ended by then: a time (ISO 8601, with its zone), or seconds from its acceptance. Its lines stay; one that is resumed after that has no deadline any more. Default: none.",
  example: 3600,
});

/** When a run gives up. */
export interface BulkLimits {
  /** Entries that may fail. */
  max_failures?: number;
  /** Unix time in ms. */
  deadline?: number;
}

export interface AskedLimits {
  fail_fast?: boolean | undefined;
  max_failures?: number | undefined;
  deadline?: string | number | undefined;
}

/** @returns the limits, or which key has what problem */
export function readLimits(
  { fail_fast, max_failures, deadline }: AskedLimits,
  now: number,
): BulkLimits | { key: string; problem: string } {
  if (fail_fast && (max_failures ?? 0) > 0)
    return { key: "max_failures", problem: "must be 0 or left out beside fail_fast" };
  const allowed = fail_fast ? 0 : max_failures;
  const ends = deadline === undefined ? undefined : readDeadline(deadline, now);
  if (ends === null) return { key: "deadline", problem: DEADLINE_PROBLEM };
  return {
    ...(allowed !== undefined && { max_failures: allowed }),
    ...(ends !== undefined && { deadline: ends }),
  };
}

/** A time without its zone would be another one on another machine. */
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;

/** Unix time in ms; null where it can't be one. */
function readDeadline(given: string | number, now: number): number | null {
  const seconds = typeof given === "string" && /^\d+$/.test(given) ? Number(given) : given;
  if (typeof seconds === "number") {
    const isFine = Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_DEADLINE_SECONDS;
    return isFine ? now + 1000 * seconds : null;
  }
  const time = ISO_TIME.test(seconds) ? Date.parse(seconds) : Number.NaN;
  return time > now ? time : null;
}
