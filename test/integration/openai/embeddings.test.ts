/** `POST /v1/embeddings`: vectors in OpenAI's shape, and errors in its form. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

describe.skipIf(whyNoRedis)("OpenAI's embeddings", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    const { Texts, Affine } = tensorModels;
    infermill = await startInfermill({ models: { Texts, Affine }, max_body_bytes: 1_000_000 });
  });
  afterAll(() => infermill?.stop());

  const embed = (body: unknown) => send("POST", `${infermill.url}/v1/embeddings`, body);

  test("a text has one vector, and its tokens are counted", async () => {
    const { status, body } = await embed({ model: "Texts", input: "ab cd" });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toEqual({
      object: "list",
      data: [{ object: "embedding", index: 0, embedding: [5, 97, 100, 1] }],
      model: "Texts",
      usage: { prompt_tokens: 2, total_tokens: 2 },
    });
  });

  test("a list has a vector for each text, also where they are many", async () => {
    const texts = Array.from({ length: 500 }, (_, index) => "x".repeat(index + 1));
    const { body } = await embed({ model: "Texts", input: texts, dimensions: 4 });
    expect(
      body.data.map(({ index, embedding }: { index: number; embedding: number[] }) => [index, embedding[0]]),
    ).toEqual(texts.map((text, index) => [index, text.length]));
  });

  test("base64 holds the same numbers as little-endian float32", async () => {
    const { body } = await embed({ model: "Texts", input: ["a", "bcd"], encoding_format: "base64" });
    const vectors = body.data.map(({ embedding }: { embedding: string }) => [
      ...new Float32Array(Uint8Array.from(Buffer.from(embedding, "base64")).buffer),
    ]);
    expect(vectors).toEqual([
      [1, 97, 97, 2],
      [3, 98, 100, 2],
    ]);
  });

  test.each([
    ["an unknown model", { model: "Nobody", input: "a" }, 404, "model_not_found", null],
    ["a model of another kind", { model: "Affine", input: "a" }, 400, "bad_input", "model"],
    ["tokens", { model: "Texts", input: [1, 2, 3] }, 400, "bad_input", "input"],
    ["an empty text", { model: "Texts", input: "" }, 400, "bad_input", "input"],
    ["other dimensions", { model: "Texts", input: "a", dimensions: 3 }, 400, "bad_input", "dimensions"],
    [
      "an unknown format",
      { model: "Texts", input: "a", encoding_format: "hex" },
      400,
      "bad_input",
      "encoding_format",
    ],
    ["no JSON", "{", 400, "malformed_body", null],
    ["a large body", { model: "Texts", input: "x".repeat(1_000_001) }, 413, "body_too_large", null],
  ])("%s is an error in OpenAI's form", async (_what, request, status, code, param) => {
    const answer = await embed(request);
    expect(answer.status).toBe(status);
    expect(answer.body).toEqual({
      error: { message: expect.any(String), type: "invalid_request_error", param, code },
    });
  });

  test("another method is an error in OpenAI's form, too", async () => {
    const { status, body } = await send("GET", `${infermill.url}/v1/embeddings`);
    expect([status, body.error.code]).toEqual([405, "method_not_allowed"]);
  });

  test("the list of models has what OpenAI's clients read", async () => {
    const { body } = await send("GET", `${infermill.url}/v1/models`);
    expect(body.object).toBe("list");
    expect(body.data).toEqual(
      ["Texts", "Affine"].map((id) => ({
        id,
        object: "model",
        created: expect.any(Number),
        owned_by: "infermill",
      })),
    );
    expect(body.data[0].created).toBeGreaterThan(1_700_000_000);
    const one = await send("GET", `${infermill.url}/v1/models/Texts`);
    expect(one.body).toMatchObject({ id: "Texts", name: "Texts", object: "model" });
  });
});
