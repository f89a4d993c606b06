/** `POST /v1/embeddings` in OpenAI's shape: texts in, vectors out, through the same queue and batches. */
import type { Request, Response } from "express";
import { z } from "zod";
import type { Api, Route } from "../../api/api.ts";
import { readJson } from "../../api/body/read.ts";
import { jsonAnswer, problemAnswers } from "../../api/operations.ts";
import type { EncodeError } from "../../api/problems.ts";
import { readDictionary } from "../../api/requestDictionary.ts";
import { descriptionOf, draftOf, runToEnd } from "../../api/service.ts";
import { clientOf } from "../../api/waiting.ts";
import type { LoaderDescription } from "../../core/description.ts";
import { parseWith } from "../../core/faults.ts";
import type { Prediction } from "../../core/prediction.ts";
import { InvalidRequestError, LoaderError, RetryableError } from "../../errors.ts";
import { RAW_TENSOR } from "../../tensors/dialect.ts";
import { DATATYPES, isDatatype } from "../../tensors/datatypes.ts";
import { fromJson } from "../../tensors/json.ts";
import { fromRawBytes } from "../../tensors/rawBytes.ts";
import type { TensorValue } from "../../tensors/tensor.ts";

/** As OpenAI has it. */
const MAX_TEXTS = 2048;

const text = z.string({ error: "must be a text" }).min(1, { error: "must not be empty" });

const embeddingsRequestSchema = z
  .object({
    model: z.string({ error: "must name a model" }),
    input: z
      .union([text, z.array(text).min(1).max(MAX_TEXTS)], {
        error: `must be a text that is not empty, or a list of up to ${MAX_TEXTS} of them (lists of tokens can't be used)`,
      })
      .meta({ description: "A text, or a list of texts." }),
    encoding_format: z
      .enum(["float", "base64"], { error: "must be float or base64" })
      .default("float")
      .meta({ description: "base64: the vector as little-endian float32." }),
    dimensions: z
      .int({ error: "must be a whole number" })
      .min(1)
      .optional()
      .meta({ description: "Must be the model's own, if it is there: vectors are not shortened." }),
    user: z.string().optional().meta({ description: "Ignored." }),
  })
  .meta({ id: "EmbeddingsRequest" });

const embeddingsSchema = z
  .object({
    object: z.literal("list"),
    data: z.array(
      z.object({
        object: z.literal("embedding"),
        index: z.int(),
        embedding: z.union([z.array(z.number()), z.string()]),
      }),
    ),
    model: z.string(),
    usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  })
  .meta({ id: "Embeddings" });

const errorSchema = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  })
  .meta({ id: "OpenAiError", description: "OpenAI's form of an error." });

/** OpenAI's own form; what is wrong with a request is 400 there. */
export const encodeError: EncodeError = (error, { status, detail, code }) => ({
  status: status === 422 ? 400 : status,
  body: {
    error: {
      message: detail,
      type: status < 500 ? (status === 429 ? "rate_limit_error" : "invalid_request_error") : "server_error",
      param: error instanceof InvalidRequestError ? (error.faults[0]?.key ?? null) : null,
      code,
    },
  },
});

async function createEmbeddings(api: Api, req: Request, res: Response): Promise<void> {
  const { config } = api;
  const body = parseWith(embeddingsRequestSchema, await readJson(req, config.max_body_bytes));
  const { model, input, encoding_format: format, dimensions } = body;
  api.predictions.model(model);
  checkEmbeds(model, await descriptionOf(api, model));
  const texts = [input].flat();
  const parts = readDictionary({ Text: texts }, config, model);
  const prediction = await runToEnd(api, model, draftOf(parts), {}, { client: clientOf(res) });
  const { data, dims } = await readEmbedding(api, prediction, texts.length);
  const size = dims[1]!;
  if (dimensions !== undefined && dimensions !== size) {
    const problem = `must be ${size}, which "${model}" has, or be left out, got ${dimensions}`;
    throw new InvalidRequestError([{ key: "dimensions", problem }]);
  }
  const { prompt_tokens: tokens = 0 } = (prediction.result!["usage"] ?? {}) as { prompt_tokens?: number };
  res.json({
    object: "list",
    data: texts.map((_, index) => ({
      object: "embedding",
      index,
      embedding: encode(data.subarray(index * size, (index + 1) * size), format),
    })),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  });
}

/** @throws InvalidRequestError where the model is of another kind */
function checkEmbeds(model: string, description: LoaderDescription | undefined): void {
  if (!description)
    throw new RetryableError(`no worker has loaded the model "${model}" yet; try again later`);
  if (description.embeds === "text") return;
  throw new InvalidRequestError([{ key: "model", problem: `must embed texts, and "${model}" doesn't` }]);
}

/** The output `embedding`, of as many rows as there are texts. @throws LoaderError where it is something else */
async function readEmbedding(
  { predictions }: Api,
  prediction: Prediction,
  count: number,
): Promise<{ data: Float32Array; dims: readonly number[] }> {
  const entries = (prediction.result!["outputs"] ?? []) as {
    name: string;
    datatype: string;
    shape: number[];
    data?: unknown;
  }[];
  const entry = entries.find(({ name }) => name === "embedding");
  if (!entry || !isDatatype(entry.datatype)) throw new LoaderError('the response has no output "embedding"');
  const { datatype, shape, data } = entry;
  let tensor: TensorValue;
  if (data === undefined) {
    const own = prediction.outputs.filter(
      ({ name, media_type }) => name === "embedding" && media_type === RAW_TENSOR,
    );
    const [output] = await predictions.readOutputs({ ...prediction, outputs: own });
    if (!output) throw new LoaderError('the bytes of the output "embedding" are missing');
    tensor = fromRawBytes(output.bytes, DATATYPES[datatype], shape);
  } else {
    tensor = fromJson(data, DATATYPES[datatype], shape);
  }
  if (tensor.type !== "float32" || shape.length !== 2 || shape[0] !== count) {
    throw new LoaderError(
      `the output "embedding" must be FP32 [${count}, dimensions], got ${datatype} [${shape.join(", ")}]`,
    );
  }
  return { data: tensor.data as Float32Array, dims: shape };
}

function encode(vector: Float32Array, format: "float" | "base64"): number[] | string {
  if (format === "float") return Array.from(vector);
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");
}

export const embeddingRoutes: readonly Route[] = [
  {
    method: "post",
    path: "/v1/embeddings",
    handler: createEmbeddings,
    operation: {
      operationId: "createEmbeddings",
      summary: "Embed texts, in OpenAI's shape",
      description: "For models that embed text. OpenAI's clients work with `<url>/v1` as their base URL.",
      tags: ["predictions"],
      requestBody: {
        required: true,
        content: { "application/json": { schema: embeddingsRequestSchema } },
      },
      responses: {
        200: jsonAnswer("A vector for each text, in their order.", embeddingsSchema),
        ...problemAnswers([400, 404, 413, 415, 429, 500, 503, 504], errorSchema, "application/json"),
      },
    },
  },
];
