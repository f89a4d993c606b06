/** Models that turn a picture into a vector, to compare it with others: CLIP's picture side, DINO, face descriptors. */
import { z } from "zod";
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  output: z.string().optional().meta({
    description: "Name of the output to read. Default: the only one, or one that is named after embeddings.",
  }),
  pooling: z.enum(["cls", "mean"]).optional().meta({
    description: "Of an output [N, tokens, D]: the first token, or the mean of all.",
  }),
  normalize: z.boolean().default(false).meta({ description: "Whether vectors are scaled to the length 1." }),
});

export class ImageEmbeddingModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    const { output: named, pooling } = this.#options;
    const found =
      named === undefined
        ? outputs.length === 1
          ? outputs[0]
          : outputs.find(({ name }) => /embed|pooler|feature/i.test(name))
        : outputs.find(({ name }) => name === named);
    const seen = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
    if (!found) throw new Error(`output must name the embedding, one of ${seen}`);
    const rank = found.shape.length - (this.pictureInput.batch === "none" ? 0 : 1);
    if (rank === 2 && pooling === undefined) {
      throw new Error(
        `the output "${found.name}" [${found.shape.join(", ")}] has a vector for each token; set pooling to "cls" or "mean", or output to another of ${seen}`,
      );
    }
    this.readScales([found]);
    this.needScales([found]);
    this.#output = found.name;
    return [found.name];
  }

  protected override preprocessingDefaults({ channels }: PictureInput): PreprocessingDefaults {
    return { ...(channels === 3 && IMAGENET), fit: "stretch" };
  }

  protected override interpret(row: OutputRow): Interpretation {
    const { data, dims } = row[this.#output]!;
    const tokens = dims.filter((dim) => dim !== 1);
    let vector = Array.from(data);
    if (tokens.length === 2) {
      const [count, size] = tokens as [number, number];
      vector =
        this.#options.pooling === "cls"
          ? vector.slice(0, size)
          : Array.from({ length: size }, (_, at) => {
              let sum = 0;
              for (let token = 0; token < count; token++) sum += data[token * size + at]!;
              return sum / count;
            });
    }
    const bad = vector.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      throw new ImplausibleOutputError(
        `the output "${this.#output}" has ${vector[bad]} as number ${bad} of the vector; look at scale, mean and std (what the model gets)`,
      );
    }
    if (this.#options.normalize) {
      const length = Math.hypot(...vector);
      if (length > 0) vector = vector.map((value) => value / length);
    }
    return {
      findings: [{ Cs: 1, Lb: "embedding", Dm: {}, Vector: vector }],
      keys: { outputs: [{ name: "embedding", datatype: "FP32", shape: [1, vector.length], data: vector }] },
    };
  }

  override describe(): LoaderDescription {
    return { ...super.describe(), embeds: "picture" };
  }
}
