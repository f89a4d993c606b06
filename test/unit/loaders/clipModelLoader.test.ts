import path from "node:path";
import sharp from "sharp";
import { beforeAll, describe, expect, it, type TestContext } from "vitest";
import {
  attachPictures,
  ClipModelLoader,
  readClipTokenizer,
  readPrompts,
  type Finding,
  type OutputRow,
  type PredictionRequest,
} from "../../../src/index.ts";
import { RecentlyUsed } from "../../../src/loaders/vision/recentlyUsed.ts";
import { node, valueInfo, type OnnxModel } from "../../../src/models/onnxProto.ts";
import {
  CONTEXT,
  END,
  idsOf,
  imageBias,
  imageEncoder,
  imageWeights,
  LENGTH,
  MEAN,
  placeWeights,
  seeded,
  START,
  STD,
  textEncoder,
  tokenTable,
  uselessMerges,
} from "../../support/clip.ts";
import {
  modelFile,
  noTime,
  openLoader,
  predictBatch,
  predictOne,
  temporaryFile,
  watchRuns,
} from "../../support/loaders.ts";
import { noSharedModels, sharedModels } from "../../support/sharedModels.ts";

// What a request must come to, computed the plain way.

function embedText(ids: number[], withMask = false): number[] {
  const padded = [...ids, ...Array<number>(CONTEXT - ids.length).fill(0)];
  return Array.from({ length: LENGTH }, (_, at) =>
    padded.reduce(
      (sum, id, place) =>
        sum + (withMask && place >= ids.length ? 0 : tokenTable[id * LENGTH + at]! * placeWeights[place]!),
      0,
    ),
  );
}

function embedColour(rgb: number[]): number[] {
  return Array.from({ length: LENGTH }, (_, at) =>
    rgb.reduce(
      (sum, value, channel) =>
        sum + ((value / 255 - MEAN[channel]!) / STD[channel]!) * imageWeights[channel * LENGTH + at]!,
      imageBias[at]!,
    ),
  );
}

function scoresOf(rgb: number[], prompts: string[], withMask = false): number[] {
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, at) => sum + value * b[at]!, 0);
  const cosine = (a: number[], b: number[]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const image = embedColour(rgb);
  const powers = prompts.map((prompt) => Math.exp(100 * cosine(image, embedText(idsOf(prompt), withMask))));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

const COLOURS = [
  [200, 30, 60],
  [10, 120, 250],
  [240, 240, 20],
  [0, 0, 0],
];
const PROMPTS = ["a red hat", "the sea", "yellow", "night"];
let pictures: Buffer[];
let merges: string;
beforeAll(async () => {
  pictures = await Promise.all(
    COLOURS.map(([r, g, b]) =>
      sharp({ create: { width: 60, height: 40, channels: 3, background: { r: r!, g: g!, b: b! } } })
        .png()
        .toBuffer(),
    ),
  );
  merges = await temporaryFile("txt", uselessMerges);
});

async function open(settings = {}, image = imageEncoder(), text = textEncoder()) {
  return openLoader(ClipModelLoader, [await modelFile(image), await modelFile(text), merges], settings);
}

function expectScores(findings: Finding[] | Error | undefined, prompts: string[], scores: number[]) {
  if (findings instanceof Error) throw findings;
  expect(findings!.map(({ Lb }) => Lb)).toEqual(prompts);
  for (const [at, { Cs, Dm }] of findings!.entries()) {
    expect(Dm).toEqual({});
    expect(Cs, "4 places").toBe(Math.round(Cs * 1e4) / 1e4);
    expect(Math.abs(Cs - scores[at]!), `${prompts[at]}: ${Cs} against ${scores[at]}`).toBeLessThan(2e-4);
  }
}

describe("CLIP: the softmax of 100 × cosine over the prompts", () => {
  it("gives a finding for each prompt at or above the threshold, in their order", async () => {
    const loader = await open();
    for (const [index, colour] of COLOURS.entries()) {
      const scores = scoresOf(colour, PROMPTS);
      expect(Math.max(...scores), "no score decides alone").toBeLessThan(0.95);
      const all = await predictOne(loader, pictures[index]!, { Prompt: [PROMPTS], C_threshold: 0 });
      expectScores(all, PROMPTS, scores);
      const middle = (scores.toSorted((a, b) => a - b)[1]! + scores.toSorted((a, b) => a - b)[2]!) / 2;
      const best = await predictOne(loader, pictures[index]!, { Prompt: [PROMPTS], C_threshold: middle });
      expect(best).toEqual(all.filter(({ Cs }) => Cs >= middle));
      expect(best).toHaveLength(2);
    }
    const one = await predictOne(loader, pictures[0]!, { Prompt: [["alone"]] });
    expect(one).toEqual([{ Cs: 1, Lb: "alone", Dm: {} }]);
    expect(loader.describe()).toMatchObject({ labels: [], picture: "required" });
  });

  it("has conf_thres 0.5 where the request has no C_threshold", async () => {
    const request = { Prompt: [PROMPTS] };
    const scores = scoresOf(COLOURS[0]!, PROMPTS);
    for (const conf_thres of [undefined, 0.1, 0.3]) {
      const found = await predictOne(await open({ conf_thres }), pictures[0]!, request);
      expect(found.map(({ Lb }) => Lb)).toEqual(
        PROMPTS.filter((_, at) => scores[at]! >= (conf_thres ?? 0.5)),
      );
    }
  });

  it("takes a list of texts, and JSON in a string, as it takes IMIL's list of lists", async () => {
    const loader = await open();
    const keys = { C_threshold: 0 };
    const expected = await predictOne(loader, pictures[0]!, { ...keys, Prompt: [PROMPTS, ["not used"]] });
    for (const Prompt of [PROMPTS, JSON.stringify(PROMPTS), JSON.stringify([PROMPTS])])
      expect(await predictOne(loader, pictures[0]!, { ...keys, Prompt })).toEqual(expected);
  });

  it.each([
    ["int32 tokens", { type: "int32" as const }],
    ["an attention mask", { withMask: true }],
  ])("runs a text encoder with %s", async (_, kind) => {
    const loader = await open({}, imageEncoder(), textEncoder("batch", kind));
    const found = await predictOne(loader, pictures[1]!, { Prompt: [PROMPTS], C_threshold: 0 });
    expectScores(found, PROMPTS, scoresOf(COLOURS[1]!, PROMPTS, "withMask" in kind));
  });
});

describe("a batch", () => {
  const lists = [PROMPTS, ["the sea", "a boat"], ["one", "two", "three"], PROMPTS];

  it("means what each of its requests means alone, for encoders of any batch and of a fixed one", async () => {
    for (const [image, text] of [
      [undefined, undefined],
      [imageEncoder([3, 3, 16, 16]), textEncoder(4)],
      [imageEncoder([1, 3, 16, 16]), textEncoder(1)],
    ]) {
      const loader = await open({}, image, text);
      const found = await predictBatch(
        loader,
        lists.map((prompts, index) => [pictures[index]!, { Prompt: [prompts], C_threshold: "0" }]),
      );
      for (const [index, prompts] of lists.entries())
        expectScores(found[index], prompts, scoresOf(COLOURS[index]!, prompts));
    }
  });

  it("encodes the texts of all its requests together, each once, and none that it knows already", async () => {
    const loader = await open();
    const runs = watchRuns("input_ids");
    const batch = () =>
      predictBatch(
        loader,
        lists.map((prompts, index) => [pictures[index]!, { Prompt: [prompts] }]),
      );
    const first = await batch();
    expect(runs).toEqual([new Set(lists.flat()).size]);
    expect(await batch()).toEqual(first);
    await predictOne(loader, pictures[0]!, { Prompt: [["a boat", "a ship"]] });
    expect(runs).toEqual([8, 1]);
  });

  it("fails its faulty requests alone", async () => {
    const loader = await open();
    const long = "abcdefghij ".repeat(8).trim();
    const requests: [Buffer, PredictionRequest][] = [
      [pictures[0]!, { Prompt: [PROMPTS], C_threshold: 0 }],
      [pictures[1]!, {}],
      [pictures[1]!, { Prompt: [[]] }],
      [pictures[1]!, { Prompt: [["fire", 7]] }],
      [pictures[1]!, { Prompt: ["fire", " "] }],
      [pictures[1]!, { Prompt: [["fire", long]] }],
      [pictures[1]!, { Prompt: "[oops" }],
      [pictures[1]!, { Prompt: [Array(1001).fill("x")] }],
      [Buffer.from("nothing"), { Prompt: [PROMPTS] }],
      [pictures[1]!, { Prompt: [PROMPTS], C_threshold: "high" }],
      [pictures[2]!, { Prompt: [PROMPTS], C_threshold: 0 }],
    ];
    const outcomes = await predictBatch(loader, requests);
    expectScores(outcomes[0], PROMPTS, scoresOf(COLOURS[0]!, PROMPTS));
    expectScores(outcomes.at(-1), PROMPTS, scoresOf(COLOURS[2]!, PROMPTS));
    const messages = outcomes.slice(1, -1).map((outcome) => (outcome as Error).message);
    expect(messages).toEqual([
      'Prompt must hold the list of texts to choose from, such as [["a cat", "a dog"]], got none',
      'Prompt must hold the list of texts to choose from, such as [["a cat", "a dog"]], got [[]]',
      "Prompt[0][1] must be a text, got 7",
      'Prompt[1] must be a text, got " "',
      `Prompt must hold texts of at most 77 tokens, start and end among them, got 82: "${long.slice(0, 60)}…"`,
      expect.stringMatching(/^Prompt begins like a JSON list but is none: /),
      "Prompt must hold at most 1000 texts, got 1001",
      expect.stringContaining("must be a JPEG, PNG, WebP"),
      'C_threshold must be a number from 0 to 1 (or one in a string), got "high"',
    ]);
    expect(outcomes.slice(1, -1).map((error) => (error as Error).name)).toEqual(
      messages.map(() => "BadInputError"),
    );
  });

  it("may overlap the next one", async () => {
    const loader = await open();
    expect(loader.overlaps).toBe(true);
    const answers = await Promise.all(
      lists.map((prompts, index) =>
        predictOne(loader, pictures[index]!, { Prompt: [prompts], C_threshold: 0 }),
      ),
    );
    for (const [index, prompts] of lists.entries())
      expectScores(answers[index], prompts, scoresOf(COLOURS[index]!, prompts));
  });

  it("asks the same prompts of several pictures of one request", async () => {
    const loader = await open();
    const [response] = await loader.predictRequests(
      [attachPictures({ Prompt: [PROMPTS], C_threshold: 0 }, [pictures[0]!, pictures[3]!])],
      noTime(),
    );
    if (response instanceof Error) throw response;
    for (const [picture, colour] of [COLOURS[0]!, COLOURS[3]!].entries()) {
      const own = response!.Fs.filter(({ Info }) => Info === String(picture));
      expectScores(own, PROMPTS, scoresOf(colour, PROMPTS));
    }
  });
});

describe("what is kept of texts", () => {
  it("is bounded: the one that was not used for the longest time goes first", () => {
    const kept = new RecentlyUsed<string, number>(3);
    for (const [index, text] of ["a", "b", "c"].entries()) kept.set(text, index);
    kept.get("a");
    kept.set("d", 3);
    expect(["a", "b", "c", "d"].map((text) => kept.get(text))).toEqual([0, undefined, 2, 3]);
    kept.set("c", 5);
    kept.set("e", 4);
    expect(["a", "b", "c", "d", "e"].map((text) => kept.get(text))).toEqual([undefined, undefined, 5, 3, 4]);
    expect(kept.size).toBe(3);
  });
});

describe("CLIP's preprocessing", () => {
  class RecordingModelLoader extends ClipModelLoader {
    readonly rows: Float32Array[] = [];
    override async postprocessing(row: OutputRow): Promise<Finding[]> {
      this.rows.push(Float32Array.from(row["pixels"]!.data));
      return [];
    }
  }

  it.each([
    [70, 48, 0.75],
    [48, 113, 0.75],
    // libvips averages pixels first where it shrinks by a lot.
    [260, 200, 2.5],
  ])(
    "of a picture of %i×%i is bicubic on the shorter side, the centre, CLIP's mean and std",
    async (width, height, average) => {
      const side = 24;
      const random = seeded(width);
      const pixels = Uint8Array.from({ length: width * height * 3 }, (_, at) => {
        const [x, y] = [Math.floor(at / 3) % width, Math.floor(at / 3 / width)];
        return Math.max(
          0,
          Math.min(255, 127 + 90 * Math.sin(x / 4 + (at % 3)) * Math.cos(y / 5) + 60 * (random() - 0.5)),
        );
      });
      const picture = await sharp(pixels, { raw: { width, height, channels: 3 } })
        .png()
        .toBuffer();
      const encoder: OnnxModel = {
        opset: 13,
        name: "pixels",
        inputs: [valueInfo("pixel_values", "float32", ["batch", 3, side, side])],
        outputs: [valueInfo("pixels", "float32", ["batch", 3 * side * side])],
        nodes: [node("Flatten", ["pixel_values"], ["pixels"], { axis: 1 })],
        initializers: [],
      };
      const files = [await modelFile(encoder), await modelFile(textEncoder()), merges];
      const loader = await openLoader(RecordingModelLoader, files);
      loader.rows.length = 0;
      await predictOne(loader, picture, { Prompt: [["x"]] });

      const expected = preprocessPlainly(pixels, width, height, side);
      const off = expected.map((value, at) => Math.abs(value - loader.rows[0]![at]!) * 255 * STD[0]!);
      expect(Math.max(...off), "grey levels of 255, at worst").toBeLessThan(6);
      expect(off.reduce((a, b) => a + b) / off.length, "on average").toBeLessThan(average);
    },
  );
});

/**
 * As torchvision's Resize (PIL, bicubic with a = -0.5, widened by the scale where it shrinks), CenterCrop, ToTensor and
 * Normalize do it; one number for each channel, row and column.
 */
function preprocessPlainly(pixels: Uint8Array, width: number, height: number, side: number): number[] {
  const scale = Math.min(width, height) / side;
  const [newWidth, newHeight] = [Math.trunc(width / scale), Math.trunc(height / scale)];
  const across = resample((x, y, c) => pixels[(y * width + x) * 3 + c]!, width, newWidth);
  const down = resample((y, x, c) => across(x, y, c), height, newHeight);
  const [left, top] = [roundAsPython((newWidth - side) / 2), roundAsPython((newHeight - side) / 2)];
  return [0, 1, 2].flatMap((c) =>
    Array.from({ length: side * side }, (_, at) => {
      const value = down(top + Math.floor(at / side), left + (at % side), c);
      return (Math.max(0, Math.min(255, Math.round(value))) / 255 - MEAN[c]!) / STD[c]!;
    }),
  );
}

const roundAsPython = (value: number) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

type Sampler = (along: number, other: number, channel: number) => number;

function resample(read: Sampler, size: number, newSize: number): Sampler {
  const scale = size / newSize;
  const widened = Math.max(1, scale);
  const known = new Map<string, number>();
  return (at, other, channel) => {
    const key = `${at},${other},${channel}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const centre = (at + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - 2 * widened + 0.5));
    const last = Math.min(size, Math.floor(centre + 2 * widened + 0.5));
    let [sum, weights] = [0, 0];
    for (let from = first; from < last; from++) {
      const weight = bicubic((from - centre + 0.5) / widened);
      sum += weight * read(from, other, channel);
      weights += weight;
    }
    known.set(key, sum / weights);
    return sum / weights;
  };
}

function bicubic(distance: number): number {
  const x = Math.abs(distance);
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

describe("CLIP's tokens", () => {
  const published = (context: TestContext) => {
    if (!sharedModels) context.skip(noSharedModels);
    return readClipTokenizer(path.join(sharedModels, "clip_tokenizer/bpe_simple_vocab_16e6.txt.gz"));
  };

  // From OpenAI's simple_tokenizer.py, run once with ftfy 6 on these texts.
  it.for<[string, number[]]>([
    ["a photo of a cat", [320, 1125, 539, 320, 2368]],
    ["a diagram", [320, 22_697]],
    ["hello world!", [3306, 1002, 256]],
    ["  HELLO\n\tworld! ", [3306, 1002, 256]],
    ["", []],
    ["don't!!! ...'s", [847, 713, 995, 23_167, 338]],
    [
      "It's 2024, isn't   it? 🙂 naïve café 日本語",
      [
        585, 568, 273, 271, 273, 275, 267, 2923, 713, 585, 286, 14_860, 1097, 35_689, 563, 15_304, 39_121,
        44_353, 34_002, 508,
      ],
    ],
  ])("of %j are those of the published vocabulary", async ([text, ids], context) => {
    const tokenise = await published(context);
    expect(tokenise(text)).toEqual([START, ...ids, END]);
  });

  it("of letters without merges are single bytes", async () => {
    const tokenise = await readClipTokenizer(merges);
    expect(tokenise("the sea")).toEqual(idsOf("the sea"));
  });

  it("come from Hugging Face's tokenizer.json, too", async () => {
    const vocab = Object.fromEntries(
      ["c", "a", "t", "c</w>", "a</w>", "t</w>", "at</w>", "cat</w>", "<|startoftext|>", "<|endoftext|>"].map(
        (token, id) => [token, id],
      ),
    );
    const file = await temporaryFile(
      "json",
      JSON.stringify({
        added_tokens: [
          { id: 8, content: "<|startoftext|>", special: true },
          { id: 9, content: "<|endoftext|>", special: true },
        ],
        normalizer: { type: "Lowercase" },
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
        post_processor: { type: "RobertaProcessing", cls: ["<|startoftext|>", 8], sep: ["<|endoftext|>", 9] },
        decoder: null,
        model: {
          type: "BPE",
          unk_token: "<|endoftext|>",
          end_of_word_suffix: "</w>",
          vocab,
          merges: ["a t</w>", "c at</w>"],
        },
      }),
    );
    const tokenise = await readClipTokenizer(file);
    expect(tokenise("Cat")).toEqual([8, 7, 9]);
    expect(tokenise("act")).toEqual([8, 1, 0, 5, 9]);
  });

  it("come from nothing else", async () => {
    const other = await temporaryFile("txt", "a list of\nanything");
    await expect(readClipTokenizer(other)).rejects.toThrow(
      /must be Hugging Face's tokenizer\.json or OpenAI's bpe_simple_vocab_16e6\.txt\.gz, .* it begins with "a list of\\nanything"/,
    );
    const bert = await temporaryFile(
      "json",
      JSON.stringify({
        added_tokens: [],
        normalizer: null,
        pre_tokenizer: null,
        post_processor: null,
        decoder: null,
        model: { type: "BPE", vocab: { a: 0 }, merges: [] },
      }),
    );
    await expect(readClipTokenizer(bert)).rejects.toThrow(
      "must be a tokenizer of CLIP, whose texts begin with <|startoftext|> and end with <|endoftext|>; this one makes [] of an empty text",
    );
  });
});

describe("models that are no CLIP", () => {
  it("are refused with what was expected and what they are", async () => {
    const [image, text] = [await modelFile(imageEncoder()), await modelFile(textEncoder())];
    await expect(openLoader(ClipModelLoader, [image])).rejects.toThrow(
      "models.Model.model_path must name three files, the image encoder (.onnx), the text encoder (.onnx) and the vocabulary " +
        "(tokenizer.json or bpe_simple_vocab_16e6.txt.gz), got 1",
    );
    await expect(openLoader(ClipModelLoader, [image, image, merges])).rejects.toThrow(
      /models\.Model\.model_path: the text encoder must take token ids, int64 or int32 \[N, 77\], .* this one takes pixel_values: float32/,
    );
    await expect(openLoader(ClipModelLoader, [text, text, merges])).rejects.toThrow(
      "OnnxPictureModelLoader runs models with a picture input",
    );
    const withoutProjection = textEncoder();
    withoutProjection.outputs = [valueInfo("weighted", "float32", ["batch", 77, LENGTH])];
    await expect(
      openLoader(ClipModelLoader, [image, await modelFile(withoutProjection), merges]),
    ).rejects.toThrow(
      /the text encoder must put out text_embeds \[N, numbers\], this one has weighted \[.*\]; export it with its projection/,
    );
  });

  it("that don't belong together are found out at start", async () => {
    const other = imageEncoder();
    other.nodes = [node("Identity", ["means"], ["image_embeds"]), ...other.nodes.slice(0, 2)].toReversed();
    other.outputs = [valueInfo("image_embeds", "float32", ["batch", 3])];
    const files = [await modelFile(other), await modelFile(textEncoder()), merges];
    await expect(openLoader(ClipModelLoader, files)).rejects.toThrow(
      "the image encoder makes vectors of 3 numbers, the text encoder of 8: they must belong to one CLIP",
    );
  });
});

describe("the prompts of a request", () => {
  it("are the first list of Prompt", () => {
    expect(readPrompts({ Prompt: [["fire", "smoke"], ["other"]] })).toEqual(["fire", "smoke"]);
    expect(readPrompts({ Prompt: ["fire", "smoke"] })).toEqual(["fire", "smoke"]);
    expect(readPrompts({ Prompt: "fire" })).toEqual(["fire"]);
    for (const Prompt of [undefined, null, "", [], [[]]])
      expect(() => readPrompts({ Prompt })).toThrow("Prompt must hold the list of texts to choose from");
  });
});
