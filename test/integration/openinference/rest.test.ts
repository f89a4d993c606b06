/** The Open Inference Protocol over HTTP: its documents, tensors as JSON and as bytes, and errors in its form. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, type Json } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

const HEADER = "Inference-Header-Content-Length";

describe.skipIf(whyNoRedis)("the Open Inference Protocol over HTTP", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    infermill = await startInfermill({ models: tensorModels, max_body_bytes: 4_000_000 });
  });
  afterAll(() => infermill?.stop());

  const get = (path: string) => send("GET", `${infermill.url}${path}`);
  const infer = (model: string, request: unknown, query = "") =>
    send("POST", `${infermill.url}/v2/models/${model}/infer${query}`, request);
  const x = (data: unknown, shape: number[]) => ({ name: "x", datatype: "FP32", shape, data });

  /** Sends JSON with bytes behind it, and takes the answer apart in the same way. */
  async function inferBinary(model: string, request: unknown, bytes: Uint8Array, headers: Json = {}) {
    const json = Buffer.from(request === undefined ? "" : JSON.stringify(request));
    const answer = await fetch(`${infermill.url}/v2/models/${model}/infer`, {
      method: "POST",
      headers: { [HEADER]: String(json.length), "Content-Type": "application/octet-stream", ...headers },
      body: Buffer.concat([json, bytes]),
    });
    const body = Buffer.from(await answer.arrayBuffer());
    const length = Number(answer.headers.get(HEADER) ?? body.length);
    return {
      status: answer.status,
      header: answer.headers.get(HEADER),
      body: JSON.parse(body.subarray(0, length).toString()),
      bytes: body.subarray(length),
    };
  }
  const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
  const floatsOf = (bytes: Buffer) => [...new Float32Array(Uint8Array.from(bytes).buffer)];
  const elements = (...parts: (string | Buffer)[]) =>
    Buffer.concat(
      parts.flatMap((part) => {
        const length = Buffer.alloc(4);
        length.writeUInt32LE(Buffer.byteLength(part));
        return [length, Buffer.from(part)];
      }),
    );
  const json = (output: Json): Json[] => output.data.map((text: string) => JSON.parse(text));

  test("the server tells its name, its version and its extensions", async () => {
    const { status, body } = await get("/v2");
    expect([status, body.name]).toEqual([200, "infermill"]);
    expect(body.extensions).toEqual(
      expect.arrayContaining(["binary_tensor_data", "classification", "statistics"]),
    );
  });

  test("live and ready are told of the server and of a model", async () => {
    expect((await get("/v2/health/live")).body).toEqual({ live: true });
    expect((await get("/v2/health/ready")).body).toMatchObject({ ready: true });
    expect((await get("/v2/models/Affine/ready")).body).toEqual({ name: "Affine", ready: true });
    expect((await get("/v2/models/Affine/versions/1/ready")).status).toBe(200);
  });

  test("metadata has the tensors of a model that takes them, free dimensions as -1", async () => {
    expect((await get("/v2/models/Affine")).body).toEqual({
      name: "Affine",
      versions: ["1"],
      platform: "infermill_AffineModelLoader",
      inputs: [{ name: "x", datatype: "FP32", shape: [-1, 3] }],
      outputs: [
        { name: "y", datatype: "FP32", shape: [-1, 3] },
        { name: "sum", datatype: "FP32", shape: [-1] },
      ],
    });
    const { body } = await get("/v2/models/Affine/versions/1/config");
    expect(body).toMatchObject({
      max_batch_size: 0,
      input: [{ name: "x", data_type: "TYPE_FP32", dims: [-1, 3] }],
    });
  });

  test("metadata of other models has their bytes, or request dictionaries, as BYTES", async () => {
    const shapes = (list: Json[]) => list.map(({ name, datatype, shape }) => [name, datatype, shape]);
    const of = async (model: string) => {
      const { body } = await get(`/v2/models/${model}`);
      return [shapes(body.inputs), shapes(body.outputs)];
    };
    expect(await of("Pictures")).toEqual([[["image", "BYTES", [-1]]], [["findings", "BYTES", [-1]]]]);
    expect(await of("Dictionaries")).toEqual([[["request", "BYTES", [-1]]], [["response", "BYTES", [-1]]]]);
    const [inputs] = await of("Sounds");
    expect(inputs).toEqual([
      ["left", "BYTES", [-1]],
      ["right", "BYTES", [-1]],
    ]);
  });

  test.each([
    ["flat", [0, 1, 2, 3, 4, 5]],
    [
      "nested",
      [
        [0, 1, 2],
        [3, 4, 5],
      ],
    ],
  ])("tensors as %s JSON give tensors as JSON, and the id comes back", async (_form, data) => {
    const { status, body } = await infer("Affine", { id: "a-7", inputs: [x(data, [2, 3])] });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toEqual({
      model_name: "Affine",
      model_version: "1",
      id: "a-7",
      outputs: [
        { name: "y", datatype: "FP32", shape: [2, 3], data: [1, 3, 5, 7, 9, 11] },
        { name: "sum", datatype: "FP32", shape: [2], data: [3, 12] },
      ],
    });
  });

  test("only the requested outputs come, in their order", async () => {
    const { body } = await infer("Affine", {
      inputs: [x([1, 2, 3], [1, 3])],
      outputs: [{ name: "sum" }],
    });
    expect(body.outputs).toEqual([{ name: "sum", datatype: "FP32", shape: [1], data: [6] }]);
  });

  test("binary data goes in and comes out behind the JSON", async () => {
    const request = {
      inputs: [{ name: "x", datatype: "FP32", shape: [1, 3], parameters: { binary_data_size: 12 } }],
      outputs: [{ name: "y", parameters: { binary_data: true } }, { name: "sum" }],
    };
    const { status, body, bytes } = await inferBinary("Affine", request, floats(1, 2, 3));
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body.outputs).toEqual([
      { name: "y", datatype: "FP32", shape: [1, 3], parameters: { binary_data_size: 12 } },
      { name: "sum", datatype: "FP32", shape: [1], data: [6] },
    ]);
    expect(floatsOf(bytes)).toEqual([3, 5, 7]);
  });

  test("binary_data_output asks for all outputs as bytes, large ones too", async () => {
    const rows = 2000;
    const values = Array.from({ length: rows * 3 }, (_, index) => index);
    const request = { parameters: { binary_data_output: true }, inputs: [x(values, [rows, 3])] };
    const { body, bytes } = await inferBinary("Affine", request, Buffer.alloc(0));
    expect(body.outputs.map(({ parameters }: Json) => parameters)).toEqual([
      { binary_data_size: rows * 12 },
      { binary_data_size: rows * 4 },
    ]);
    expect(floatsOf(bytes).slice(0, 4)).toEqual([1, 3, 5, 7]);
    expect(floatsOf(bytes).length).toBe(rows * 4);
  });

  test("large tensors come as JSON where that is asked for", async () => {
    const values = Array.from({ length: 6000 }, (_, index) => index);
    const { body } = await infer("Affine", { inputs: [x(values, [2000, 3])], outputs: [{ name: "y" }] });
    expect(body.outputs[0].data.length).toBe(6000);
    expect(body.outputs[0].data.slice(-1)).toEqual([11999]);
  });

  test("a body without JSON is the one input, and its shape follows from its size", async () => {
    const { body, bytes } = await inferBinary("Affine", undefined, floats(1, 2, 3, 4, 5, 6));
    expect(body.outputs[0]).toMatchObject({ name: "y", shape: [2, 3] });
    expect(floatsOf(bytes).slice(0, 6)).toEqual([3, 5, 7, 9, 11, 13]);
    const odd = await inferBinary("Affine", undefined, floats(1, 2));
    expect([odd.status, odd.body.error]).toEqual([400, "the body must have a multiple of 12 bytes, got 8"]);
  });

  test.each([
    ["BOOL", [true, false]],
    ["UINT8", [0, 255]],
    ["UINT64", ["18446744073709551615", 1]],
    ["INT64", ["-9223372036854775808", -1]],
    ["INT16", [-32768, 32767]],
    ["FP16", [0.5, -2]],
    ["FP64", [0.1, 1e300]],
    ["BYTES", ["grün", ""]],
  ])("%s goes through exactly, as JSON and as bytes", async (datatype, data) => {
    const input = { name: "a", datatype, shape: [2], data };
    const { status, body } = await infer("Echo", { inputs: [input] });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body.outputs).toEqual([input]);
    const first = await inferBinary(
      "Echo",
      { parameters: { binary_data_output: true }, inputs: [input] },
      Buffer.alloc(0),
    );
    const again = { name: "a", datatype, shape: [2], parameters: { binary_data_size: first.bytes.length } };
    const second = await inferBinary("Echo", { inputs: [again] }, first.bytes);
    expect(second.body.outputs).toEqual([input]);
  });

  test("NaN comes as bytes, and as JSON it is refused with the name of the output", async () => {
    const input = { name: "a", datatype: "FP32", shape: [2], parameters: { binary_data_size: 8 } };
    const { status, body } = await inferBinary("Echo", { inputs: [input] }, floats(1, Number.NaN));
    expect(status).toBe(400);
    expect(body.error).toMatch(/the output "a" holds NaN.*binary/);
    const binary = await inferBinary(
      "Echo",
      { parameters: { binary_data_output: true }, inputs: [input] },
      floats(1, Number.NaN),
    );
    expect(floatsOf(binary.bytes)).toEqual([1, Number.NaN]);
  });

  test("classification answers the highest elements of each row with index and label", async () => {
    const { body } = await infer("Affine", {
      inputs: [x([0, 2, 1, 3, 0, 0.5], [2, 3])],
      outputs: [{ name: "y", parameters: { classification: 2 } }],
    });
    expect(body.outputs).toEqual([
      {
        name: "y",
        datatype: "BYTES",
        shape: [2, 2],
        data: ["5.000000:1:green", "3.000000:2:blue", "7.000000:0:red", "2.000000:2:blue"],
      },
    ]);
  });

  test("each picture of a BYTES input is a prediction, and findings come as JSON texts", async () => {
    const pictures = elements("a", "bb", "ccc");
    const request = {
      inputs: [
        { name: "image", datatype: "BYTES", shape: [3], parameters: { binary_data_size: pictures.length } },
      ],
    };
    const { status, body } = await inferBinary("Pictures", request, pictures);
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body.outputs[0]).toMatchObject({ name: "findings", datatype: "BYTES", shape: [3] });
    expect(json(body.outputs[0]).map(([finding]) => finding.Lb)).toEqual(["1", "2", "3"]);
  });

  test("pictures come as base64 where content_type says so, else they are refused", async () => {
    const image = { name: "image", datatype: "BYTES", shape: [1], data: ["YWJj"] };
    const { body } = await infer("Pictures", {
      inputs: [{ ...image, parameters: { content_type: "base64" } }],
      outputs: [{ name: "response" }, { name: "findings" }],
    });
    expect(body.outputs.map(({ name }: Json) => name)).toEqual(["response", "findings"]);
    expect(json(body.outputs[0])[0]).toMatchObject({ Rc: "200", Fs: [{ Lb: "3" }] });
    const plain = await infer("Pictures", { inputs: [image] });
    expect([plain.status, plain.body.error]).toEqual([
      400,
      expect.stringContaining('{"content_type": "base64"}'),
    ]);
  });

  test("a picture alone is a body without JSON", async () => {
    const { body, bytes } = await inferBinary("Pictures", undefined, Buffer.from("picture"));
    expect(body.outputs[0]).toMatchObject({ name: "findings", shape: [1] });
    expect(JSON.parse(bytes.subarray(4).toString())[0].Lb).toBe("7");
  });

  test("a model that takes no bytes gets dictionaries, and parameters are keys of them", async () => {
    const texts = [{ Fid: "1" }, { Fid: "2" }].map((dictionary) => JSON.stringify(dictionary));
    const { body } = await infer("Dictionaries", {
      parameters: { C_threshold: 0.25, Prompt: "cat", raw: true, priority: 1, timeout: 30_000_000 },
      inputs: [{ name: "request", datatype: "BYTES", shape: [2], data: texts }],
    });
    expect(json(body.outputs[0])).toEqual([
      { Fid: "1", C_threshold: 0.25, Prompt: [["cat"]], parameters: { raw: true }, seen: [] },
      { Fid: "2", C_threshold: 0.25, Prompt: [["cat"]], parameters: { raw: true }, seen: [] },
    ]);
  });

  test("bytes with roles come by name, and bytes that a model puts out come as BYTES", async () => {
    const [left, right] = [elements("aaaa"), elements("b".repeat(9000))];
    const input = (name: string, { length }: Buffer) => ({
      name,
      datatype: "BYTES",
      shape: [1],
      parameters: { binary_data_size: length },
    });
    const request = { inputs: [input("left", left), input("right", right)] };
    const { status, body } = await inferBinary("Sounds", request, Buffer.concat([left, right]));
    expect(status, JSON.stringify(body)).toBe(200);
    expect(json(body.outputs[0])[0].seen).toEqual([
      ["left", "audio/wav", 4],
      ["right", "audio/wav", 9000],
    ]);
    expect(body.outputs[1]).toEqual({
      name: "mask",
      datatype: "BYTES",
      shape: [1],
      parameters: { media_type: "image/png", content_type: "base64" },
      data: ["/////w=="],
    });
  });

  test("the element that fails is named, and then the whole request fails", async () => {
    const texts = ['{"Fid":"1"}', '{"Fid":"bad"}'];
    const { status, body } = await infer("Dictionaries", {
      inputs: [{ name: "request", datatype: "BYTES", shape: [2], data: texts }],
    });
    expect([status, body]).toEqual([400, { error: "element 1: Fid must not be bad" }]);
  });

  test("the index lists the models, and loading is refused", async () => {
    const { body } = await send("POST", `${infermill.url}/v2/repository/index`, { ready: true });
    expect(body.map(({ name }: Json) => name)).toEqual(Object.keys(tensorModels));
    expect(body[0]).toEqual({ name: "Affine", version: "1", state: "READY", reason: "" });
    const load = await send("POST", `${infermill.url}/v2/repository/models/Affine/load`);
    expect([load.status, load.body.error]).toEqual([501, expect.stringContaining("the configuration says")]);
  });

  test("statistics count what was run, of a model and of all", async () => {
    await infer("Affine", { inputs: [x([1, 2, 3], [1, 3])] });
    await expect
      .poll(async () => (await get("/v2/models/Affine/stats")).body.model_stats[0].inference_count)
      .toBeGreaterThan(0);
    const { body } = await get("/v2/models/stats");
    expect(body.model_stats.map(({ name }: Json) => name)).toEqual(Object.keys(tensorModels));
    const [{ inference_stats: stats }] = body.model_stats;
    expect(stats.success.count).toBeGreaterThan(0);
    expect(stats.queue.ns).toBeGreaterThan(0);
  });

  const broken: [string, string, unknown, number, RegExp][] = [
    ["an unknown model", "Nobody", { inputs: [] }, 404, /there is no model "Nobody"/],
    ["no inputs", "Affine", { inputs: [] }, 400, /inputs/],
    ["text that is no JSON", "Affine", "{", 400, /not JSON/],
    [
      "an unknown datatype",
      "Affine",
      { inputs: [{ ...x([1], [1]), datatype: "BF16" }] },
      400,
      /inputs\[0\]\.datatype must be one of BOOL/,
    ],
    [
      "too few elements",
      "Affine",
      { inputs: [x([1, 2], [1, 3])] },
      400,
      /inputs\[0\] \(x\) data must have 3 elements/,
    ],
    [
      "an unknown output",
      "Affine",
      { inputs: [x([1, 2, 3], [1, 3])], outputs: [{ name: "z" }] },
      400,
      /must be of y, sum, got "z"/,
    ],
    ["what the loader refuses", "Affine", { inputs: [x([-1, 2, 3], [1, 3])] }, 400, /x must not be negative/],
    [
      "an unknown input",
      "Pictures",
      { inputs: [x([1], [1])] },
      400,
      /is no input of "Pictures", which has image, request/,
    ],
    [
      "missing bytes",
      "Sounds",
      { inputs: [{ name: "request", datatype: "BYTES", shape: [1], data: ["{}"] }] },
      400,
      /must have left, right as BYTES/,
    ],
    [
      "shared memory",
      "Affine",
      { inputs: [{ ...x([1, 2, 3], [1, 3]), parameters: { shared_memory_region: "r" } }] },
      400,
      /shared memory/,
    ],
    [
      "a sequence",
      "Affine",
      { parameters: { sequence_id: 4 }, inputs: [x([1, 2, 3], [1, 3])] },
      400,
      /sequence_id/,
    ],
    [
      "a negative priority",
      "Affine",
      { parameters: { priority: -1 }, inputs: [x([1, 2, 3], [1, 3])] },
      400,
      /priority/,
    ],
  ];
  test.each(broken)("%s is an error in the protocol's form", async (_what, model, request, status, error) => {
    const answer = await infer(model, request);
    expect([answer.status, Object.keys(answer.body)]).toEqual([status, ["error"]]);
    expect(answer.body.error).toMatch(error);
  });

  test("paths, methods, versions and bodies that don't fit are told in the same form", async () => {
    const form = async (method: string, path: string, body?: unknown) => {
      const answer = await send(method, `${infermill.url}${path}`, body);
      expect(Object.keys(answer.body)).toEqual(["error"]);
      return answer.status;
    };
    expect(await form("GET", "/v2/nothing")).toBe(404);
    expect(await form("GET", "/v2/models/Affine/infer")).toBe(405);
    expect(await form("GET", "/v2/models/Affine/versions/2")).toBe(404);
    expect(await form("POST", "/v2/models/Affine/infer", "x".repeat(4_000_001))).toBe(413);
    const beyond = await inferBinary("Affine", { inputs: [x([1, 2, 3], [1, 3])] }, floats(1), {
      [HEADER]: "9999",
    });
    expect([beyond.status, beyond.body.error]).toEqual([400, expect.stringContaining(HEADER)]);
    const left = await inferBinary("Affine", { inputs: [x([1, 2, 3], [1, 3])] }, floats(1));
    expect([left.status, left.body.error]).toEqual([400, expect.stringContaining("4 bytes behind the JSON")]);
  });

  test("/metrics counts its requests by route", async () => {
    const metrics = await (await fetch(`${infermill.url}/metrics`)).text();
    expect(metrics).toContain('route="/v2/models/{model}/infer"');
  });
});
