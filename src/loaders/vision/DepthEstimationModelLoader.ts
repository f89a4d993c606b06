/**
 * Depth estimation: how far away each place of the picture is, in the model's own numbers. The attached output `depth`
 * is a PNG of 16-bit grey values from the lowest number (0) to the highest (65535); `Depth` in the response has both.
 */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { readField, resample, sizeFor, toPng } from "./fields.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  output: z.string().optional().meta({ description: "Name of the output to read. Default: the first." }),
});

export class DepthEstimationModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    this.#output = this.chooseMap(
      outputs,
      this.#options.output,
      "[N, height, width] or [N, 1, height, width]",
      // Of four dimensions, one is the only channel.
      ({ shape }) => shape.length !== 4 || typeof shape[1] !== "number" || shape[1] <= 1 || shape[3] === 1,
    );
    return [this.#output];
  }

  protected override preprocessingDefaults({ channels }: PictureInput): PreprocessingDefaults {
    return { ...(channels === 3 && IMAGENET), fit: "stretch", interpolation: "bicubic" };
  }

  protected override async interpret(row: OutputRow, picture: DecodedPicture): Promise<Interpretation> {
    const output = row[this.#output]!;
    const field = readField(output, 1);
    if (field?.planes !== 1) {
      throw new ImplausibleOutputError(
        `the output "${this.#output}" has the shape [${output.dims.join(", ")}], which is no map of depths; look at output`,
      );
    }
    const size = sizeFor(picture);
    const values = resample(field, 0, picture, size);
    let [lowest, highest] = [Infinity, -Infinity];
    for (const value of values) {
      if (!Number.isFinite(value)) {
        throw new ImplausibleOutputError(
          `the output "${this.#output}" has ${value} as a depth; look at scale, mean and std (what the model gets)`,
        );
      }
      if (value < lowest) lowest = value;
      if (value > highest) highest = value;
    }
    const range = highest - lowest || 1;
    const grey = Uint16Array.from(values, (value) => Math.round(((value - lowest) / range) * 65535));
    return {
      findings: [],
      keys: { Depth: { Min: lowest, Max: highest } },
      outputs: [await toPng("depth", grey, size)],
    };
  }
}
