/** The body of an error of the HTTP api (RFC 9457), as its clients see it, too. */
import type { Fault } from "../errors.ts";

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  errors?: readonly Fault[];
  [extension: string]: unknown;
}
