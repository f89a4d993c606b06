/** CLIP, written from scratch on the base class: one picture and a list of texts in, the texts that fit out. */
import {
  BadInputError,
  BaseModelLoader,
  buildResponse,
  createTensorWriter,
  decodePicture,
  picturesOf,
  readClipTokenizer,
  readPrompts,
  softmax,
  writeTensor,
  type ClipTokenizer,
  type Finding,
  type LoaderConfig,
  type LoaderDescription,
  type PredictionRequest,
  type PredictionResponse,
} from "infermill";
import { InferenceSession, Tensor } from "onnxruntime-node";

/** Width and height in pixels of what each CLIP sees. */
const SIDES: Readonly<Record<string, number>> = {
  "ViT-B/32": 224,
  "ViT-B/16": 224,
  "ViT-L/14": 224,
  "ViT-L/14@336px": 336,
};
/** Tokens that CLIP's text encoder takes: start, text, end, zeros. */
const CONTEXT_LENGTH = 77;

/** RGB 0..255 → what CLIP was trained on. */
const writer = createTensorWriter(
  {
    layout: "nchw",
    channels: "rgb",
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
  },
  "float32",
);

export class CustomClipModelLoader extends BaseModelLoader {
  readonly #side: number;
  #imageEncoder!: InferenceSession;
  #textEncoder!: InferenceSession;
  #tokenise!: ClipTokenizer;

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    const name = config[modelName]?.["clip_model"] ?? "ViT-B/32";
    const side = SIDES[name as string];
    if (side === undefined) {
      throw new Error(
        `clip_model must be one of ${Object.keys(SIDES).join(", ")}, got ${JSON.stringify(name)}`,
      );
    }
    this.#side = side;
  }

  override async load(): Promise<void> {
    const [image, text, vocabulary] = this.settings.model_path;
    if (!image || !text || !vocabulary)
      throw new Error("model_path must name the image encoder, the text encoder and the vocabulary");
    const [name, number = "0"] = this.settings.device.split(":");
    const options: InferenceSession.SessionOptions = {
      executionProviders: [name === "cuda" ? { name, deviceId: Number(number) } : name!],
      intraOpNumThreads: this.settings.intra_op_threads,
    };
    this.#imageEncoder = await InferenceSession.create(image, options);
    this.#textEncoder = await InferenceSession.create(text, options);
    this.#tokenise = await readClipTokenizer(vocabulary);
  }

  /** The picture as the tensor that the image encoder takes, [1, 3, side, side]. */
  override async preprocessing(image: Buffer): Promise<Tensor> {
    const side = this.#side;
    const picture = await decodePicture(image, {
      size: { width: side, height: side },
      fit: "cover",
      kernel: "cubic",
      maxPixels: this.settings.max_picture_pixels,
    });
    const numbers = new Float32Array(3 * side * side);
    writeTensor(picture, writer, numbers, 0);
    return new Tensor("float32", numbers, [1, 3, side, side]);
  }

  /** A finding for each text whose score (0..1, 1 in all) is at or above the threshold. */
  override async predict(
    image: Buffer,
    prompt: readonly string[],
    confidenceThreshold = 0.5,
  ): Promise<Finding[]> {
    const pixels = await this.preprocessing(image);
    const { image_embeds: picture } = await this.#imageEncoder.run({ pixel_values: pixels });
    const { text_embeds: texts } = await this.#textEncoder.run({ input_ids: this.#toTokens(prompt) });

    const pictureVector = picture!.data as Float32Array;
    const textVectors = texts!.data as Float32Array;
    const { length } = pictureVector;
    const scores = softmax(
      prompt.map(
        (_, index) => 100 * cosine(pictureVector, textVectors.subarray(index * length, (index + 1) * length)),
      ),
    );
    return prompt
      .map((text, index) => ({ Cs: Math.round(scores[index]! * 1e4) / 1e4, Lb: text, Dm: {} }))
      .filter(({ Cs }) => Cs >= confidenceThreshold);
  }

  #toTokens(prompt: readonly string[]): Tensor {
    const ids = new BigInt64Array(prompt.length * CONTEXT_LENGTH);
    for (const [row, text] of prompt.entries()) {
      const own = this.#tokenise(text);
      if (own.length > CONTEXT_LENGTH)
        throw new BadInputError(`a prompt is longer than ${CONTEXT_LENGTH} tokens: "${text}"`);
      ids.set(own.map(BigInt), row * CONTEXT_LENGTH);
    }
    return new Tensor("int64", ids, [prompt.length, CONTEXT_LENGTH]);
  }

  /** The main driver: request dictionary in, response dictionary out. */
  override async predictRequest(request: PredictionRequest): Promise<PredictionResponse> {
    const startedAt = new Date();
    const [image, ...others] = picturesOf(request);
    if (!image || others.length > 0)
      throw new BadInputError(`Base_64 must hold one picture, got ${image ? others.length + 1 : "none"}`);
    const findings = await this.predict(image, readPrompts(request), this.confidenceThreshold(request));
    return buildResponse(request, findings, { model: this.modelName, startedAt });
  }

  override describe(): LoaderDescription {
    return { labels: [], picture: "required", requiredKeys: ["Prompt"] };
  }

  override async close(): Promise<void> {
    await Promise.all([this.#imageEncoder.release(), this.#textEncoder.release()]);
  }
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, at) => sum + value * y[at]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
