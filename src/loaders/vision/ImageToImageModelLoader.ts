/** Models that put out a picture: super-resolution, denoising, style. It comes as the attached output `image`, a PNG. */
import { z } from "zod";
import type { TensorDescription } from "../../core/description.ts";
import { ImplausibleOutputError } from "../../errors.ts";
import type { Interpretation, OutputRow, PictureInput } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodedPicture } from "../pictures/picture.ts";
import { readField, toPng } from "./fields.ts";
import type { PreprocessingDefaults } from "./pictureOptions.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  output: z.string().optional().meta({ description: "Name of the output to read. Default: the first." }),
  output_range: z.tuple([z.number(), z.number()]).optional().meta({
    description:
      "The numbers that black and white have in the output. Default: those that they have in the input (0 and 1 where it is ÷ 255).",
  }),
  max_size: z.int().min(1).default(2048).meta({
    description:
      "Longest side in pixels of what the model gets where it takes any size: larger pictures are scaled down.",
  }),
});

export class ImageToImageModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  #output = "";

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    this.#output = this.chooseMap(
      outputs,
      this.#options.output,
      "[N, 3, height, width], [N, height, width, 3] or one of them with 1 channel",
    );
    return [this.#output];
  }

  protected override preprocessingDefaults({ width, height }: PictureInput): PreprocessingDefaults {
    const takesAnySize =
      width === undefined && height === undefined && this.settings.input_image_size === undefined;
    return takesAnySize ? { fit: "inside", maxSize: this.#options.max_size } : { fit: "stretch" };
  }

  protected override async interpret(row: OutputRow, picture: DecodedPicture): Promise<Interpretation> {
    const output = row[this.#output]!;
    const { dims } = output;
    const isLast = [1, 3].includes(dims.at(-1)!) && ![1, 3].includes(dims.at(-3)!);
    const field = readField(output, isLast ? dims.at(-1) : dims.at(-3));
    if (!field || (field.planes !== 1 && field.planes !== 3)) {
      throw new ImplausibleOutputError(
        `the output "${this.#output}" has the shape [${dims.join(", ")}], which is no picture; look at output`,
      );
    }
    const { data, planes, width, height, step, stride } = field;
    const pixels = new Uint8Array(width * height * planes);
    for (let plane = 0; plane < planes; plane++) {
      const [black, white] = this.#rangeOf(plane, output.data);
      // The input's order of channels is the output's, too; a PNG's is RGB.
      const channel = this.prepared.format.channels === "bgr" && planes === 3 ? 2 - plane : plane;
      for (let at = 0; at < width * height; at++) {
        const value = data[plane * stride + at * step]!;
        if (!Number.isFinite(value)) {
          throw new ImplausibleOutputError(
            `the output "${this.#output}" has ${value} as a pixel; look at scale, mean and std (what the model gets)`,
          );
        }
        const grey = ((value - black) / (white - black)) * 255;
        pixels[at * planes + channel] = grey <= 0 ? 0 : grey >= 255 ? 255 : Math.round(grey);
      }
    }
    const size = this.#visiblePart(picture, { width, height });
    const part = size ? cut(pixels, width, planes, size) : pixels;
    return { findings: [], outputs: [await toPng("image", part, size ?? { width, height }, planes)] };
  }

  #rangeOf(channel: number, data: ArrayLike<number>): readonly [black: number, white: number] {
    if (this.#options.output_range) return this.#options.output_range;
    if (data instanceof Uint8Array) return [0, 255];
    const { scale = 1 / 255, mean, std } = this.prepared.format;
    const numberOf = (pixel: number) => (pixel * scale - (mean?.[channel] ?? 0)) / (std?.[channel] ?? 1);
    return [numberOf(0), numberOf(255)];
  }

  /** Where the picture lies in the output, if it doesn't fill it (letterbox). */
  #visiblePart(
    { canvas, placement, width, height }: DecodedPicture,
    output: { width: number; height: number },
  ): Part | undefined {
    if (width === canvas.width && height === canvas.height) return undefined;
    const [x, y] = [output.width / canvas.width, output.height / canvas.height];
    return {
      left: Math.round(Math.max(0, placement.left) * x),
      top: Math.round(Math.max(0, placement.top) * y),
      width: Math.max(1, Math.round(width * x)),
      height: Math.max(1, Math.round(height * y)),
    };
  }
}

interface Part {
  left: number;
  top: number;
  width: number;
  height: number;
}

function cut(pixels: Uint8Array, width: number, channels: number, part: Part): Uint8Array {
  const rows = new Uint8Array(part.width * part.height * channels);
  for (let row = 0; row < part.height; row++) {
    const from = ((part.top + row) * width + part.left) * channels;
    rows.set(pixels.subarray(from, from + part.width * channels), row * part.width * channels);
  }
  return rows;
}
