/** Builds response dictionaries: what is echoed from the request, IMIL's time format, response codes. */
import type { Output, ResponseDictionary } from "../core/request.ts";
import type { InfermillError } from "../errors.ts";
import type { Finding, MessageTravelStep, PredictionRequest, PredictionResponse } from "./dictionaries.ts";

const ECHOED = [
  "Tid",
  "Did",
  "Fid",
  "Ts",
  "Ts_ntp",
  "Msg_ver",
  "Inf_ver",
  "Ad",
  "Lfp",
  "Ffp",
  "Ltsize",
  "I_fn",
  "Prompt",
  "Hp",
] as const;

/** Who ran a request, and when. */
interface Run {
  model: string;
  startedAt: Date;
  /** Default: now. */
  endedAt?: Date;
}

/**
 * The response to a request that succeeded: identifying keys echoed as they came, one step appended to `Mtp`,
 * `Rc` "200" and `Rm` "Success", even where nothing was found.
 */
export function buildResponse(request: PredictionRequest, findings: Finding[], run: Run): PredictionResponse {
  const step: MessageTravelStep = {
    Stime: formatImilTime(run.startedAt),
    Etime: formatImilTime(run.endedAt ?? new Date()),
    Src: run.model,
  };
  return {
    ...Object.fromEntries(ECHOED.filter((key) => key in request).map((key) => [key, request[key]])),
    Mtp: [...(Array.isArray(request.Mtp) ? request.Mtp : []), step],
    Fs: findings,
    Obase_64: [],
    Img_url: [],
    Rc: "200",
    Rm: "Success",
  };
}

/** The response to a request that failed: the same keys, no findings, `Rc` and `Rm` with the error's status and text. */
export function buildErrorResponse(
  request: PredictionRequest,
  error: InfermillError,
  run: Run,
): PredictionResponse {
  return { ...buildResponse(request, [], run), Rc: String(error.status), Rm: error.message };
}

/** The findings of a response; empty where its model knows none. */
export function findingsOf(response: ResponseDictionary | null | undefined): readonly Finding[] {
  return Array.isArray(response?.["Fs"]) ? (response["Fs"] as Finding[]) : [];
}

/**
 * Any model's response as IMIL's clients read it: with `Rc`, `Rm`, `Mtp` and the echoed keys where its loader did not
 * write them, and the pictures among its outputs in `Obase_64`.
 */
export function toImilResponse(
  request: PredictionRequest,
  response: ResponseDictionary,
  outputs: readonly Output[],
  run: Run,
): PredictionResponse {
  const pictures = outputs.filter(({ mediaType }) => mediaType.startsWith("image/"));
  const answer: PredictionResponse =
    "Rc" in response ? (response as PredictionResponse) : { ...buildResponse(request, [], run), ...response };
  if (pictures.length === 0) return answer;
  const encoded = pictures.map(({ bytes }) => Buffer.from(bytes).toString("base64"));
  return { ...answer, Obase_64: [...(answer.Obase_64 ?? []), ...encoded] };
}

/** `YYYY-MM-DD,hh:mm:ss.mmm AM|PM` in UTC on a 12-hour clock, as IMIL writes it. */
export function formatImilTime(time: Date): string {
  const iso = time.toISOString();
  const hour = time.getUTCHours();
  const clock = String(hour % 12 || 12).padStart(2, "0");
  return `${iso.slice(0, 10)},${clock}${iso.slice(13, 23)} ${hour < 12 ? "AM" : "PM"}`;
}
