/** Tensors in JSON answers: their numbers up to a limit, beyond it the URL of their raw bytes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { closeModels, executeModel } from "../../../src/index.ts";
import { send, type Json } from "../../support/api.ts";
import { startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

const { Echo } = tensorModels;
const LIMIT = 40_000;

describe.skipIf(whyNoRedis)("tensors in JSON answers", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    infermill = await startInfermill({ models: { Echo }, max_inline_output_bytes: LIMIT });
  });
  afterAll(async () => {
    await closeModels();
    await infermill?.stop();
  });

  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index / 2);
  const tensor = (name: string, count: number) => ({
    name,
    datatype: "FP32",
    shape: [count],
    data: numbers(count),
  });
  const read = async (url: string) => [
    ...new Float32Array(await (await fetch(infermill.url + url)).arrayBuffer()),
  ];

  test("numbers are there whether they travelled in the response or beside it", async () => {
    const inputs = [tensor("small", 3), tensor("large", 9000)];
    const prediction = await submit(infermill.url, "Echo", { inputs });
    expect(prediction.result!["outputs"]).toEqual(inputs);
    const { body } = await send("GET", `${infermill.url}${prediction.links.self}`);
    expect(body.result.outputs).toEqual(inputs);
    const imil = await send("POST", `${infermill.url}/Echo`, { inputs });
    expect([imil.body.Rc, imil.body.outputs]).toEqual(["200", inputs]);
  });

  test("beyond max_inline_output_bytes a tensor has the URL of its bytes", async () => {
    const inputs = [tensor("over", LIMIT / 4 + 1), tensor("at", LIMIT / 4)];
    const prediction = await submit(infermill.url, "Echo", { inputs });
    const [over, at] = prediction.result!["outputs"] as Json[];
    expect(at).toEqual(inputs[1]);
    expect(over).toEqual({
      name: "over",
      datatype: "FP32",
      shape: [LIMIT / 4 + 1],
      parameters: { binary_data_size: LIMIT + 4 },
      url: `${prediction.links.self}/outputs/over`,
    });
    expect(await read(over.url)).toEqual(inputs[0]!.data);
  });

  test("names of tensors may be those that exporters write", async () => {
    const names = ["Identity:0", "/model/head/Add_output_0", "…/../grün", "n".repeat(200)];
    const inputs = names.map((name) => tensor(name, LIMIT / 4 + 1));
    const prediction = await submit(infermill.url, "Echo", { inputs });
    expect(prediction.status, JSON.stringify(prediction.error)).toBe("succeeded");
    for (const output of prediction.result!["outputs"] as Json[])
      expect(await read(output.url)).toEqual(inputs[0]!.data);
    expect(prediction.outputs.map(({ name }) => name)).toEqual(names);
  });

  test("NaN has no number in JSON, so its tensor has a URL, too", async () => {
    const bytes = Buffer.from(Float32Array.of(1, Number.NaN).buffer);
    const json = JSON.stringify({
      parameters: { binary_data_output: true },
      inputs: [{ name: "a", datatype: "FP32", shape: [2], parameters: { binary_data_size: 8 } }],
    });
    const answer = await fetch(`${infermill.url}/v2/models/Echo/infer`, {
      method: "POST",
      headers: { "Inference-Header-Content-Length": String(json.length) },
      body: Buffer.concat([Buffer.from(json), bytes]),
    });
    expect(answer.status).toBe(200);
    const { body } = await send("GET", `${infermill.url}/v1/models/Echo/predictions?limit=1`);
    const one = await send("GET", `${infermill.url}${body.predictions[0].links.self}`);
    const [output] = one.body.result.outputs;
    expect(await read(output.url)).toEqual([1, Number.NaN]);
  });

  test("executeModel fills in all of them", async () => {
    const config = join(infermill.folder, "local.json");
    writeFileSync(config, JSON.stringify({ models: { Echo } }));
    const inputs = [tensor("large", LIMIT)];
    const response = await executeModel({ Model: "Echo", inputs }, { config });
    expect([response.Rc, response["outputs"]]).toEqual(["200", inputs]);
  });
});
