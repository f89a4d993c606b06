/** How pixels become numbers, as the configuration says it; where it doesn't, the files beside the model, then the kind of model. */
import { z } from "zod";
import type { StatedPreprocessing } from "../../models/modelFacts.ts";
import type { NormalisationFormat } from "../pictures/OnnxPictureModelLoader.ts";
import type { DecodeOptions, Fit, PictureSize } from "../pictures/picture.ts";

const forEachChannel = z.union([z.tuple([z.number()]), z.tuple([z.number(), z.number(), z.number()])]);
const pixelValue = z.int().min(0).max(255);
const FITS = [
  "stretch",
  "crop",
  "letterbox",
  "letterbox-top-left",
  "cover",
  "inside",
] as const satisfies Fit[];
const INTERPOLATIONS = ["nearest", "bilinear", "bicubic", "lanczos"] as const;

/** The options of every loader that turns pictures into tensors. */
export const pictureOptions = {
  channels: z.enum(["rgb", "bgr"]).optional().meta({ description: "Order of the colour channels." }),
  scale: z
    .number()
    .positive()
    .optional()
    .meta({ description: "Pixel values (0..255) are multiplied by it; 1 leaves them as they are." }),
  mean: forEachChannel.optional().meta({
    description: "Subtracted from each channel after `scale`, in the order of `channels`.",
  }),
  std: forEachChannel.optional().meta({ description: "Each channel is divided by it, after `mean`." }),
  fit: z.enum(FITS).optional().meta({
    description:
      "How a picture fills the input: stretch (whatever its ratio), crop (covers the input ÷ crop_pct, centre cut out), cover (covers it, centre cut out), letterbox (fits inside, centred, padded), letterbox-top-left, inside (as it is, scaled down where it is larger).",
  }),
  crop_pct: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .meta({ description: "For `fit` crop: the part of the short side that is kept, 0..1." }),
  interpolation: z.enum(INTERPOLATIONS).optional().meta({ description: "How pictures are scaled." }),
  pad_color: z
    .union([pixelValue, z.tuple([pixelValue, pixelValue, pixelValue])])
    .optional()
    .meta({
      description:
        "Grey value (0..255) around a letterboxed picture, before `scale`, or a list of red, green and blue.",
    }),
  depth: z
    .union([z.enum(["high-byte", "stretch"]), z.tuple([z.number(), z.number()])])
    .optional()
    .meta({
      description:
        "How pixels of more than 8 bits become 8: high-byte, stretch (from the lowest to the highest value of the picture), or from [low, high] in units of the picture.",
    }),
  truncated: z.enum(["refuse", "allow"]).optional().meta({
    description: "What becomes of pictures that are cut short: allow fills the rest with grey and warns.",
  }),
};

const schema = z.object(pictureOptions);
export type PictureOptions = z.output<typeof schema>;

/** Everything that `PictureOptions` can say, said. */
export interface Preprocessing {
  format: NormalisationFormat;
  fit: Fit;
  decode: Partial<DecodeOptions>;
}

/** What a kind of model is fed where nothing else says it. */
export interface PreprocessingDefaults {
  channels?: "rgb" | "bgr";
  scale?: number;
  mean?: readonly number[];
  std?: readonly number[];
  fit: Fit;
  crop_pct?: number;
  interpolation?: (typeof INTERPOLATIONS)[number];
  pad_color?: number;
  size?: PictureSize;
  /** Longest side where the model takes any size and pictures keep theirs (`fit` inside). */
  maxSize?: number | undefined;
}

const KERNELS = { nearest: "nearest", bilinear: "linear", bicubic: "cubic", lanczos: "lanczos3" } as const;

/**
 * @param channels of the model's input: means and deviations of three colours don't fit grey
 */
export function resolvePreprocessing(
  options: PictureOptions,
  stated: StatedPreprocessing | undefined,
  defaults: PreprocessingDefaults,
  channels: 1 | 3,
): Preprocessing {
  const fitting = (numbers: readonly number[] | undefined) =>
    numbers && (numbers.length === channels || numbers.length === 1) ? spread(numbers, channels) : undefined;
  const given = (numbers: readonly number[] | undefined) => numbers && spread(numbers, channels);
  const mean = given(options.mean) ?? fitting(stated?.mean) ?? fitting(defaults.mean);
  const std = given(options.std) ?? fitting(stated?.std) ?? fitting(defaults.std);
  const scale = options.scale ?? stated?.scale ?? defaults.scale;
  const pad = options.pad_color ?? defaults.pad_color;
  const order = options.channels ?? defaults.channels;
  const interpolation = options.interpolation ?? stated?.interpolation ?? defaults.interpolation;
  const fraction = options.crop_pct ?? stated?.crop_pct ?? defaults.crop_pct;
  const crops = options.crop_pct !== undefined && options.fit === undefined;
  return {
    format: {
      ...(order && { channels: order }),
      ...(scale !== undefined && { scale }),
      ...(mean && { mean }),
      ...(std && { std }),
      ...(pad !== undefined && { pad }),
    },
    fit: options.fit ?? (crops ? "crop" : (stated?.fit ?? defaults.fit)),
    decode: {
      ...(fraction !== undefined && { cropFraction: fraction }),
      ...(interpolation && { kernel: KERNELS[interpolation] }),
      ...(options.depth && { depth: options.depth }),
      ...(options.truncated && { truncated: options.truncated }),
      ...(defaults.maxSize !== undefined &&
        (options.fit ?? "inside") === "inside" && {
          size: { width: defaults.maxSize, height: defaults.maxSize },
        }),
    },
  };
}

function spread(numbers: readonly number[], channels: 1 | 3): readonly number[] {
  return numbers.length === 1 && channels === 3 ? [numbers[0]!, numbers[0]!, numbers[0]!] : numbers;
}

export const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] } as const;
