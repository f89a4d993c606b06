import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { readClassNames } from "../../../../src/loaders/labels.ts";
import { readLiteral } from "../../../../src/models/literals.ts";
import { readModelFacts } from "../../../../src/models/modelFacts.ts";
import { encodeModel, node, valueInfo } from "../../../../src/models/onnxProto.ts";

async function folder(): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), "infermill-labels-"));
  onTestFinished(() => rm(made, { recursive: true }));
  return made;
}

describe("a file of labels", () => {
  const utf16 = (text: string) => Buffer.from(`\uFEFF${text}`, "utf16le");
  it.each<[string, string | Buffer]>([
    ["labels.txt", "cat\ndog\r\n"],
    ["bom.txt", "\uFEFFcat\ndog"],
    ["utf16.txt", utf16("cat\r\ndog\r\n")],
    ["utf16be.txt", utf16("cat\ndog").swap16()],
    ["numbered.txt", "0 cat\n1 dog\n"],
    ["colons.txt", "1: dog\n0: cat\n"],
    ["list.json", '["cat", "dog"]'],
    ["object.json", '{"0": "cat", "1": "dog"}'],
    ["config.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}'],
    ["data.yaml", "path: ../pets\nnames:\n  0: cat\n  1: dog\n"],
    ["list.yml", "names: [cat, dog]\n"],
  ])("%s is read", async (name, content) => {
    const place = await folder();
    await writeFile(path.join(place, name), content);
    expect(await readClassNames(name, place)).toEqual(["cat", "dog"]);
  });

  it("whose lines only begin with numbers keeps them", async () => {
    const place = await folder();
    await writeFile(path.join(place, "speeds.txt"), "30 km/h\n50 km/h\n");
    expect(await readClassNames("speeds.txt", place)).toEqual(["30 km/h", "50 km/h"]);
  });
});

describe("what Python prints", () => {
  it.each<[string, unknown]>([
    [`{0: 'person', 1: "driver's"}`, { 0: "person", 1: "driver's" }],
    [`['a', 'it\\'s', 'caf\\xe9',]`, ["a", "it's", "café"]],
    ["(17, 3)", [17, 3]],
    ["{'nms': True, 'half': False, 'x': None}", { nms: true, half: false, x: null }],
    ["[640, 480]", [640, 480]],
    ["person", undefined],
    ["{0: 'a'", undefined],
  ])("%s", (text, value) => expect(readLiteral(text)).toEqual(value));
});

describe("what a model says of itself", () => {
  const graph = encodeModel({
    opset: 13,
    name: "plain",
    inputs: [valueInfo("pixel_values", "float32", ["batch", 3, 224, 224])],
    outputs: [valueInfo("logits", "float32", ["batch", 3])],
    nodes: [node("Identity", ["pixel_values"], ["logits"])],
    initializers: [],
  });

  it("comes from Hugging Face's files in the folder above one that is called onnx", async () => {
    const place = await folder();
    await mkdir(path.join(place, "onnx"));
    const file = path.join(place, "onnx", "model.onnx");
    await writeFile(file, graph);
    await writeFile(
      path.join(place, "config.json"),
      JSON.stringify({
        architectures: ["ViTForImageClassification"],
        id2label: { 0: "a", 1: "b", 2: "c" },
        problem_type: "multi_label_classification",
      }),
    );
    await writeFile(
      path.join(place, "preprocessor_config.json"),
      JSON.stringify({
        do_resize: true,
        size: { shortest_edge: 256 },
        do_center_crop: true,
        crop_size: { height: 224, width: 224 },
        resample: 3,
        do_rescale: true,
        rescale_factor: 1 / 255,
        do_normalize: true,
        image_mean: [0.5, 0.5, 0.5],
        image_std: [0.5, 0.5, 0.5],
      }),
    );
    expect(await readModelFacts(file)).toMatchObject({
      labels: ["a", "b", "c"],
      task: "classify",
      problem: "multi_label",
      preprocessing: {
        size: [224, 224],
        fit: "crop",
        crop_pct: 0.875,
        interpolation: "bicubic",
        mean: [0.5, 0.5, 0.5],
      },
    });
  });

  it("comes from PaddleDetection's infer_cfg.yml", async () => {
    const place = await folder();
    const file = path.join(place, "model.onnx");
    await writeFile(file, graph);
    const write = (keepRatio: string, size: string) =>
      writeFile(
        path.join(place, "infer_cfg.yml"),
        `mode: paddle
draw_threshold: 0.5
arch: GFL
Preprocess:
- interp: 2
  keep_ratio: ${keepRatio}
  target_size: [${size}]
  type: Resize
- is_scale: true
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  type: NormalizeImage
- type: Permute
label_list: [a, b, c]
`,
      );
    await write("false", "320, 416");
    const facts = await readModelFacts(file);
    expect(facts).toMatchObject({
      architecture: "GFL",
      labels: ["a", "b", "c"],
      preprocessing: {
        size: [416, 320],
        fit: "stretch",
        interpolation: "bicubic",
        scale: 1 / 255,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
      },
      notes: [],
    });
    await write("true", "640, 640");
    expect((await readModelFacts(file)).preprocessing).toMatchObject({ fit: "letterbox-top-left" });
    await write("true", "800, 1333");
    const uneven = await readModelFacts(file);
    expect(uneven.preprocessing!.size).toBeUndefined();
    expect(uneven.notes.join()).toContain("fit and size say how pictures are resized");
    await writeFile(path.join(place, "infer_cfg.yml"), "a: [b");
    expect((await readModelFacts(file)).notes.join()).toContain("infer_cfg.yml is no YAML");
  });

  it("is not believed where labels.txt lies beside two models", async () => {
    const place = await folder();
    await writeFile(path.join(place, "labels.txt"), "a\nb\nc\n");
    await writeFile(path.join(place, "one.onnx"), graph);
    expect((await readModelFacts(path.join(place, "one.onnx"))).labels).toEqual(["a", "b", "c"]);
    await writeFile(path.join(place, "two.onnx"), graph);
    const facts = await readModelFacts(path.join(place, "one.onnx"));
    expect(facts.labels).toBeUndefined();
    expect(facts.notes.join()).toContain("lies beside 2 models");
  });
});
