/** Tells which colours of a palette a picture consists of: a finding for each, with its share of the pixels. */
import {
  BadInputError,
  BaseModelLoader,
  decodePicture,
  type BatchTrace,
  type Finding,
  type LoaderConfig,
  type LoaderDescription,
  type Outcome,
  type PredictionRequest,
} from "infermill";
import { z } from "zod";

const options = z.object({
  palette: z
    .record(z.string(), z.string().regex(/^#[0-9a-f]{6}$/i, { error: 'must be a colour such as "#c8102e"' }))
    .default({ black: "#000000", grey: "#808080", white: "#ffffff" })
    .meta({ description: "Colours to look for, by name." }),
  side: z
    .int()
    .min(1)
    .max(1024)
    .default(64)
    .meta({ description: "Pixels along each side to which pictures are scaled down." }),
});

export class DominantColourModelLoader extends BaseModelLoader {
  static readonly options = options;
  readonly #palette: ReadonlyMap<string, readonly number[]>;
  readonly #side: number;

  constructor(config: LoaderConfig, modelName: string) {
    super(config, modelName);
    const { palette, side } = options.parse(this.settings);
    this.#palette = new Map(Object.entries(palette).map(([name, colour]) => [name, toRgb(colour)]));
    this.#side = side;
  }

  override async predict(picture: Buffer, threshold: number, request: PredictionRequest): Promise<Finding[]> {
    const palette = this.#wantedColours(request);
    const { pixels } = await decodePicture(picture, {
      size: { width: this.#side, height: this.#side },
      fit: "stretch",
      maxPixels: this.settings.max_picture_pixels,
    });
    return [...measureShares(pixels, palette)]
      .filter(([, share]) => share >= threshold)
      .toSorted(([, a], [, b]) => b - a)
      .map(([name, share]) => ({ Cs: Math.round(share * 100) / 100, Lb: name, Dm: {} }));
  }

  /** A request may name the colours that matter to it, in a key of this loader's own. */
  #wantedColours(request: PredictionRequest): ReadonlyMap<string, readonly number[]> {
    const names = request["Colours"];
    if (names === undefined) return this.#palette;
    if (!Array.isArray(names) || names.length === 0)
      throw new BadInputError(`Colours must be a list of names, got ${JSON.stringify(names)}`);
    return new Map(
      names.map((name: unknown) => {
        const rgb = this.#palette.get(String(name));
        if (rgb) return [String(name), rgb];
        throw new BadInputError(
          `Colours must name colours of the palette (${[...this.#palette.keys()].join(", ")}), got ${JSON.stringify(name)}`,
        );
      }),
    );
  }

  override async predictRequests(
    requests: readonly PredictionRequest[],
    trace: BatchTrace,
  ): Promise<Outcome[]> {
    const startedAt = performance.now();
    const outcomes = await Promise.all(
      requests.map((request) =>
        this.predictRequest(request).catch((error: unknown) =>
          error instanceof Error ? error : new Error(String(error)),
        ),
      ),
    );
    trace.infer_ms += performance.now() - startedAt;
    return outcomes;
  }

  override describe(): LoaderDescription {
    return { labels: [...this.#palette.keys()], picture: "required" };
  }
}

function toRgb(colour: string): number[] {
  return [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
}

/** For each colour the share (0..1) of the pixels that are nearer to it than to any other. */
function measureShares(
  pixels: Uint8Array,
  palette: ReadonlyMap<string, readonly number[]>,
): Map<string, number> {
  const colours = [...palette];
  const counts = colours.map(() => 0);
  for (let at = 0; at < pixels.length; at += 3) {
    let nearest = 0;
    let least = Infinity;
    for (const [index, [, rgb]] of colours.entries()) {
      const distance =
        (pixels[at]! - rgb[0]!) ** 2 + (pixels[at + 1]! - rgb[1]!) ** 2 + (pixels[at + 2]! - rgb[2]!) ** 2;
      if (distance < least) [least, nearest] = [distance, index];
    }
    counts[nearest]!++;
  }
  return new Map(colours.map(([name], index) => [name, (counts[index]! * 3) / pixels.length]));
}
