/** The sentence that is made of a validation issue, and what is checked with it. */
import type { z } from "zod";
import { InvalidRequestError, type Fault } from "../errors.ts";

/** One zod issue as a fault: the key that it is about, what was expected, what came. */
export function faultOf(issue: z.core.$ZodIssue): Fault {
  const key = issue.path
    .map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`))
    .join("")
    .slice(1);
  const got = "input" in issue && issue.input !== undefined ? `, got ${shown(issue.input)}` : "";
  return { key, problem: `${issue.message}${got}` };
}

function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? typeof value;
  return json.length > 80 ? `${json.slice(0, 80)}…` : json;
}

/**
 * What a schema makes of a value.
 * @throws InvalidRequestError with all faults
 */
export function parseWith<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const checked = schema.safeParse(value, { reportInput: true });
  if (checked.success) return checked.data;
  throw new InvalidRequestError(checked.error.issues.map(faultOf));
}
