/** Where responses are kept: small ones in the job's return value, large ones in a key of their own. */
import type { Redis } from "ioredis";
import type { PredictionResponse } from "../loaders/dictionaries.ts";
import type { Completion } from "./jobs.ts";

/** BullMQ copies return values into its event stream, which is why a larger response stays out of them. */
const INLINE_BYTES = 4096;

/** The part of a return value that holds the response, after storing it where it is large. */
export async function storeResponse(
  redis: Redis,
  response: PredictionResponse,
  key: string,
  ttlSeconds: number,
): Promise<Pick<Completion, "response" | "response_key">> {
  const text = JSON.stringify(response);
  if (text.length <= INLINE_BYTES) return { response };
  await redis.set(key, text, "EX", ttlSeconds);
  return { response_key: key };
}

export async function readResponse(redis: Redis, completion: Completion): Promise<PredictionResponse | null> {
  if (!completion.response_key) return completion.response ?? null;
  const text = await redis.get(completion.response_key);
  return text === null ? null : (JSON.parse(text) as PredictionResponse);
}
