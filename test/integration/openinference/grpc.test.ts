/** The Open Inference Protocol over gRPC: tensors in both forms, streams, keys, errors as statuses. */
import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition, Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Json } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

const PROTO = fileURLToPath(new URL("../../../proto/inference.proto", import.meta.url));
const KEY = "a-key-of-16-characters";

describe.skipIf(whyNoRedis)("the Open Inference Protocol over gRPC", () => {
  let infermill: TestInfermill;
  let client: Json;

  beforeAll(async () => {
    const settings = { grpc_port: 0, api_keys: [KEY], max_body_bytes: 1_000_000 };
    infermill = await startInfermill({ models: tensorModels, ...settings });
    const [, address] = await infermill.printed(/grpc:\/\/(\S+)/);
    const { inference }: Json = loadPackageDefinition(
      loadSync(PROTO, { keepCase: true, longs: Number, defaults: true }),
    );
    client = new inference.GRPCInferenceService(address, credentials.createInsecure());
  });
  afterAll(async () => {
    client?.close();
    await infermill?.stop();
  });

  const metadataOf = (key: string | undefined) => {
    const metadata = new Metadata();
    if (key !== undefined) metadata.set("authorization", `Bearer ${key}`);
    return metadata;
  };
  const call = (method: string, message: Json = {}, key: string | undefined = KEY): Promise<Json> =>
    new Promise((resolve, reject) => {
      client[method](message, metadataOf(key), (error: ServiceError | null, response: Json) =>
        error ? reject(error) : resolve(response),
      );
    });
  const fault = (method: string, message: Json = {}, key?: string) =>
    call(method, message, key).then(
      () => [status.OK, ""],
      ({ code, details }: ServiceError) => [code, details],
    );
  const bytesOf = (...values: number[]) => Buffer.from(Float32Array.from(values).buffer);
  const floatsOf = (bytes: Buffer) => [...new Float32Array(Uint8Array.from(bytes).buffer)];
  const x = (rows: number) => ({ name: "x", datatype: "FP32", shape: [rows, 3] });

  test("the server and its models are described as over HTTP", async () => {
    expect(await call("ServerLive")).toEqual({ live: true });
    expect(await call("ServerReady")).toEqual({ ready: true });
    expect(await call("ModelReady", { name: "Affine", version: "1" })).toEqual({ ready: true });
    expect((await call("ServerMetadata")).name).toBe("infermill");
    const metadata = await call("ModelMetadata", { name: "Affine" });
    expect(metadata.inputs).toEqual([{ name: "x", datatype: "FP32", shape: [-1, 3] }]);
    const { config } = await call("ModelConfig", { name: "Affine" });
    expect(config.input).toEqual([{ name: "x", data_type: 11, dims: [-1, 3] }]);
    const { models } = await call("RepositoryIndex", { ready: true });
    expect(models.map(({ name }: Json) => name)).toEqual(Object.keys(tensorModels));
  });

  test("raw contents give raw contents, and the id comes back", async () => {
    const answer = await call("ModelInfer", {
      model_name: "Affine",
      id: "7",
      inputs: [x(1)],
      raw_input_contents: [bytesOf(1, 2, 3)],
    });
    expect([answer.model_name, answer.model_version, answer.id]).toEqual(["Affine", "1", "7"]);
    expect(answer.outputs.map(({ name, shape }: Json) => [name, shape])).toEqual([
      ["y", [1, 3]],
      ["sum", [1]],
    ]);
    expect(answer.raw_output_contents.map(floatsOf)).toEqual([[3, 5, 7], [6]]);
  });

  test("typed contents work, and only the requested outputs come", async () => {
    const answer = await call("ModelInfer", {
      model_name: "Affine",
      inputs: [{ ...x(1), contents: { fp32_contents: [1, 2, 3] } }],
      outputs: [{ name: "y", parameters: { classification: { int64_param: 1 } } }],
    });
    expect(answer.outputs).toMatchObject([{ name: "y", datatype: "BYTES", shape: [1, 1] }]);
    expect(answer.raw_output_contents[0].subarray(4).toString()).toBe("7.000000:2:blue");
  });

  test("64-bit numbers stay exact", async () => {
    const answer = await call("ModelInfer", {
      model_name: "Echo",
      inputs: [
        { name: "a", datatype: "INT64", shape: [1], contents: { int64_contents: ["9007199254740993"] } },
      ],
    });
    expect(answer.raw_output_contents[0].readBigInt64LE()).toBe(9007199254740993n);
  });

  test("BYTES contents are predictions, and parameters are keys of their dictionaries", async () => {
    const answer = await call("ModelInfer", {
      model_name: "Dictionaries",
      parameters: { Fid: { string_param: "4" }, raw: { bool_param: true } },
      inputs: [
        {
          name: "request",
          datatype: "BYTES",
          shape: [2],
          contents: { bytes_contents: ["{}", "{}"].map((text) => Buffer.from(text)) },
        },
      ],
    });
    expect(answer.outputs).toMatchObject([{ name: "response", shape: [2] }]);
    const size = answer.raw_output_contents[0].readUInt32LE();
    const text = answer.raw_output_contents[0].subarray(4, 4 + size).toString();
    expect(JSON.parse(text)).toEqual({ Fid: "4", parameters: { raw: true }, seen: [] });
  });

  test("a stream answers its requests in their order, faulty ones too", async () => {
    const stream = client.ModelStreamInfer(metadataOf(KEY));
    const answers: Json[] = [];
    stream.on("data", (answer: Json) => answers.push(answer));
    for (let index = 0; index < 100; index++) {
      const first = index === 5 ? -1 : index;
      stream.write({
        model_name: "Affine",
        id: String(index),
        inputs: [x(1)],
        raw_input_contents: [bytesOf(first, 0, 0)],
      });
    }
    stream.end();
    await new Promise((resolve) => stream.on("end", resolve));
    expect(answers.map(({ infer_response }) => infer_response.id)).toEqual(
      Array.from({ length: 100 }, (_, index) => String(index)),
    );
    expect(answers[5].error_message).toBe("x must not be negative");
    expect(answers[6].error_message).toBe("");
    expect(floatsOf(answers[99].infer_response.raw_output_contents[1])).toEqual([99]);
  });

  test("faults are statuses with the same words as over HTTP", async () => {
    const infer = (message: Json) => fault("ModelInfer", { model_name: "Affine", ...message }, KEY);
    const raw = { raw_input_contents: [bytesOf(1, 2, 3)] };
    expect(await fault("ModelReady", { name: "Nobody" }, KEY)).toEqual([
      status.NOT_FOUND,
      expect.stringContaining('there is no model "Nobody"'),
    ]);
    expect(await infer({ model_version: "2" })).toEqual([
      status.NOT_FOUND,
      expect.stringContaining("version"),
    ]);
    expect(await infer({ inputs: [x(1), x(1)], ...raw })).toEqual([
      status.INVALID_ARGUMENT,
      expect.stringContaining("raw_input_contents"),
    ]);
    expect(await infer({ inputs: [x(1)], raw_input_contents: [bytesOf(-1, 2, 3)] })).toEqual([
      status.INVALID_ARGUMENT,
      "x must not be negative",
    ]);
    expect(await infer({ inputs: [x(1)], raw_input_contents: [Buffer.alloc(2_000_000)] })).toEqual([
      status.RESOURCE_EXHAUSTED,
      expect.any(String),
    ]);
    expect((await fault("RepositoryModelLoad", { model_name: "Affine" }, KEY))[0]).toBe(status.UNIMPLEMENTED);
  });

  test("a key is needed for all but the health of the server", async () => {
    const without = (method: string, message: Json = {}) =>
      new Promise((resolve) => {
        client[method](message, metadataOf(undefined), (error: ServiceError | null) =>
          resolve(error?.code ?? status.OK),
        );
      });
    expect(await without("ServerLive")).toBe(status.OK);
    expect(await without("ServerReady")).toBe(status.OK);
    expect(await without("ModelMetadata", { name: "Affine" })).toBe(status.UNAUTHENTICATED);
    expect((await fault("ModelMetadata", { name: "Affine" }, "another-key-of-ours"))[0]).toBe(
      status.UNAUTHENTICATED,
    );
  });

  test("statistics and /metrics count what came over gRPC", async () => {
    await call("ModelInfer", {
      model_name: "Affine",
      inputs: [x(1)],
      raw_input_contents: [bytesOf(1, 2, 3)],
    });
    await expect
      .poll(async () => (await call("ModelStatistics", { name: "Affine" })).model_stats[0].inference_count)
      .toBeGreaterThan(0);
    const headers = { Authorization: `Bearer ${KEY}` };
    const metrics = await (await fetch(`${infermill.url}/metrics`, { headers })).text();
    expect(metrics).toMatch(/method="gRPC",route="\/inference.GRPCInferenceService\/ModelInfer",status="OK"/);
  });
});
