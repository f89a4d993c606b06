/** IMIL's mil_config.json, read as it is. The fixture is one as its users have it: one model set up, the rest as shipped. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadConfig, type LoadConfigOptions } from "../../../src/config/load.ts";
import type { Config } from "../../../src/config/schema.ts";
import { ConfigError } from "../../../src/errors.ts";
import { checkLoaders } from "../../../src/loaders/openLoader.ts";

type Sections = Record<string, Record<string, unknown>>;

const fixture = JSON.parse(
  readFileSync(new URL("../../fixtures/mil_config.json", import.meta.url), "utf8"),
) as Sections;
const { ModelExecutor, ModelLoader, FastAPI } = fixture as Record<string, Record<string, unknown>>;

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "infermill-mil-"));
  await write("weights/yolov8n.onnx", "");
});
afterAll(() => rmSync(folder, { recursive: true }));

async function write(file: string, text: string): Promise<void> {
  await mkdir(dirname(join(folder, file)), { recursive: true });
  await writeFile(join(folder, file), text);
}

async function load(
  content: Record<string, unknown>,
  { env = {}, check = checkLoaders }: Pick<LoadConfigOptions, "env" | "check"> = {},
): Promise<{ config: Config; warnings: string[] }> {
  const file = join(folder, `${crypto.randomUUID()}.json`);
  await writeFile(file, JSON.stringify(content));
  const warnings: string[] = [];
  const onWarning = (line: string) => warnings.push(line.replace(`${file}: `, ""));
  return { config: await loadConfig({ file, env, check, onWarning }), warnings };
}

/** Each fault as "key problem"; the message names the file before each. */
async function faultsOf(content: Record<string, unknown>): Promise<string[]> {
  const error: unknown = await load(content).then(
    () => "no fault was found",
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConfigError)) throw error;
  for (const { source } of error.faults) expect(source).toMatch(/\.json$/);
  return error.faults.map(({ key, problem }) => `${key} ${problem}`);
}

/** The fixture with other sections; general sections are merged. */
function withSections(sections: Sections): Sections {
  const merged = Object.entries(sections).map(([name, section]) => [
    name,
    ["ModelExecutor", "ModelLoader", "FastAPI"].includes(name) ? { ...fixture[name], ...section } : section,
  ]);
  return { ...fixture, ...Object.fromEntries(merged) };
}

/** Only these models, of which the first is `model_name`. */
function only(sections: Sections): Sections {
  const executor = { ...ModelExecutor, model_name: Object.keys(sections)[0] };
  return { ModelExecutor: executor, ModelLoader: ModelLoader!, FastAPI: FastAPI!, ...sections };
}

describe("the file as its users have it", () => {
  test("serves the model that is set up, at IMIL's host, port and endpoint", async () => {
    const { config } = await load(fixture);
    expect(config).toMatchObject({
      host: "0.0.0.0",
      port: 8448,
      endpoints: { "/CocoObjectDetection_De": "CocoObjectDetection_Y8" },
      default_model: "CocoObjectDetection_Y8",
    });
    expect(Object.keys(config.models)).toEqual(["CocoObjectDetection_Y8"]);
  });

  test("warns of each section that has no model yet, and says how to get it", async () => {
    const { warnings } = await load(fixture);
    const told = Object.fromEntries(warnings.map((line) => [line.split(" ")[0], line]));
    expect(Object.keys(told).toSorted()).toEqual(
      Object.keys(fixture)
        .filter(
          (name) => !["ModelExecutor", "ModelLoader", "FastAPI", "CocoObjectDetection_Y8"].includes(name),
        )
        .toSorted(),
    );
    expect(told["CocoObjectDetection_De"]).toContain(
      'CocoObjectDetection_De.model_path must name an .onnx file, got []; export it in Python with: import torch, torchvision; model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights="DEFAULT")',
    );
    expect(told["CustomClipModelLoader"]).toContain("CustomClipModelLoader.model_loader_file is missing");
  });

  test("the environment overrides it as it does our own", async () => {
    const { config } = await load(fixture, { env: { PORT: "1234", HOST: "127.0.0.1" } });
    expect(config).toMatchObject({ port: 1234, host: "127.0.0.1" });
  });

  test("settings of ours may stand beside the sections and inside of them", async () => {
    const { config } = await load({
      ...only({
        CocoObjectDetection_Y8: {
          ...fixture["CocoObjectDetection_Y8"],
          max_batch_size: 4,
          device: ["cpu", "cuda:1"],
        },
      }),
      data_dir: "here",
      sync_timeout_ms: 5000,
    });
    expect(config).toMatchObject({ data_dir: join(folder, "here"), sync_timeout_ms: 5000 });
    expect(config.models["CocoObjectDetection_Y8"]).toMatchObject({
      max_batch_size: 4,
      device: ["cpu", "cuda:1"],
    });
  });
});

describe("a model that has no ONNX file is told how to get one, by its family", () => {
  test.each([
    ["CocoObjectDetection_Y5", "yolov5nu.pt", "yolo export model=yolov5nu.pt format=onnx"],
    ["CocoObjectDetection_Y8", "w/yolov8n.pt", "yolo export model=w/yolov8n.pt format=onnx"],
    ["CocoObjectDetection_Y7", "yolov7.pt", "python export.py --weights yolov7.pt --grid"],
    ["PoseEstimation_Y7", "yolov7-w6-pose.pt", "--weights yolov7-w6-pose.pt"],
    ["CocoObjectDetection_De", "mine.pth", 'model.load_state_dict(torch.load("mine.pth"'],
    ["PyTorch", "resnet50.pth", 'torch.load("resnet50.pth", map_location="cpu", weights_only=False)'],
    ["Tensorflow", "mobile.h5", "python -m tf2onnx.convert --keras mobile.h5 --output mobile.onnx"],
    ["Tensorflow", "saved/saved_model.pb", "--saved-model saved --output"],
    ["FacialExpressionRecognition", "emotion.hdf5", "--keras emotion.hdf5 --output emotion.onnx"],
  ])("%s with %s", async (name, file, way) => {
    const faults = await faultsOf(only({ [name]: { name: "", model_path: [file] } }));
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain(`${name}.model_path.0 must be an .onnx file, got "${file}"; `);
    expect(faults[0]).toContain(way);
  });

  test("the sizes of the export are those of the section", async () => {
    const [fault] = await faultsOf(only({ PyTorch: { ...fixture["PyTorch"] } }));
    expect(fault).toContain("torch.rand(1, 3, 224, 256)");
  });

  test("of the shipped file, where model_name has none, only model_name is a fault", async () => {
    const faults = await faultsOf(withSections({ ModelExecutor: { model_name: "CocoObjectDetection_De" } }));
    expect(faults).toEqual([
      expect.stringMatching(/^CocoObjectDetection_De\.model_path must name an \.onnx file/),
    ]);
  });

  test("without a model_name every section is", async () => {
    const { ModelExecutor: _, CocoObjectDetection_Y8: __, ...others } = fixture;
    expect(await faultsOf(others)).toHaveLength(Object.keys(others).length - 2);
  });
});

describe("faults", () => {
  test("are named by the keys of this file, all at once", async () => {
    const faults = await faultsOf(
      withSections({
        FastAPI: { port: "many", endpoint: "/v1/models" },
        CocoObjectDetection_Y8: {
          model_path: ["weights/none.onnx"],
          conf_tres: 0.3,
          max_batch_size: "8x",
        },
      }),
    );
    expect(faults).toEqual([
      'FastAPI.port must be a whole number, got "many"',
      expect.stringMatching(/^FastAPI\.endpoint must not begin with one of the api's own paths/),
      'CocoObjectDetection_Y8.max_batch_size must be a whole number, got "8x"',
    ]);
    const others = await faultsOf(
      withSections({
        CocoObjectDetection_Y8: { model_path: ["weights/none.onnx"], conf_tres: 0.3, img_size: 640 },
      }),
    );
    expect(others).toEqual([
      expect.stringMatching(
        /^CocoObjectDetection_Y8\.model_path\.0 "weights\/none\.onnx" must be a file that exists/,
      ),
      expect.stringMatching(/^CocoObjectDetection_Y8\.conf_tres is no setting of YoloModelLoader/),
    ]);
  });

  test("of a section that was set up for infermill are not skipped", async () => {
    const faults = await faultsOf(withSections({ CocoObjectDetection_Y5: { model_path: ["typo.onnx"] } }));
    expect(faults).toEqual([expect.stringContaining('CocoObjectDetection_Y5.model_path.0 "typo.onnx"')]);
  });

  test("img_size keeps its name in them", async () => {
    const faults = await faultsOf(
      withSections({ CocoObjectDetection_Y8: { ...fixture["CocoObjectDetection_Y8"], img_size: "big" } }),
    );
    expect(faults).toEqual([expect.stringMatching(/^CocoObjectDetection_Y8\.img_size/)]);
  });

  test.each<[string, Sections, string]>([
    [
      "a model_name without a section",
      { ModelExecutor: { model_name: "Nobody" } },
      'ModelExecutor.model_name must be the name of a section of this file (CocoObjectDetection_De, PyTorch, Tensorflow, CocoObjectDetection_Y5, CocoObjectDetection_Y8, CocoObjectDetection_Y7, FacialExpressionRecognition, CustomDetectoModelLoader, CustomClipModelLoader), got "Nobody"',
    ],
    [
      "a category that there is none of",
      {
        ModelExecutor: { model_name: "PyTorch" },
        PyTorch: { category: "image_segmentation", model_path: [] },
      },
      'PyTorch.category must be image_classification or object_detection, got "image_segmentation"',
    ],
    [
      "a model that infermill doesn't know",
      { ModelExecutor: { model_name: "FaceDetection_Mp" }, FaceDetection_Mp: { model_path: [] } },
      'FaceDetection_Mp.loader is missing: infermill knows no model of this name, so "loader" must name the class that runs it, such as "YoloModelLoader"',
    ],
  ])("%s", async (_name, sections, fault) => {
    expect(await faultsOf(withSections(sections))).toEqual([fault]);
  });
});

describe("a custom class", () => {
  const LOADER = `import { BaseModelLoader } from "infermill"; export class CustomColourModelLoader extends BaseModelLoader {}`;
  const custom = (loaderFile: string, loader: Record<string, unknown> = {}) =>
    withSections({
      ModelExecutor: { model_name: "Colours", model_loader_file: loaderFile },
      ModelLoader: { file_location: "loaders", class_name: "CustomColourModelLoader", ...loader },
      FastAPI: { endpoint: "/colours" },
      Colours: { name: "of mine", model_path: [""], classes: "", clip_model: "ViT-B/32" },
    });

  test.each(["custom_model_loader", "custom_model_loader.ts"])(
    "is found by model_loader_file %s, file_location and class_name, and reads its section",
    async (loaderFile) => {
      await write("loaders/custom_model_loader.ts", LOADER);
      const { config } = await load(custom(loaderFile));
      expect(config.models["Colours"]).toMatchObject({
        loader: "CustomColourModelLoader",
        model_loader_file: "loaders/custom_model_loader.ts",
        model_path: [],
        clip_model: "ViT-B/32",
        name: "of mine",
      });
      expect(config.endpoints).toEqual({ "/colours": "Colours" });
    },
  );

  test("is driven by predictRequest, and another first method is warned of", async () => {
    await write("loaders/custom_model_loader.ts", LOADER);
    const { warnings } = await load(custom("custom_model_loader", { first_method_to_call_in_class: "run" }));
    expect(warnings).toContain(
      "ModelLoader.first_method_to_call_in_class run is not called: a loader's main driver is predictRequest",
    );
  });

  test.each(["python_only", "python_only.py"])("in Python is served as it is: %s", async (loaderFile) => {
    await write(
      "loaders/python_only.py",
      "class CustomColourModelLoader:\n  def predict_request(self): ...\n",
    );
    const { config } = await load(custom(loaderFile), { check: async () => [] });
    expect(config.models["Colours"]).toMatchObject({
      loader: "CustomColourModelLoader",
      model_loader_file: "loaders/python_only.py",
    });
  });

  test("that is nowhere is told as a missing Python file, as IMIL's guide has it", async () => {
    expect(await faultsOf(custom("nothing"))).toEqual([
      expect.stringMatching(
        /^ModelExecutor\.model_loader_file must be a Python file, there is none at .*nothing\.py/,
      ),
    ]);
  });

  test.each<[string, string, Record<string, unknown>, RegExp]>([
    [
      "a missing file",
      "nothing.ts",
      {},
      /^ModelExecutor\.model_loader_file must be a TypeScript or JavaScript file/,
    ],
    [
      "a class of another name",
      "custom_model_loader",
      { class_name: "OtherModelLoader" },
      /^ModelLoader\.class_name must be exported by/,
    ],
    [
      "a name that is no loader's",
      "custom_model_loader",
      { class_name: "Colours" },
      /^ModelLoader\.class_name must be the name of a class that ends in ModelLoader/,
    ],
    ["no class at all", "custom_model_loader", { is_class: "No" }, /^ModelLoader\.is_class must be yes/],
  ])("%s is a fault of the key that says so", async (_name, loaderFile, loader, fault) => {
    await write("loaders/custom_model_loader.ts", LOADER);
    expect(await faultsOf(custom(loaderFile, loader))).toEqual([expect.stringMatching(fault)]);
  });

  test("other sections that are named like a class bring their own file, or name the built-in one", async () => {
    await write("loaders/custom_model_loader.ts", LOADER);
    const { config } = await load(
      withSections({
        CustomColourModelLoader: { model_loader_file: "loaders/custom_model_loader.ts" },
        CustomDetectoModelLoader: {
          loader: "DetectoModelLoader",
          name: "x",
          model_path: ["weights/yolov8n.onnx"],
        },
      }),
    );
    expect(config.models).toMatchObject({
      CustomColourModelLoader: { loader: "CustomColourModelLoader" },
      CustomDetectoModelLoader: { loader: "DetectoModelLoader" },
    });
  });
});

describe("FastAPI.endpoint", () => {
  test("that is model_name's own path needs no entry", async () => {
    const { config } = await load(withSections({ FastAPI: { endpoint: "/CocoObjectDetection_Y8/" } }));
    expect(config.endpoints).toEqual({});
  });

  test("that names another served model runs that one, with a warning", async () => {
    const { config, warnings } = await load(
      withSections({
        FastAPI: { endpoint: "/CocoObjectDetection_Y5" },
        CocoObjectDetection_Y5: { model_path: ["weights/yolov8n.onnx"] },
      }),
    );
    expect(config.endpoints).toEqual({});
    expect(warnings).toContain(
      "FastAPI.endpoint /CocoObjectDetection_Y5 is the model CocoObjectDetection_Y5's own path and runs that one; CocoObjectDetection_Y8 is at /CocoObjectDetection_Y8",
    );
  });
});

test("a model can't be called like one of the api's own paths", async () => {
  expect(
    await faultsOf(only({ docs: { loader: "YoloModelLoader", model_path: ["weights/yolov8n.onnx"] } })),
  ).toEqual([expect.stringMatching(/^docs must be called otherwise/)]);
});
