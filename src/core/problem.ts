/** Error bodies of the api (RFC 9457, `application/problem+json`). */
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
