/** Bytes of any kind: what a loader says that it takes is what the api accepts, and what it puts out can be read. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { send, type Json } from "../../support/api.ts";
import { startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

/** Answers what it was sent: names, media types and sizes, and the bytes of each input again as an output. */
const LOADER = `
import { attachOutputs, BaseModelLoader, inputsOf } from "infermill";

export class PairModelLoader extends BaseModelLoader {
  describe() {
    return {
      labels: [],
      picture: "none",
      inputs: [
        { name: "anchor", mediaTypes: ["image/*"], required: false, multiple: false },
        { name: "positive", mediaTypes: ["image/*"], required: false, multiple: false },
        { name: "audio", mediaTypes: ["audio/wav"], required: false, multiple: false },
      ],
    };
  }
  async predictRequest(request) {
    const inputs = inputsOf(request);
    const seen = inputs.map(({ name, mediaType, bytes }) => [name, mediaType, bytes.length]);
    const copies = inputs.map(({ name, bytes }) => ({ name: "copy." + name, mediaType: "image/png", bytes }));
    return attachOutputs({ seen, Fid: request.Fid }, copies);
  }
}
`;

describe.skipIf(whyNoRedis)("bytes of any kind", () => {
  let folder: string;
  let infermill: TestInfermill;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-pair-"));
    writeFileSync(join(folder, "pair.ts"), LOADER);
    const pair = { loader: "PairModelLoader", model_loader_file: join(folder, "pair.ts"), instances: 1 };
    infermill = await startInfermill({ models: { Pair: pair } });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const path = () => `${infermill.url}/v1/models/Pair/predictions`;
  const post = async (
    body: string | FormData,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; body: Json }> => {
    const answer = await fetch(path(), { method: "POST", headers: { Prefer: "wait", ...headers }, body });
    return { status: answer.status, body: await answer.json() };
  };

  test("form fields are inputs with roles, whatever their order", async () => {
    const form = new FormData();
    form.set("positive", new Blob(["bbb"], { type: "image/jpeg" }), "b.jpg");
    form.set("request", '{"Fid":"7"}');
    form.set("anchor", new Blob(["aa"], { type: "image/png" }), "a.png");
    const { status, body } = await post(form);
    expect([status, body.status]).toEqual([200, "succeeded"]);
    expect(body.result).toEqual({
      seen: [
        ["positive", "image/jpeg", 3],
        ["anchor", "image/png", 2],
      ],
      Fid: "7",
    });
  });

  test("a body of a type that the loader takes is the input of that type", async () => {
    const { body } = await post("RIFF….WAVE", { "Content-Type": "audio/wav" });
    expect(body.result.seen).toEqual([["audio", "audio/wav", 12]]);
  });

  test("another type is refused with 415, which names what the model takes", async () => {
    const { status, body } = await post("x", { "Content-Type": "audio/flac" });
    expect([status, body.code]).toEqual([415, "unsupported_media_type"]);
    expect(body.detail).toContain("anchor (image/*), positive (image/*), audio (audio/wav)");
  });

  test("a small output is inline, a large one is read at its URL with its media type", async () => {
    const form = new FormData();
    form.set("anchor", new Blob(["small"], { type: "image/png" }), "a.png");
    form.set("positive", new Blob(["x".repeat(5000)], { type: "image/png" }), "b.png");
    const { body } = await post(form);
    const prediction = body as Prediction;
    expect(prediction.outputs.map(({ name, bytes, data }) => [name, bytes, data])).toEqual([
      ["copy.anchor", 5, Buffer.from("small").toString("base64")],
      ["copy.positive", 5000, undefined],
    ]);
    for (const { url, bytes } of prediction.outputs) {
      const answer = await fetch(infermill.url + url);
      expect([answer.status, answer.headers.get("Content-Type")]).toEqual([200, "image/png"]);
      expect((await answer.arrayBuffer()).byteLength).toBe(bytes);
    }
    const missing = await send("GET", `${infermill.url}${prediction.links.self}/outputs/other`);
    expect([missing.status, missing.body.code]).toEqual([404, "output_not_found"]);
    expect(missing.body.detail).toContain("copy.anchor, copy.positive");
  });

  test("IMIL's endpoint has Rc, Rm and Mtp for a loader that writes none, and output pictures in Obase_64", async () => {
    const form = new FormData();
    form.set("anchor", new Blob(["small"], { type: "image/png" }), "a.png");
    const native = await post(form);
    expect(native.body.result).not.toHaveProperty("Rc");
    const { body } = await send("POST", `${infermill.url}/Pair`, { Tid: "1", Base_64: "aGFsbG8=" });
    expect(body).toMatchObject({
      Rc: "200",
      Rm: "Success",
      Tid: "1",
      Fs: [],
      seen: [["image", "application/octet-stream", 5]],
    });
    expect(body.Obase_64).toEqual(["aGFsbG8="]);
    expect(body.Mtp).toHaveLength(1);
  });
});
