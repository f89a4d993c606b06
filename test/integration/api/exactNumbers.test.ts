/** What clients send comes back as it was: numbers that JavaScript can't hold, files as Windows writes them, lists of frames. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { executeModel } from "../../../src/executeModel.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { writeColourModel } from "../../support/pictures.ts";
import { python, whyNoPython } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { noSharedModels, sharedField } from "../../support/sharedModels.ts";

const BIG = "9007199254740993";
const REQUEST = `{"Tid":${BIG},"Fid":["60001",60002],"Ad":{"frame_id":${BIG},"far":1e400}}`;
const ECHOES = [`"Tid":${BIG}`, `"Fid":["60001",60002]`, `"Ad":{"frame_id":${BIG},"far":1e400}`];

describe.skipIf(whyNoRedis)("what is echoed does not change", () => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-exact-"));
  const models = {
    Echo: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 },
    ...(python && {
      PythonEcho: {
        loader: "ScriptedModelLoader",
        model_loader_file: fileURLToPath(new URL("../../loaders/scripted.py", import.meta.url)),
        python,
        instances: 1,
      },
    }),
    Yolo: {
      loader: "ImageClassificationModelLoader",
      model_path: [join(folder, "colours.onnx")],
      class_names: ["red", "green", "blue"],
    },
  };
  let infermill: TestInfermill;

  beforeAll(async () => {
    writeColourModel(join(folder, "colours.onnx"));
    infermill = await startInfermill({ webhooks: { allow: ["127.0.0.1"] }, models });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true });
  });

  async function post(path: string, body: string | Buffer, type = "application/json", headers = {}) {
    const answer = await fetch(`${infermill.url}${path}`, {
      method: "POST",
      headers: { "Content-Type": type, ...headers },
      body,
    });
    return { status: answer.status, body: await answer.text() };
  }

  function expectEchoed(body: string) {
    for (const part of ECHOES) expect(body).toContain(part);
  }

  test("by a prediction, a list of them, and IMIL's endpoint", async () => {
    const wait = { Prefer: "wait=30" };
    const one = await post("/v1/models/Echo/predictions", REQUEST, "application/json", wait);
    expect(one.status).toBe(200);
    expectEchoed(one.body);
    const { id } = JSON.parse(one.body) as { id: string };
    expectEchoed(await (await fetch(`${infermill.url}/v1/models/Echo/predictions/${id}`)).text());
    expectEchoed((await post("/Echo", REQUEST)).body);

    const many = await post("/v1/models/Echo/predictions", `${REQUEST}\n${REQUEST}\n`, "application/jsonl");
    const { predictions } = JSON.parse(many.body) as { predictions: { links: { self: string } }[] };
    expect(predictions).toHaveLength(2);
    for (const { links } of predictions)
      expectEchoed(await (await fetch(`${infermill.url}${links.self}?wait=30`)).text());
  });

  test.skipIf(whyNoPython)("by a loader in Python, which has them as numbers", async () => {
    expectEchoed((await post("/PythonEcho", REQUEST)).body);
  });

  test("by a bulk run over a manifest, as application/x-ndjson with a charset", async () => {
    const line = `{"custom_id":"a","request":${REQUEST}}\n`;
    const started = await post("/v1/bulk?model=Echo", line, "application/x-ndjson; charset=utf-8");
    const { links } = JSON.parse(started.body) as { links: { results: string } };
    expectEchoed(await (await fetch(`${infermill.url}${links.results}`)).text());
  });

  test("by a webhook", async () => {
    const bodies: string[] = [];
    const server = createServer((req, res) => {
      void text(req).then((body) => {
        bodies.push(body);
        res.end();
      });
    }).listen(0, "127.0.0.1");
    try {
      await until(async () => server.listening, "the receiver");
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      await post(`/v1/models/Echo/predictions?webhook=${encodeURIComponent(url)}`, REQUEST);
      await until(async () => bodies.length > 0, "the webhook");
      expectEchoed(bodies[0]!);
    } finally {
      server.close();
    }
  });

  test("by executeModel", async () => {
    const config = join(folder, "local.json");
    writeFileSync(config, JSON.stringify({ models: { Echo: models.Echo } }));
    expectEchoed(await executeModel(REQUEST, { config }));
  });

  test("windows-ndjson: a byte order mark and UTF-16 are read in bodies and manifests", async (context) => {
    const body = '{"Tid":"Füße"}';
    for (const bytes of [Buffer.from(`\uFEFF${body}`), Buffer.from(`\uFEFF${body}`, "utf16le")]) {
      expect((await post("/Echo", bytes)).body).toContain('"Tid":"Füße"');
      const { body: started } = await post("/v1/bulk?model=Echo", bytesOfLine(bytes), "application/x-ndjson");
      const { links } = JSON.parse(started) as { links: { results: string } };
      expect(await (await fetch(`${infermill.url}${links.results}`)).text()).toContain('"Tid":"Füße"');
    }
    if (!sharedField) context.skip(noSharedModels);
    const file = (name: string) => readFileSync(join(sharedField!, "windows-ndjson", name));
    expect((await post("/Yolo", file("bom.json"))).body).toContain('"Rc":"200"');
    const { body: started } = await post("/v1/bulk?model=Yolo", file("bom.ndjson"), "application/x-ndjson");
    const { links } = JSON.parse(started) as { links: { results: string } };
    const results = await (await fetch(`${infermill.url}${links.results}`)).text();
    expect(
      results
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { status: string }).status),
    ).toEqual(["succeeded", "succeeded"]);
  });

  test("iva-request: IMIL's newer client is served, and Fid may be a list", async (context) => {
    if (!sharedField) context.skip(noSharedModels);
    for (const [name, fid] of [
      ["frame.json", '"Fid":"60001"'],
      ["explain.json", '"Fid":["60001","60002"]'],
    ] as const) {
      const { status, body } = await post("/Yolo", readFileSync(join(sharedField!, "iva-request", name)));
      expect([status, body.slice(0, 300)]).toEqual([200, expect.any(String)]);
      expect(body).toContain(fid);
      expect(body).toContain('"Rc":"200"');
    }
  });
});

/** The same text as a line of a manifest, in the same encoding. */
function bytesOfLine(bytes: Buffer): Buffer {
  const isUtf16 = bytes[0] === 0xff;
  const body = bytes.toString(isUtf16 ? "utf16le" : "utf8").slice(1);
  return Buffer.from(`\uFEFF{"request":${body}}\r\n`, isUtf16 ? "utf16le" : "utf8");
}
