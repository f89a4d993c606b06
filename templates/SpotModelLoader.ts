/** Finds what stands out from a picture's background. It needs no model: replace predict() with yours. */
import { BaseModelLoader, decodePicture, type Finding, type LoaderDescription } from "infermill";

const SIDE = 64;

export class SpotModelLoader extends BaseModelLoader {
  /** Open your model here; it is called once, before the first request. */
  override async load(): Promise<void> {}

  /** Gets the bytes of a picture, returns findings: a score, a label, a box in fractions of the picture. */
  override async predict(picture: Buffer, threshold: number): Promise<Finding[]> {
    const { pixels } = await decodePicture(picture, {
      size: { width: SIDE, height: SIDE },
      fit: "stretch",
      maxPixels: this.settings.max_picture_pixels,
    });
    // Red, green and blue of each pixel, row by row; the first pixel is taken for the background.
    const contrasts = Array.from({ length: SIDE * SIDE }, (_, index) =>
      Math.max(
        ...[0, 1, 2].map((channel) => Math.abs(pixels[3 * index + channel]! - pixels[channel]!) / 255),
      ),
    );
    const spot = contrasts.flatMap((contrast, index) => (contrast >= threshold ? [index] : []));
    if (spot.length === 0) return [];
    const columns = spot.map((index) => index % SIDE);
    const rows = spot.map((index) => Math.floor(index / SIDE));
    const [left, top] = [Math.min(...columns), Math.min(...rows)];
    return [
      {
        Cs: Math.round(100 * Math.max(...contrasts)) / 100,
        Lb: "spot",
        Dm: {
          X: left / SIDE,
          Y: top / SIDE,
          W: (Math.max(...columns) + 1 - left) / SIDE,
          H: (Math.max(...rows) + 1 - top) / SIDE,
        },
      },
    ];
  }

  /** What is checked before a request is accepted. */
  override describe(): LoaderDescription {
    return { labels: ["spot"], picture: "required" };
  }
}
