import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { attachInputs, type RequestDictionary } from "../../../src/core/request.ts";
import type { BaseModelLoader, Finding } from "../../../src/index.ts";
import { TextClassificationModelLoader } from "../../../src/loaders/text/TextClassificationModelLoader.ts";
import { TextEmbeddingModelLoader } from "../../../src/loaders/text/TextEmbeddingModelLoader.ts";
import {
  DATA_TYPE,
  encodeModel,
  node,
  tensor,
  valueInfo,
  type DataType,
  type OnnxModel,
} from "../../../src/models/onnxProto.ts";
import { inlineTensors, type TensorEntry } from "../../../src/tensors/dialect.ts";
import { joinBytes } from "../../../src/tensors/rawBytes.ts";
import { noTime, openLoader, watchRuns } from "../../support/loaders.ts";
import { noSharedModels, sharedModels } from "../../support/sharedModels.ts";

const [CLS, SEP] = [1, 2];
const WORDS = ["good", "bad", "fair", "dull"];
const idOf = (word: string) => 3 + WORDS.indexOf(word);

/** A WordPiece tokenizer as Hugging Face writes it, of whole words only. */
function tokenizer(vocabulary: Record<string, number>): object {
  const { "[CLS]": cls, "[SEP]": sep } = vocabulary;
  return {
    added_tokens: ["[CLS]", "[SEP]"].map((content) => ({ id: vocabulary[content], content, special: true })),
    normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "[CLS]", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "[SEP]", type_id: 0 } },
      ],
      pair: [],
      special_tokens: {
        "[CLS]": { id: "[CLS]", ids: [cls], tokens: ["[CLS]"] },
        "[SEP]": { id: "[SEP]", ids: [sep], tokens: ["[SEP]"] },
      },
    },
    decoder: null,
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab: vocabulary,
    },
  };
}

const vocabulary = {
  "[UNK]": 0,
  "[CLS]": CLS,
  "[SEP]": SEP,
  ...Object.fromEntries(WORDS.map((word) => [word, idOf(word)])),
};

/** The vector of each token. */
const TABLE = Array.from({ length: 7 }, (_, id) => [id, id * id, 1]);

/** Token vectors from a table, [N, length, 3], and with `pooled` the sum of those that the mask keeps, [N, 3]. */
function transformer({
  type = "int64",
  pooled = false,
  inputs = ["input_ids", "attention_mask"],
}: { type?: DataType; pooled?: boolean; inputs?: string[] } = {}): OnnxModel {
  return {
    opset: 13,
    name: "transformer",
    inputs: inputs.map((name) => valueInfo(name, type, ["batch", "sequence"])),
    outputs: [
      valueInfo("last_hidden_state", "float32", ["batch", "sequence", 3]),
      ...(pooled ? [valueInfo("logits", "float32", ["batch", 3])] : []),
    ],
    nodes: [
      node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
      ...(pooled
        ? [
            node("Cast", ["attention_mask"], ["kept"], { to: DATA_TYPE.float32 }),
            node("Unsqueeze", ["kept", "last"], ["mask"]),
            node("Mul", ["last_hidden_state", "mask"], ["seen"]),
            node("ReduceSum", ["seen", "middle"], ["sum"], { keepdims: 0 }),
            node("Mul", ["sum", "little"], ["logits"]),
          ]
        : []),
    ],
    initializers: [
      tensor("table", [7, 3], Float32Array.from(TABLE.flat())),
      tensor("middle", [1], BigInt64Array.of(1n)),
      tensor("last", [1], BigInt64Array.of(2n)),
      tensor("little", [], Float32Array.of(0.1)),
    ],
  };
}

let folder: string | undefined;
let models = 0;
afterAll(() => {
  if (folder) rmSync(folder, { recursive: true });
});

/** A model with files beside it; answers its path. */
async function modelWith(model: OnnxModel | Uint8Array, files: Record<string, unknown>): Promise<string> {
  folder ??= mkdtempSync(path.join(tmpdir(), "infermill-texts-"));
  const own = path.join(folder, String(models++));
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(own, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, JSON.stringify(content));
  }
  const file = path.join(own, "onnx", "model.onnx");
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, model instanceof Uint8Array ? model : encodeModel(model));
  return file;
}

const files = { "tokenizer.json": tokenizer(vocabulary) };

interface Embeddings {
  shape: number[];
  rows: number[][];
  usage: unknown;
  cut: unknown;
}

async function embed(
  loader: BaseModelLoader,
  ...requests: RequestDictionary[]
): Promise<(Embeddings | Error)[]> {
  const outcomes = await loader.predictRequests(requests, noTime());
  return outcomes.map((outcome) => {
    if (outcome instanceof Error) return outcome;
    const { outputs, usage, cut_texts: cut } = inlineTensors(outcome);
    const [{ name, datatype, shape, data }] = outputs as [TensorEntry];
    expect([name, datatype]).toEqual(["embedding", "FP32"]);
    const [count, size] = shape as [number, number];
    const rows = Array.from({ length: count }, (_, row) =>
      (data as number[]).slice(row * size, (row + 1) * size),
    );
    return { shape, rows, usage, cut };
  });
}

/** The mean of the vectors of a text's tokens. */
function meanOf(words: string[]): number[] {
  const ids = [CLS, ...words.map(idOf), SEP];
  return [0, 1, 2].map((at) => ids.reduce((sum, id) => sum + TABLE[id]![at]!, 0) / ids.length);
}

const near = (vector: number[]) => vector.map((value) => expect.closeTo(value, 4) as number);
const scaled = (vector: number[]) => vector.map((value) => value / Math.hypot(...vector));

describe("TextEmbeddingModelLoader", () => {
  it("embeds a text and a list of texts as the mean of their tokens, of length 1", async () => {
    const loader = await openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), files)]);
    const [one, two] = await embed(loader, { Text: "Good" }, { Text: ["bad fair", "dull good bad fair"] });
    expect(one).toEqual({
      shape: [1, 3],
      rows: [near(scaled(meanOf(["good"])))],
      usage: { prompt_tokens: 3 },
      cut: undefined,
    });
    expect(two).toMatchObject({
      shape: [2, 3],
      rows: [near(scaled(meanOf(["bad", "fair"]))), near(scaled(meanOf(["dull", "good", "bad", "fair"])))],
      usage: { prompt_tokens: 10 },
    });
    expect(loader.describe()).toMatchObject({
      picture: "none",
      embeds: "text",
      takesTensors: true,
      tensors: {
        inputs: [{ name: "text", type: "string", shape: ["texts"] }],
        outputs: [{ name: "embedding", type: "float32", shape: ["texts", 3] }],
      },
      facts: { pooling: "mean of last_hidden_state", normalised: "yes", "longest text": "512 tokens" },
    });
  });

  it("runs texts of all requests together, sorted and padded, whatever their lengths", async () => {
    const loader = await openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), files)], {
      max_batch_size: 4,
      normalise: false,
    });
    const runs = watchRuns("input_ids");
    const lengths = [1, 4, 2, 4, 1, 3];
    const texts = lengths.map((length) => Array.from({ length }, (_, at) => WORDS[at % 4]!));
    const answers = await embed(loader, ...texts.map((words) => ({ Text: words.join(" ") })));
    expect(runs).toEqual([4, 2]);
    for (const [index, words] of texts.entries())
      expect((answers[index] as Embeddings).rows).toEqual([near(meanOf(words))]);
  });

  it("reads texts from a BYTES tensor and from text/plain, too", async () => {
    const loader = await openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), files)]);
    const entry = { name: "text", datatype: "BYTES", shape: [2] };
    const raw = joinBytes(["good", "bad"].map((text) => Buffer.from(text)));
    const answers = await embed(
      loader,
      { Text: ["good", "bad"] },
      { inputs: [{ ...entry, data: ["good", "bad"] }] },
      attachInputs({ inputs: [entry] }, [
        { name: "text", mediaType: "application/octet-stream", bytes: raw },
      ]),
      attachInputs(
        {},
        ["good", "bad"].map((text) => ({ name: "text", mediaType: "text/plain", bytes: Buffer.from(text) })),
      ),
    );
    for (const answer of answers.slice(1)) expect(answer).toEqual(answers[0]);
  });

  it("refuses a request without texts alone", async () => {
    const loader = await openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), files)]);
    const answers = await embed(
      loader,
      {},
      { Text: [] },
      { Text: ["good", 7] },
      { inputs: [{ name: "x", datatype: "FP32", shape: [1], data: [1] }] },
      { Text: "good" },
    );
    expect(answers.map((answer) => (answer instanceof Error ? answer.message : "answered"))).toEqual([
      "a request must have Text, a string or a list of strings (or inputs with a BYTES tensor), got neither",
      "Text must hold at least one text, got an empty list",
      "Text[1] must be a string, got 7",
      "inputs must be one tensor of datatype BYTES with the texts, got 1 (FP32)",
      "answered",
    ]);
  });

  it("leaves out the end of a text that is too long, and says of which", async () => {
    const beside = { ...files, "sentence_bert_config.json": { max_seq_length: 4 } };
    const file = await modelWith(transformer(), beside);
    const loader = await openLoader(TextEmbeddingModelLoader, [file], { normalise: false });
    const [answer] = await embed(loader, { Text: ["good", "good bad fair dull"] });
    expect(answer).toEqual({
      shape: [2, 3],
      rows: [near(meanOf(["good"])), near(meanOf(["good", "bad"]))],
      usage: { prompt_tokens: 7 },
      cut: [1],
    });
    const longer = await openLoader(TextEmbeddingModelLoader, [file], { normalise: false, max_length: 6 });
    expect((await embed(longer, { Text: "good bad fair dull" }))[0]).toMatchObject({
      rows: [near(meanOf(["good", "bad", "fair", "dull"]))],
    });
  });

  it("pools and normalises as the files beside the model say, or the configuration", async () => {
    const cls = {
      ...files,
      "1_Pooling/config.json": { pooling_mode_cls_token: true, pooling_mode_mean_tokens: false },
      "modules.json": [{ type: "sentence_transformers.models.Transformer" }],
    };
    const file = await modelWith(transformer(), cls);
    const stated = await openLoader(TextEmbeddingModelLoader, [file]);
    expect((await embed(stated, { Text: "good" }))[0]).toMatchObject({ rows: [TABLE[CLS]] });
    const overruled = await openLoader(TextEmbeddingModelLoader, [file], {
      pooling: "mean",
      normalise: true,
    });
    expect((await embed(overruled, { Text: "good" }))[0]).toMatchObject({
      rows: [near(scaled(meanOf(["good"])))],
    });
    const other = await modelWith(transformer(), {
      ...files,
      "1_Pooling/config.json": { pooling_mode_max_tokens: true },
    });
    await expect(openLoader(TextEmbeddingModelLoader, [other])).rejects.toThrow(
      "1_Pooling/config.json asks for pooling_mode_max_tokens, which is not offered here",
    );
  });

  it("takes the vectors of a model that pools them itself", async () => {
    const model = transformer({ pooled: true });
    const file = await modelWith(model, files);
    const loader = await openLoader(TextEmbeddingModelLoader, [file], { normalise: false });
    const sum = meanOf(["good"]).map((value) => 0.1 * 3 * value);
    expect((await embed(loader, { Text: "good" }))[0]).toMatchObject({ rows: [near(sum)] });
    await expect(
      openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), files)], { pooling: "none" }),
    ).rejects.toThrow(
      'models.Model.pooling "none" needs an output [N, numbers], the model has last_hidden_state',
    );
  });

  it("puts the prefix before every text, and fills int32 and further inputs", async () => {
    const model = transformer({
      type: "int32",
      inputs: ["input_ids", "attention_mask", "token_type_ids", "position_ids"],
    });
    const loader = await openLoader(TextEmbeddingModelLoader, [await modelWith(model, files)], {
      prefix: "fair ",
      normalise: false,
    });
    expect((await embed(loader, { Text: "good" }))[0]).toMatchObject({
      rows: [near(meanOf(["fair", "good"]))],
    });
  });

  it("says what a model lacks to be one for texts", async () => {
    await expect(openLoader(TextEmbeddingModelLoader, [await modelWith(transformer(), {})])).rejects.toThrow(
      "models.Model.model_path must have tokenizer.json beside the model, or name it as a further file; there is none",
    );
    const pixels = transformer({ inputs: ["input_ids", "pixel_values"] });
    await expect(openLoader(TextEmbeddingModelLoader, [await modelWith(pixels, files)])).rejects.toThrow(
      "this one has pixel_values: int64 [batch, sequence]",
    );
  });

  it.skipIf(!sharedModels)("embeds with MiniLM as sentence-transformers does", async (context) => {
    const minilm = sharedModels && path.join(sharedModels, "any", "minilm_int8");
    if (!minilm || !existsSync(minilm)) context.skip(noSharedModels);
    const cases = JSON.parse(await readFile(path.join(minilm!, "requests.json"), "utf8")) as {
      request: { inputs: TensorEntry[] };
      expected: TensorEntry[];
    }[];
    // A word for each token of the requests, so that their texts give the very tokens.
    const ids = cases.map(({ request }) => request.inputs[0]!.data as number[]);
    const words = Object.fromEntries([...new Set(ids.flat())].map((id) => [`w${id}`, id]));
    const file = await modelWith(await readFile(path.join(minilm!, "model.onnx")), {
      "tokenizer.json": tokenizer({ "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ...words }),
    });
    const loader = await openLoader(TextEmbeddingModelLoader, [file], { max_batch_size: 8 });
    const texts = ids.map((own) =>
      own
        .slice(1, -1)
        .map((id) => `w${id}`)
        .join(" "),
    );
    const alone = (await Promise.all(texts.map((Text) => embed(loader, { Text })))).flat() as Embeddings[];
    const [together] = (await embed(loader, { Text: [...texts, ...texts] })) as [Embeddings];
    for (const [index, { expected }] of cases.entries()) {
      const [{ shape, data }] = expected as [TensorEntry];
      const [, length, size] = shape as [number, number, number];
      const mean = Array.from({ length: size }, (_, at) => {
        const own = Array.from({ length }, (_value, token) => (data as number[])[token * size + at]!);
        return own.reduce((sum, value) => sum + value, 0) / length;
      });
      for (const row of [alone[index]!.rows[0]!, together.rows[index]!, together.rows[index + 4]!])
        expect(row).toEqual(near(scaled(mean)));
    }
  });
});

describe("TextClassificationModelLoader", () => {
  const config = { id2label: { "0": "low", "1": "square", "2": "count" } };
  const logitsOf = (words: string[]) => meanOf(words).map((value) => 0.1 * (words.length + 2) * value);
  const softmax = (logits: number[]) => {
    const powers = logits.map((value) => Math.exp(value));
    return powers.map((value) => value / powers.reduce((sum, power) => sum + power, 0));
  };
  const classify = async (loader: BaseModelLoader, ...requests: RequestDictionary[]) => {
    const outcomes = await loader.predictRequests(requests, noTime());
    return outcomes.map((outcome) => (outcome instanceof Error ? outcome : (outcome["Fs"] as Finding[])));
  };

  it("finds the labels of config.json, best first, and of several texts which text they are of", async () => {
    const file = await modelWith(transformer({ pooled: true }), { ...files, "config.json": config });
    const loader = await openLoader(TextClassificationModelLoader, [file]);
    const [low, square, count] = softmax(logitsOf(["good"]));
    const found = [
      { Cs: expect.closeTo(square!, 3), Lb: "square", Dm: {} },
      { Cs: expect.closeTo(low!, 3), Lb: "low", Dm: {} },
      { Cs: expect.closeTo(count!, 3), Lb: "count", Dm: {} },
    ];
    const answers = await classify(
      loader,
      { Text: "good", C_threshold: 0 },
      { Text: ["dull dull", "good"], C_threshold: 0.5 },
      { Text: 3 },
    );
    expect(answers[0]).toEqual(found);
    expect(answers[1]).toEqual([
      { Cs: expect.closeTo(softmax(logitsOf(["dull", "dull"]))[1]!, 3), Lb: "square", Dm: {}, Info: "0" },
      { ...found[0], Info: "1" },
    ]);
    expect((answers[2] as Error).message).toBe("Text must be a string, got 3");
    expect(loader.describe()).toMatchObject({ labels: ["low", "square", "count"], picture: "none" });
  });

  it("goes by the configuration where that says more", async () => {
    const file = await modelWith(transformer({ pooled: true }), { ...files, "config.json": config });
    const loader = await openLoader(TextClassificationModelLoader, [file], {
      class_names: ["a", "b", "c"],
      classes: ["c", 0],
      activation: "sigmoid",
      conf_thres: 0,
    });
    const [a, , c] = logitsOf(["good"]).map((value) => 1 / (1 + Math.exp(-value)));
    expect(await classify(loader, { Text: "good" })).toEqual([
      [
        { Cs: expect.closeTo(a!, 3), Lb: "a", Dm: {} },
        { Cs: expect.closeTo(c!, 3), Lb: "c", Dm: {} },
      ],
    ]);
  });

  it("keeps the classes that the configuration names, of labels in config.json", async () => {
    const file = await modelWith(transformer({ pooled: true }), { ...files, "config.json": config });
    const loader = await openLoader(TextClassificationModelLoader, [file], {
      classes: ["count"],
      conf_thres: 0,
    });
    expect(await classify(loader, { Text: "good" })).toEqual([[expect.objectContaining({ Lb: "count" })]]);
    await expect(openLoader(TextClassificationModelLoader, [file], { classes: ["conut"] })).rejects.toThrow(
      'models.Model.classes: "conut" is no label of the model; did you mean "count"?',
    );
  });

  it("reads what kind of scores they are from config.json, and refuses plain numbers", async () => {
    const open = async (problem_type: string) =>
      openLoader(TextClassificationModelLoader, [
        await modelWith(transformer({ pooled: true }), {
          ...files,
          "config.json": { ...config, problem_type },
        }),
      ]);
    const [scores] = await classify(await open("multi_label_classification"), { Text: "good" });
    expect((scores as Finding[])[0]!.Cs).toBeCloseTo(1 / (1 + Math.exp(-logitsOf(["good"])[1]!)), 3);
    await expect(open("regression")).rejects.toThrow('problem_type "regression"');
  });

  it("refuses a model that puts out no scores for a text, or not as many as there are labels", async () => {
    const tokens = await modelWith(transformer(), files);
    await expect(openLoader(TextClassificationModelLoader, [tokens])).rejects.toThrow(
      "TextClassificationModelLoader reads scores for a text, [N, labels], this model puts out last_hidden_state",
    );
    const file = await modelWith(transformer({ pooled: true }), files);
    const loader = await openLoader(TextClassificationModelLoader, [file], { class_names: ["a", "b"] });
    const [answer] = await classify(loader, { Text: "good" });
    expect((answer as Error).message).toBe(
      "the model's output has 3 scores, there are 2 labels; set class_names",
    );
  });
});
