/**
 * Reads BMP, which libvips doesn't: 1 to 32 bits a pixel, plain, run-length encoded or with bit masks, in either
 * direction. An alpha channel is left out, as every viewer does: most writers leave it 0.
 */
import type { PictureSize } from "./pictureSize.ts";

const PLAIN = 0;
const RLE8 = 1;
const RLE4 = 2;
const MASKS = [3, 6];

interface BmpHeader extends PictureSize {
  isTopDown: boolean;
  bits: number;
  compression: number;
  /** Where the pixels begin. */
  offset: number;
  /** Blue, green, red and a fourth byte, or without it in the oldest kind. */
  palette: Buffer;
  paletteStep: 3 | 4;
  masks: readonly [red: number, green: number, blue: number];
}

/** Width and height, or undefined where the header is cut off or makes no sense. */
export function readBmpSize(bytes: Buffer): PictureSize | undefined {
  const header = readHeader(bytes);
  return header && { width: header.width, height: header.height };
}

/**
 * Decodes to RGB, height × width × 3 bytes. The caller has checked the size.
 * @param isCutAllowed whether what is missing may stay grey
 * @throws Error that says what is wrong with the file
 */
export function decodeBmp(bytes: Buffer, isCutAllowed = false): { pixels: Uint8Array; isCut: boolean } {
  const header = readHeader(bytes);
  if (!header) throw new Error("its header is cut off or makes no sense");
  const { width, height, bits, compression } = header;
  if (compression === RLE8 || compression === RLE4) return decodeRuns(bytes, header, isCutAllowed);
  if (compression !== PLAIN && !MASKS.includes(compression)) {
    const name = { 4: "a JPEG inside", 5: "a PNG inside" }[compression];
    throw new Error(`BMP with ${name ?? `compression ${compression}`} is not read`);
  }
  const stride = Math.ceil((bits * width) / 32) * 4;
  const rows = Math.min(height, Math.floor((bytes.length - header.offset) / stride));
  // Some writers leave out the padding of the last row.
  const isLastWhole = bytes.length - header.offset - rows * stride >= Math.ceil((bits * width) / 8);
  const isCut = rows < height && !(rows === height - 1 && isLastWhole);
  if (isCut && !isCutAllowed) throw new Error(`only ${Math.max(0, rows)} of its ${height} rows are there`);
  const pixels = new Uint8Array(width * height * 3);
  if (isCut) pixels.fill(128);
  const convertRow = bits <= 8 ? paletteRow : bits === 24 ? rgbRow : maskedRow;
  for (let row = 0; row < (isCut ? rows : height); row++) {
    const target = (header.isTopDown ? row : height - 1 - row) * width * 3;
    convertRow(bytes, header.offset + row * stride, header, pixels, target);
  }
  return { pixels, isCut };
}

type RowConverter = (
  bytes: Buffer,
  source: number,
  header: BmpHeader,
  pixels: Uint8Array,
  target: number,
) => void;

const paletteRow: RowConverter = (bytes, source, header, pixels, target) => {
  const { width, bits } = header;
  const mask = (1 << bits) - 1;
  for (let x = 0; x < width; x++) {
    const bit = x * bits;
    const index = (bytes[source + (bit >> 3)]! >> (8 - bits - (bit & 7))) & mask;
    setFromPalette(header, index, pixels, target + x * 3);
  }
};

const rgbRow: RowConverter = (bytes, source, { width }, pixels, target) => {
  for (let x = 0; x < width * 3; x += 3) {
    pixels[target + x] = bytes[source + x + 2]!;
    pixels[target + x + 1] = bytes[source + x + 1]!;
    pixels[target + x + 2] = bytes[source + x]!;
  }
};

const maskedRow: RowConverter = (bytes, source, { width, bits, masks }, pixels, target) => {
  const channels = masks.map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask);
    return { mask, shift, most: mask >>> shift || 1 };
  });
  for (let x = 0; x < width; x++) {
    const value = bits === 16 ? bytes.readUInt16LE(source + x * 2) : bytes.readUInt32LE(source + x * 4);
    for (const [channel, { mask, shift, most }] of channels.entries())
      pixels[target + x * 3 + channel] = Math.round((((value & mask) >>> shift) * 255) / most);
  }
};

function setFromPalette({ palette, paletteStep }: BmpHeader, index: number, pixels: Uint8Array, at: number) {
  const entry = index * paletteStep;
  // An index without an entry is black, as in Windows.
  pixels[at] = palette[entry + 2] ?? 0;
  pixels[at + 1] = palette[entry + 1] ?? 0;
  pixels[at + 2] = palette[entry] ?? 0;
}

/** Pairs of a count and a value; a count of 0 begins an escape: end of line, end of picture, a jump, or plain values. */
function decodeRuns(bytes: Buffer, header: BmpHeader, isCutAllowed: boolean) {
  const { width, height, compression, isTopDown } = header;
  const pixels = new Uint8Array(width * height * 3);
  for (let at = 0; at < pixels.length; at += 3) setFromPalette(header, 0, pixels, at);
  const set = (x: number, y: number, index: number) => {
    if (x < width && y < height)
      setFromPalette(header, index, pixels, ((isTopDown ? y : height - 1 - y) * width + x) * 3);
  };
  let x = 0;
  let y = 0;
  let at = header.offset;
  while (at + 1 < bytes.length && y < height) {
    const [count, value] = [bytes[at]!, bytes[at + 1]!];
    at += 2;
    if (count > 0) {
      for (let index = 0; index < count; index++, x++)
        set(x, y, compression === RLE8 ? value : index % 2 === 0 ? value >> 4 : value & 15);
    } else if (value === 0) {
      x = 0;
      y++;
    } else if (value === 1) {
      return { pixels, isCut: false };
    } else if (value === 2) {
      if (at + 1 >= bytes.length) break;
      x += bytes[at]!;
      y += bytes[at + 1]!;
      at += 2;
    } else {
      const length = compression === RLE8 ? value : Math.ceil(value / 2);
      if (at + length > bytes.length) break;
      for (let index = 0; index < value; index++, x++) {
        const byte = bytes[at + (compression === RLE8 ? index : index >> 1)]!;
        set(x, y, compression === RLE8 ? byte : index % 2 === 0 ? byte >> 4 : byte & 15);
      }
      at += length + (length % 2);
    }
  }
  // Without its end marker, but with all its rows, it is whole.
  const isCut = y < height && !(y === height - 1 && x >= width);
  if (isCut && !isCutAllowed) throw new Error(`its runs end in row ${y + 1} of ${height}`);
  return { pixels, isCut };
}

function readHeader(bytes: Buffer): BmpHeader | undefined {
  if (bytes.length < 26) return undefined;
  const size = bytes.readUInt32LE(14);
  const isOldest = size === 12;
  if (!isOldest && bytes.length < 54) return undefined;
  const width = isOldest ? bytes.readUInt16LE(18) : bytes.readInt32LE(18);
  const signedHeight = isOldest ? bytes.readUInt16LE(20) : bytes.readInt32LE(22);
  const bits = bytes.readUInt16LE(isOldest ? 24 : 28);
  const compression = isOldest ? PLAIN : bytes.readUInt32LE(30);
  const height = Math.abs(signedHeight);
  const fits: Record<number, readonly number[]> = {
    1: [PLAIN],
    2: [PLAIN],
    4: [PLAIN, RLE4],
    8: [PLAIN, RLE8],
    16: [PLAIN, ...MASKS],
    24: [PLAIN],
    32: [PLAIN, ...MASKS],
  };
  const isOther = compression === 4 || compression === 5;
  if (width <= 0 || height === 0 || !(isOther || fits[bits]?.includes(compression))) return undefined;
  const hasMasks = MASKS.includes(compression);
  if (hasMasks && bytes.length < 66) return undefined;
  const usual = bits === 16 ? ([0x7c00, 0x3e0, 0x1f] as const) : ([0xff0000, 0xff00, 0xff] as const);
  const masks = hasMasks
    ? ([54, 58, 62].map((at) => bytes.readUInt32LE(at)) as [number, number, number])
    : usual;
  const offset = bytes.readUInt32LE(10);
  const paletteStep = isOldest ? 3 : 4;
  const palette = bytes.subarray(14 + size, Math.min(offset, 14 + size + 256 * paletteStep));
  return {
    width,
    height,
    isTopDown: signedHeight < 0,
    bits,
    compression,
    offset,
    palette,
    paletteStep,
    masks,
  };
}
