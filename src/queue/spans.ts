/** Spans of what goes through a queue, by the semantic conventions for messaging. */
import type { Job } from "bullmq";
import { carrierOf, type SpanOptions } from "../tracing/tracing.ts";

/** Of adding jobs to a queue in one step. @param first id of the first of them */
export function sendSpan(queue: string, first: string | undefined, count = 1): SpanOptions {
  return {
    kind: "PRODUCER",
    attributes: {
      ...attributesOf(queue, "send"),
      ...(count === 1 ? { "messaging.message.id": first! } : { "messaging.batch.message_count": count }),
    },
  };
}

/** Of taking a job from a queue and working on it: a part of the trace that the job carries. */
export function processSpan(queue: string, job: Job): SpanOptions {
  return {
    kind: "CONSUMER",
    from: carrierOf(job),
    attributes: {
      ...attributesOf(queue, "process"),
      "messaging.message.id": job.id!,
      "infermill.attempt": job.attemptsStarted,
    },
  };
}

function attributesOf(queue: string, operation: "send" | "process") {
  return {
    "messaging.system": "bullmq",
    "messaging.destination.name": queue,
    "messaging.operation.name": operation,
    "messaging.operation.type": operation,
  };
}
