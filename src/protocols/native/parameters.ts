/** Query parameters that several lists have. An empty number is none: `?offset=` doesn't mean 0. */
import { z } from "zod";
import { STATUSES } from "../../core/prediction.ts";

/** A whole number. */
export function wholeParameter(
  least: number,
  most: number,
  error = `must be a whole number from ${least} to ${most}`,
) {
  return z.preprocess(
    numberOfQuery,
    z.number({ error }).int({ error }).min(least, { error }).max(most, { error }),
  );
}

export function limitParameter(most: number, usual: number) {
  return wholeParameter(1, most)
    .default(usual)
    .meta({ description: `How many to list, at most ${most}. Default: ${usual}.` });
}

export const statusParameter = z
  .enum(STATUSES, { error: `must be one of ${STATUSES.join(", ")}` })
  .optional()
  .meta({ description: "Only those with this status." });

/** A number as a query has it, small ones also as clients write them (`1e-7`); else what came, for the schema to refuse. */
export function numberOfQuery(value: unknown): unknown {
  return typeof value === "string" && /^-?(\d+(\.\d+)?|\.\d+)(e-\d+)?$/.test(value) ? Number(value) : value;
}
