/** Pictures and models for tests that need no reference models. */
import { writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
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

/** A black PNG of one bit per pixel, made without a canvas of that size. */
export function blankPng(width: number, height: number): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([1, 0, 0, 0, 0], 8);
  const rows = Buffer.alloc((1 + Math.ceil(width / 8)) * height);
  const chunks = [
    ["IHDR", header],
    ["IDAT", deflateSync(rows, { level: 9 })],
    ["IEND", Buffer.alloc(0)],
  ] as const;
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    ...chunks.flatMap(([name, data]) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(data.length);
      const checksum = Buffer.alloc(4);
      checksum.writeUInt32BE(crc32(Buffer.concat([Buffer.from(name), data])));
      return [length, Buffer.from(name), data, checksum];
    }),
  ]);
}

function crc32(bytes: Buffer): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
