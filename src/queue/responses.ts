/**
 * Where responses are kept: small ones in the job's return value, large ones in the job's log, which BullMQ removes
 * with the job, whoever removes it.
 */
import type { Queue } from "bullmq";
import type { ResponseDictionary } from "../core/request.ts";
import type { Completion, PredictionJob } from "./jobs.ts";

/** BullMQ copies return values into its event stream, which is why a larger response stays out of them. */
const INLINE_BYTES = 4096;

/**
 * The part of a return value that holds the response, after storing it where it is large, and how large it is.
 * @throws where the job was removed meanwhile
 */
export async function storeResponse(
  job: PredictionJob,
  response: ResponseDictionary,
): Promise<{ stored: Pick<Completion, "response" | "response_log">; bytes: number }> {
  const text = JSON.stringify(response);
  const bytes = text.length;
  if (bytes <= INLINE_BYTES) return { stored: { response }, bytes };
  return { stored: { response_log: (await job.log(text)) - 1 }, bytes };
}

/** @returns undefined where the job was removed since its return value was read */
export async function readResponse(
  queue: Queue,
  id: string,
  { response, response_log: at }: Completion,
): Promise<ResponseDictionary | undefined> {
  if (at === undefined) return response;
  const { logs } = await queue.getJobLogs(id, at, at);
  return logs[0] === undefined ? undefined : (JSON.parse(logs[0]) as ResponseDictionary);
}
