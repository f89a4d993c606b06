/** `POST …/predictions/{id}/retry`: a new prediction of what an ended one was made of. */
import { createHash } from "node:crypto";
import type { Request, Response } from "express";
import { pathParameter, type Api } from "../../api/api.ts";
import { newPredictionId } from "../../queue/names.ts";
import type { InputRef, StoredInput } from "../../queue/inputs.ts";
import { submitDraft } from "./submit.ts";
import { clientIdOf, readSubmissionOptions } from "./submissionOptions.ts";

export async function retryPrediction(api: Api, req: Request, res: Response): Promise<void> {
  const [model, id] = [pathParameter(req, "model"), pathParameter(req, "id")];
  // The id of the path is the first prediction's.
  const options = { ...readSubmissionOptions(req, false, api.config), clientId: undefined };
  const { request, inputs, priority, timeoutMs } = await api.predictions.readForRetry(model, id);
  const clientId = clientIdOf(options);
  await submitDraft(
    api,
    res,
    model,
    {
      id: clientId ?? newPredictionId(),
      isIdempotent: clientId !== undefined,
      async receive(store) {
        const stored: StoredInput[] = [];
        for (const { ref, bytes } of inputs)
          stored.push(bytes ? await store(bytes, labelOf(ref)) : referenceOf(ref));
        return { request, inputs: stored };
      },
    },
    {
      ...options,
      priority: options.priority ?? priority,
      timeoutMs: options.timeoutMs ?? timeoutMs,
    },
  );
}

/** What stays where it is; its digest tells it apart from others under one Idempotency-Key. */
function referenceOf(ref: InputRef): StoredInput {
  const sha256 = createHash("sha256").update(JSON.stringify(ref)).digest("hex");
  return { ref, bytes: 0, sha256 };
}

function labelOf({ name, media_type }: InputRef) {
  return { ...(name !== undefined && { name }), ...(media_type !== undefined && { media_type }) };
}
