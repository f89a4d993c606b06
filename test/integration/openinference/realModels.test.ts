/** Reference models over the Open Inference Protocol: tensors as they are, and pictures with their raw tensors. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, type Json } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedModels, sharedPhotos } from "../../support/sharedModels.ts";

const TENSOR_MODELS = ["sklearn_titanic_columns", "tabular_float", "silero_vad", "xgboost_wine"];
const PHOTOS = ["chelsea.png", "darknet_dog.jpg"];

const whyNot = whyNoRedis ?? (sharedModels && sharedPhotos ? undefined : noSharedModels);

describe.skipIf(whyNot)("reference models over the Open Inference Protocol", () => {
  const folderOf = (name: string) => join(sharedModels!, "any", name);
  const names = TENSOR_MODELS.filter(
    (name) => sharedModels && existsSync(join(folderOf(name), "requests.json")),
  );
  let infermill: TestInfermill;

  beforeAll(async () => {
    const tensorModels = names.map((name) => [
      name,
      { loader: "OnnxTensorModelLoader", model_path: [join(folderOf(name), "model.onnx")], instances: 1 },
    ]);
    const SqueezeNet = {
      loader: "ImageClassificationModelLoader",
      model_path: [join(sharedModels!, "squeezenet1_1/squeezenet1_1.onnx")],
      class_names: ["imagenet"],
      instances: 1,
    };
    infermill = await startInfermill({ models: { ...Object.fromEntries(tensorModels), SqueezeNet } });
  });
  afterAll(() => infermill?.stop());

  const infer = (model: string, request: unknown) =>
    send("POST", `${infermill.url}/v2/models/${model}/infer`, request);

  test.each(names)(
    "%s: requests at the same time get the answers that were computed elsewhere",
    async (name) => {
      const cases = JSON.parse(readFileSync(join(folderOf(name), "requests.json"), "utf8")) as Json[];
      const answers = await Promise.all(cases.map(({ request }) => infer(name, request)));
      for (const [index, { status, body }] of answers.entries()) {
        expect(status, JSON.stringify(body).slice(0, 500)).toBe(200);
        for (const expected of cases[index].expected) {
          const got = body.outputs.find((output: Json) => output.name === expected.name);
          expect(got).toMatchObject({ datatype: expected.datatype, shape: expected.shape });
          const wanted = expected.data.flat(9) as (number | string)[];
          for (const [at, value] of wanted.entries()) {
            if (typeof value === "number") expect(Math.abs(got.data[at] - value)).toBeLessThan(1e-4);
            else expect(got.data[at]).toBe(value);
          }
        }
      }
    },
  );

  test("pictures have findings, raw tensors and classifications in one answer", async () => {
    const photos = PHOTOS.map((name) => readFileSync(join(sharedPhotos!, name)));
    const request = (outputs?: Json[]) => ({
      parameters: { raw: true },
      inputs: [
        {
          name: "image",
          datatype: "BYTES",
          shape: [photos.length],
          parameters: { content_type: "base64" },
          data: photos.map((photo) => photo.toString("base64")),
        },
      ],
      ...(outputs && { outputs }),
    });
    const { status, body } = await infer("SqueezeNet", request());
    expect(status, JSON.stringify(body).slice(0, 500)).toBe(200);
    const [scores, findings] = body.outputs;
    expect([scores.datatype, scores.shape.slice(0, 2)]).toEqual(["FP32", [2, 1000]]);
    expect([findings.name, findings.shape]).toEqual(["findings", [2]]);
    const labels = findings.data.map((text: string) => JSON.parse(text)[0].Lb);
    const top = await infer(
      "SqueezeNet",
      request([{ name: scores.name, parameters: { classification: 1 } }]),
    );
    const [classes] = top.body.outputs;
    expect(classes.shape).toEqual([2, 1]);
    for (const [index, text] of classes.data.entries()) {
      const [, place, ...label] = text.split(":");
      expect(label.join(":")).toBe(labels[index]);
      const row = scores.data.slice(index * 1000, (index + 1) * 1000);
      expect(row.indexOf(Math.max(...row))).toBe(Number(place));
    }
  });
});
