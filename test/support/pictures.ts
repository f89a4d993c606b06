/** Pictures and models for tests that need no reference models. */
import { writeFileSync } from "node:fs";
import sharp from "sharp";
import { encodeModel, node, valueInfo } from "../../src/models/onnxProto.ts";

/** Writes a classifier of any batch whose three scores are ten times the means of the red, green and blue channel. */
export function writeColourModel(file: string): void {
  writeFileSync(
    file,
    encodeModel({
      opset: 13,
      name: "colours",
      inputs: [valueInfo("pictures", "float32", ["batch", 3, 32, 32])],
      outputs: [valueInfo("scores", "float32", ["batch", 3])],
      nodes: [
        node("GlobalAveragePool", ["pictures"], ["means"]),
        node("Flatten", ["means"], ["scores"], { axis: 1 }),
      ],
      initializers: [],
    }),
  );
}

/** A JPEG of one colour. */
export function plainPicture(red: number, green: number, blue: number, size = 64): Promise<Buffer> {
  return sharp({
    create: { width: size, height: size, channels: 3, background: { r: red, g: green, b: blue } },
  })
    .jpeg({ quality: 95 })
    .toBuffer();
}
