/**
 * From an encoded picture to numbers in a tensor: decode, turn upright, fit to
 * the model's input (`decodePicture`), then normalise in one pass into a batch
 * buffer (`writeTensor`).
 */
import type { Sharp, SharpOptions } from "sharp";
import { BadInputError } from "../../errors.ts";
import { toHalf } from "../../tensors/half.ts";
import {
  describeBytes,
  PICTURE_FORMAT_NAMES,
  sniffPicture,
  type PictureFormat,
} from "../../core/pictureFormats.ts";
import { decodeBmp } from "./bmp.ts";
import { repairJpeg } from "./jpegRepair.ts";
import { decodedBytes, tooMuch, withinBudget } from "./decodingCost.ts";
import { pngFormat, readUprightSize } from "./pictureHeader.ts";
import type { PictureSize } from "./pictureSize.ts";
import { resample, sourceSpan, type Kernel, type ResampledAxis } from "./resample.ts";

export type { PictureSize } from "./pictureSize.ts";
export type { Kernel } from "./resample.ts";

/**
 * How a picture is fitted to the model's input:
 * - `stretch`: to exactly that size, whatever its ratio.
 * - `crop`: scaled until it covers the input ÷ `cropFraction`, then the centre is cut out (torchvision).
 * - `letterbox`: scaled until it fits inside, in the middle, padded (Ultralytics).
 * - `letterbox-top-left`: the same, in the top left corner (YOLOX).
 * - `cover`: scaled until it just covers the input, then the centre is cut out (CLIP).
 * - `inside`: as it is, scaled down only where it doesn't fit inside; the canvas is as large as the picture then.
 */
export type Fit = "stretch" | "crop" | "letterbox" | "letterbox-top-left" | "cover" | "inside";

/** Where the whole picture stands on the canvas, in canvas pixels; what a crop cuts off lies outside of it. */
export interface Placement extends PictureSize {
  /** Negative where the picture is cut off. */
  left: number;
  top: number;
}

/** A decoded picture, fitted to the model's input ("the canvas"). */
export interface DecodedPicture extends PictureSize {
  /** The part of the picture that lies on the canvas: height × width × 3 bytes, RGB, 0..255. */
  pixels: Uint8Array;
  /** Width and height of the tensor. */
  canvas: PictureSize;
  placement: Placement;
  /** Size of the upright picture before it was scaled. */
  original: PictureSize;
  /** What was odd about the file and overlooked, in words for the sender of the picture. */
  warnings?: readonly string[];
}

export interface DecodeOptions {
  /** Width and height of the tensor. */
  size: PictureSize;
  fit: Fit;
  /** Most pixels (width × height) of the picture; read from its header, before anything is decoded. */
  maxPixels: number;
  /** Most bytes that it may decode to, see `max_decoded_bytes`. Default: no limit beside `maxPixels`. */
  maxBytes?: number;
  /** For `crop`: the part of the short side that is kept. Default 0.875 (224 of 256). */
  cropFraction?: number;
  /**
   * How pixels are interpolated, as Pillow does it: with antialiasing where the picture shrinks. Enlarged pictures are
   * Pillow's to the bit, shrunk ones within a grey level on average. Default `linear`.
   */
  kernel?: Kernel;
  /**
   * How pixels of more than 8 bits become 8: `high-byte` as every viewer does it (the 12 bits of a thermal camera are
   * nearly black then), `stretch` from the lowest to the highest value of the picture, or from `[low, high]`, in units
   * of the picture (0..65535 for 16 bits). Default `high-byte`; pixels of 32 bits are refused then.
   */
  depth?: Depth;
  /** What becomes of a picture that is cut short: `allow` fills the rest with grey and warns. Default `refuse`. */
  truncated?: "refuse" | "allow";
}

export type Depth = "high-byte" | "stretch" | readonly [low: number, high: number];

/**
 * Decodes a picture of one of `PICTURE_FORMATS` (of several frames or pages the first) and fits it to the canvas. EXIF
 * orientation is applied; grey and CMYK become RGB; transparent parts lie on white. Colour profiles are not applied:
 * the training code of these models (PIL, OpenCV) doesn't either, and it doubles the time.
 * @throws BadInputError where the bytes are no such picture, are damaged, or decode to more than `maxPixels`.
 */
export async function decodePicture(bytes: Buffer, options: DecodeOptions): Promise<DecodedPicture> {
  const source = await openSource(bytes, options);
  const { original, warnings } = source;
  const placement = placePicture(original, options);
  const canvas = options.fit === "inside" ? sizeOf(placement) : options.size;
  const visible = visiblePart(placement, canvas);
  const pixels = await fitPixels(source, placement, visible, options.kernel ?? "linear");
  return {
    pixels,
    ...sizeOf(visible),
    canvas,
    placement,
    original,
    ...(warnings.length > 0 && { warnings }),
  };
}

/** A picture whose header was read: encoded, or as RGB where libvips can't read it as we need it. */
interface Source {
  bytes: Uint8Array;
  format: PictureFormat;
  original: PictureSize;
  isRaw: boolean;
  /** Bytes that it decodes to. */
  cost: number;
  options: DecodeOptions;
  /** Grows while it is decoded. */
  warnings: string[];
}

async function openSource(bytes: Buffer, options: DecodeOptions): Promise<Source> {
  const format = sniffPicture(bytes);
  if (!format)
    throw new BadInputError(`the picture must be a ${PICTURE_FORMAT_NAMES}, got ${describeBytes(bytes)}`);
  const { size: original, depth } = await readHeader(bytes, format);
  checkSize(original, options.maxPixels);
  const cost = decodedBytes(bytes, format, original, depth);
  if (options.maxBytes !== undefined && cost > options.maxBytes)
    throw tooMuch(`the picture (${format}, ${sizeText(original)}) decodes`, cost, options.maxBytes);
  const source: Source = { bytes, format, original, isRaw: false, cost, options, warnings: [] };
  if (format === "BMP") return readBmp(source, bytes);
  const how = options.depth ?? "high-byte";
  if (depth === 8 || (depth === 16 && how === "high-byte")) return source;
  if (how === "high-byte") {
    throw new BadInputError(
      `the picture (${format}, ${sizeText(original)}) has pixels of 32 bits or more; set depth to "stretch" or [low, high]`,
    );
  }
  return { ...source, bytes: await readDeep(source, depth, how), isRaw: true };
}

function readBmp(source: Source, bytes: Buffer): Source {
  try {
    const { pixels, isCut } = decodeBmp(bytes, source.options.truncated === "allow");
    return { ...source, bytes: pixels, isRaw: true, warnings: isCut ? [CUT_SHORT] : [] };
  } catch (error) {
    throw damaged(source, error);
  }
}

/** Pixels of 16 bits or more, mapped to RGB of 8. */
async function readDeep(
  source: Source,
  depth: 16 | 32,
  how: Exclude<Depth, "high-byte">,
): Promise<Uint8Array> {
  const data = await decode(source, (image) =>
    // Numbers of 32 bits have no range of their own, which a change of the colour space would need.
    depth === 16 ? image.toColourspace("rgb16").raw({ depth: "ushort" }) : image.raw({ depth: "float" }),
  );
  const bytes = data.buffer as ArrayBuffer;
  const values =
    depth === 16
      ? new Uint16Array(bytes, data.byteOffset, data.byteLength / 2)
      : new Float32Array(bytes, data.byteOffset, data.byteLength / 4);
  const [low, high] = how === "stretch" ? rangeOf(values) : how;
  const factor = high === low ? 0 : 255 / (high - low);
  // Clamped and rounded by the array; what is no number becomes 0.
  const mapped = new Uint8ClampedArray(values.length);
  for (const [index, value] of values.entries()) mapped[index] = (value - low) * factor;
  return new Uint8Array(mapped.buffer);
}

function rangeOf(values: Uint16Array | Float32Array): [low: number, high: number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/**
 * Shrinking by more than this, libvips takes means of blocks first, which differs from Pillow by more than a grey
 * level; a JPEG loses more to blocks that libjpeg itself takes while it decodes, but saves most of the time.
 */
const MAX_DIRECT_RATIO = { JPEG: 16, other: 8 };
/** From three times the size on, the way there makes no difference (Pillow's `reducing_gap=3`). */
const GAP = 3;

/**
 * The visible part of the picture at the size of its placement, height × width × 3 bytes. libvips shrinks while it
 * decodes; it doesn't enlarge as Pillow does, so that is done from the decoded pixels.
 */
async function fitPixels(
  source: Source,
  placement: Placement,
  visible: Placement,
  kernel: Kernel,
): Promise<Uint8Array> {
  const axis = (from: number, size: number, start: number, count: number) => ({ from, size, start, count });
  const { original } = source;
  const columns = axis(original.width, placement.width, visible.left - placement.left, visible.width);
  const rows = axis(original.height, placement.height, visible.top - placement.top, visible.height);
  const isSame = columns.from === columns.size && rows.from === rows.size;
  const ratio = Math.min(columns.from / columns.size, rows.from / rows.size);

  if (!isSame && (ratio < 1 || kernel === "nearest"))
    return resampleFrom(source, original, columns, rows, kernel);
  if (ratio > (source.format === "JPEG" ? MAX_DIRECT_RATIO.JPEG : MAX_DIRECT_RATIO.other)) {
    const size = { width: GAP * placement.width, height: GAP * placement.height };
    return resampleFrom(
      source,
      size,
      { ...columns, from: size.width },
      { ...rows, from: size.height },
      kernel,
    );
  }
  return decode(source, (image) =>
    image
      .resize(placement.width, placement.height, { fit: "fill", kernel, fastShrinkOnLoad: false })
      .extract({ left: columns.start, top: rows.start, ...sizeOf(visible) }),
  );
}

/** Decodes as much as is needed of the picture at `size`, and resizes it as Pillow does. */
async function resampleFrom(
  source: Source,
  size: PictureSize,
  columns: ResampledAxis,
  rows: ResampledAxis,
  kernel: Kernel,
): Promise<Uint8Array> {
  const across = sourceSpan(columns, kernel);
  const down = sourceSpan(rows, kernel);
  const region = { left: across.start, top: down.start, width: across.count, height: down.count };
  const pixels = await decode(source, (image) =>
    (size === source.original
      ? image
      : image.resize(size.width, size.height, { fit: "fill", kernel: "linear" })
    ).extract(region),
  );
  return resample(pixels, { ...columns, held: across }, { ...rows, held: down }, kernel);
}

/**
 * Cuts a rectangle out of a decoded picture and stretches it to a size: for a second model that looks at what a first
 * one found. The region is in pixels of the picture and is rounded and clipped to it.
 */
export async function cropPicture(
  picture: DecodedPicture,
  region: Placement,
  size: PictureSize,
): Promise<DecodedPicture> {
  const { pixels, width, height } = picture;
  const within = (at: number, most: number) => Math.min(most, Math.max(0, Math.round(at)));
  const left = within(region.left, width - 1);
  const top = within(region.top, height - 1);
  const cut = {
    width: Math.max(1, within(region.left + region.width, width) - left),
    height: Math.max(1, within(region.top + region.height, height) - top),
  };
  const part = new Uint8Array(cut.width * cut.height * 3);
  for (let row = 0; row < cut.height; row++) {
    const start = ((top + row) * width + left) * 3;
    part.set(pixels.subarray(start, start + cut.width * 3), row * cut.width * 3);
  }
  const axis = (from: number, to: number) => ({ from, size: to, start: 0, count: to });
  return {
    pixels: resample(part, axis(cut.width, size.width), axis(cut.height, size.height), "linear"),
    ...size,
    canvas: size,
    placement: { left: 0, top: 0, ...size },
    original: cut,
  };
}

/**
 * Size and place of a picture on the canvas. Formulas: Ultralytics `LetterBox` (size rounded, odd padding one pixel
 * more on the right), YOLOX `preproc` (size cut off), torchvision `Resize` and `CenterCrop` (for `cover` to the pixel:
 * long side cut off, half pixels to the even number; for `crop` with both rounded).
 */
export function placePicture(
  original: PictureSize,
  { size, fit, cropFraction = 0.875 }: Pick<DecodeOptions, "size" | "fit" | "cropFraction">,
): Placement {
  if (fit === "stretch") return { ...size, left: 0, top: 0 };
  const ratios = [size.width / original.width, size.height / original.height] as const;
  if (fit === "crop") {
    const scale = Math.max(...ratios) / cropFraction;
    const width = Math.max(size.width, Math.round(original.width * scale));
    const height = Math.max(size.height, Math.round(original.height * scale));
    return {
      width,
      height,
      left: Math.round((size.width - width) / 2) + 0,
      top: Math.round((size.height - height) / 2) + 0,
    };
  }
  if (fit === "cover") {
    const scale = Math.max(...ratios);
    const width = Math.max(size.width, cutOff(original.width * scale));
    const height = Math.max(size.height, cutOff(original.height * scale));
    return {
      width,
      height,
      left: 0 - halfToEven(width - size.width),
      top: 0 - halfToEven(height - size.height),
    };
  }
  const scale = Math.min(...ratios, fit === "inside" ? 1 : Infinity);
  const whole = fit === "letterbox-top-left" ? cutOff : Math.round;
  const width = Math.max(1, whole(original.width * scale));
  const height = Math.max(1, whole(original.height * scale));
  if (fit !== "letterbox") return { width, height, left: 0, top: 0 };
  return {
    width,
    height,
    left: Math.round((size.width - width) / 2 - 0.1) + 0,
    top: Math.round((size.height - height) / 2 - 0.1) + 0,
  };
}

/** Without the epsilon, 1/3 × 3 would lose a pixel. */
const cutOff = (side: number) => Math.floor(side + 1e-6);

/** Python's `round(value / 2)`. */
function halfToEven(value: number): number {
  const down = Math.floor(value / 2);
  return value % 2 === 1 && down % 2 === 1 ? down + 1 : down;
}

function visiblePart(placement: Placement, canvas: PictureSize): Placement {
  const left = Math.max(0, placement.left);
  const top = Math.max(0, placement.top);
  return {
    left,
    top,
    width: Math.min(canvas.width, placement.left + placement.width) - left,
    height: Math.min(canvas.height, placement.top + placement.height) - top,
  };
}

let sharp: typeof import("sharp").default | undefined;

/** Loads libvips with the first picture, so that a process that decodes none stays small. */
async function openPicture(bytes: Uint8Array, options: SharpOptions): Promise<Sharp> {
  sharp ??= (await import("sharp")).default;
  return sharp(bytes, options);
}

/** The upright size, and the bits of a channel: 8, 16, or 32 for whatever is more. */
async function readHeader(
  bytes: Buffer,
  format: PictureFormat,
): Promise<{ size: PictureSize; depth: 8 | 16 | 32 }> {
  const size = readUprightSize(bytes, format);
  if (size) return { size, depth: format === "PNG" ? pngFormat(bytes).depth : 8 };
  try {
    const image = await openPicture(bytes, { limitInputPixels: false });
    const { autoOrient, depth, channels } = await image.metadata();
    if (channels > MAX_CHANNELS)
      throw new Error(`it has ${channels} channels, up to ${MAX_CHANNELS} are read`);
    return { size: sizeOf(autoOrient), depth: depth === "uchar" ? 8 : depth === "ushort" ? 16 : 32 };
  } catch (error) {
    throw damaged({ format, original: undefined, bytes }, error);
  }
}

/** CMYK with alpha. A TIFF may have thousands, all of which would have to be held. */
const MAX_CHANNELS = 5;

function checkSize(size: PictureSize, maxPixels: number): void {
  const pixels = size.width * size.height;
  if (pixels > maxPixels) {
    throw new BadInputError(
      `the picture is ${sizeText(size)} = ${pixels} pixels, more than max_picture_pixels (${maxPixels})`,
    );
  }
}

// At the end of a scan, a camera may leave a few bytes more.
const HARMLESS_WARNING = /^(VipsJpeg: )?Corrupt JPEG data: \d{1,2} extraneous bytes before marker 0xd9$/;
const CUT_SHORT = "the picture is cut short; what is missing is grey";

/** Decodes what `fit` makes of the picture, by default to RGB of 8 bits. */
async function decode(source: Source, fit: (image: Sharp) => Sharp): Promise<Uint8Array> {
  try {
    // Below "warning", libvips answers with grey or garbage where the data is damaged.
    return await decodeWith(source, source.bytes, "warning", fit);
  } catch (error) {
    if (source.format === "JPEG") return decodeOddJpeg(source, error as Error, fit);
    return decodeCut(source, source.bytes, error as Error, fit);
  }
}

/** As libjpeg reads what cameras write, but with an error where a part of the picture itself is missing or damaged. */
async function decodeOddJpeg(
  source: Source,
  fault: Error,
  fit: (image: Sharp) => Sharp,
): Promise<Uint8Array> {
  const { bytes, warnings, isCut } = repairJpeg(source.bytes as Buffer);
  try {
    if (warnings.length === 0 || isCut) throw fault;
    const data = await decodeWith(source, bytes, "warning", fit);
    source.warnings.push(...warnings);
    return data;
  } catch (error) {
    const { message } = error as Error;
    if (!message.split("\n").every((line) => HARMLESS_WARNING.test(line)))
      return decodeCut(source, bytes, error as Error, fit);
    source.warnings.push(...warnings, message.replace(/^VipsJpeg: /, "libjpeg: "));
    return decodeWith(source, bytes, "error", fit).catch((second: unknown) => {
      throw damaged(source, second);
    });
  }
}

async function decodeCut(
  source: Source,
  bytes: Uint8Array,
  fault: Error,
  fit: (image: Sharp) => Sharp,
): Promise<Uint8Array> {
  if (source.options.truncated !== "allow") throw damaged(source, fault);
  const data = await decodeWith(source, bytes, "none", fit).catch(() => {
    throw damaged(source, fault);
  });
  source.warnings.push(`${CUT_SHORT} (${reasonOf(fault)})`);
  return data;
}

function decodeWith(
  source: Source,
  bytes: Uint8Array,
  failOn: "warning" | "error" | "none",
  fit: (image: Sharp) => Sharp,
): Promise<Uint8Array> {
  return withinBudget(source.cost, () => decodeNow(source, bytes, failOn, fit));
}

async function decodeNow(
  { isRaw, original, options }: Source,
  bytes: Uint8Array,
  failOn: "warning" | "error" | "none",
  fit: (image: Sharp) => Sharp,
): Promise<Uint8Array> {
  const image = await openPicture(
    bytes,
    isRaw
      ? { raw: { ...original, channels: 3 }, limitInputPixels: options.maxPixels }
      : { failOn, limitInputPixels: options.maxPixels, autoOrient: true, ignoreIcc: true },
  );
  const { data, info } = await fit(
    image.flatten({ background: "#ffffff" }).toColourspace("srgb").raw({ depth: "uchar" }),
  ).toBuffer({ resolveWithObject: true });
  if (info.channels !== 3) throw new Error(`expected RGB from the decoder, got ${info.channels} channels`);
  return data;
}

function damaged(
  { format, original, bytes }: Pick<Source, "format" | "bytes"> & { original: PictureSize | undefined },
  error: unknown,
): BadInputError {
  const what = `the picture (${format}, ${original ? sizeText(original) : `${bytes.length} bytes`})`;
  if (/compression (format has not been built in|support is not configured)/i.test(String(error)))
    return new BadInputError(
      `${what} is compressed in a way that this decoder can't read; convert it to JPEG`,
      {
        cause: error,
      },
    );
  return new BadInputError(`${what} is damaged or cut short: ${reasonOf(error as Error)}`, { cause: error });
}

function reasonOf({ message }: Error): string {
  return message
    .split("\n")[0]!
    .replace(/^Input buffer has corrupt header: /, "")
    .replace(/^(VipsJpeg|vipspng|pngload_buffer|webp\w*|gifload\w*|tiff\w*|heif\w*): /i, "");
}

const sizeOf = ({ width, height }: PictureSize): PictureSize => ({ width, height });
const sizeText = ({ width, height }: PictureSize): string => `${width}×${height}`;

/** How pixels become numbers: `(pixel × scale − mean) ÷ std`, one channel plane after another or interleaved. */
export interface TensorFormat {
  /** `nchw`: channel planes; `nhwc`: interleaved. */
  layout: "nchw" | "nhwc";
  /** Order of the channels; `grey` is 0.299 R + 0.587 G + 0.114 B (ITU-R 601, as PIL and OpenCV compute it). */
  channels: "rgb" | "bgr" | "grey";
  /** Default 1 / 255. */
  scale?: number;
  /** One number for each channel, in the order of `channels`. Default 0. */
  mean?: readonly number[];
  /** One number for each channel, in the order of `channels`. Default 1. */
  std?: readonly number[];
  /** Value (0..255, before normalisation) of the canvas where there is no picture, or its R, G and B. Default 114, as Ultralytics and YOLOX. */
  pad?: number | readonly [red: number, green: number, blue: number];
}

/** Element types of a model's picture input. */
export type PictureElementType = "float32" | "float16" | "uint8";

/** Numbers of a tensor; float16 as its 16 bits. */
export type TensorData = Float32Array | Uint16Array | Uint8Array;

/** The array that holds the numbers of each element type. */
export const TENSOR_ARRAYS = { float32: Float32Array, float16: Uint16Array, uint8: Uint8Array } as const;

/** A format made ready: what each of the 256 pixel values becomes, for each channel. */
export interface TensorWriter {
  readonly format: TensorFormat;
  readonly tables: readonly TensorData[];
}

/**
 * Computes the tables of a format, once for a model. A `uint8` input gets the pixels as they are: such a graph
 * normalises for itself.
 */
export function createTensorWriter(format: TensorFormat, type: PictureElementType): TensorWriter {
  const channels = format.channels === "grey" ? 1 : 3;
  for (const key of ["mean", "std"] as const) {
    const count = format[key]?.length ?? channels;
    if (count !== channels)
      throw new Error(`${key} must have ${channels} numbers, one for each channel, got ${count}`);
  }
  const tables = Array.from({ length: channels }, (_, channel) => {
    const values = Float32Array.from(
      { length: 256 },
      (_value, pixel) =>
        (pixel * (format.scale ?? 1 / 255) - (format.mean?.[channel] ?? 0)) / (format.std?.[channel] ?? 1),
    );
    if (type === "float32") return values;
    return type === "float16"
      ? Uint16Array.from(values, toHalf)
      : Uint8Array.from({ length: 256 }, (_value, pixel) => pixel);
  });
  return { format, tables };
}

/** Writes a picture at `offset` of a batch buffer; every element of its canvas is written, so the buffer can be reused. */
export function writeTensor(
  picture: DecodedPicture,
  writer: TensorWriter,
  into: TensorData,
  offset: number,
): void {
  const { width, height, canvas, placement } = picture;
  const { layout, channels } = writer.format;
  const count = writer.tables.length;
  const plane = canvas.width * canvas.height;
  // Distance in the tensor from a pixel to its right neighbour, and from a channel to the next.
  const [step, stride] = layout === "nchw" ? [1, plane] : [count, 1];

  if (width !== canvas.width || height !== canvas.height) {
    const pad = padOf(writer.format);
    for (const [channel, table] of writer.tables.entries()) {
      const start = offset + channel * stride;
      const value = table[pad[channel]!]!;
      if (step === 1) into.fill(value, start, start + plane);
      else for (let at = start; at < start + plane * step; at += step) into[at] = value;
    }
  }
  const writeRow = channels === "grey" ? writeGreyRow : writeColourRow;
  const [first, last] = channels === "bgr" ? [2, 0] : [0, 2];
  for (let row = 0; row < height; row++) {
    const at =
      offset + ((Math.max(0, placement.top) + row) * canvas.width + Math.max(0, placement.left)) * step;
    writeRow(picture.pixels, row * width * 3, width, writer.tables, into, at, step, stride, first, last);
  }
}

/** The padding's pixel value of each channel. */
function padOf({ pad = 114, channels }: TensorFormat): readonly number[] {
  if (typeof pad === "number") return [pad, pad, pad];
  if (channels === "rgb") return pad;
  return channels === "bgr" ? pad.toReversed() : [greyOf(...pad)];
}

type RowWriter = (
  pixels: Uint8Array,
  source: number,
  width: number,
  tables: readonly TensorData[],
  into: TensorData,
  at: number,
  step: number,
  stride: number,
  first: number,
  last: number,
) => void;

// All three channels in one loop: half the time of a loop for each.
const writeColourRow: RowWriter = (pixels, source, width, tables, into, at, step, stride, first, last) => {
  const [table0, table1, table2] = tables as [TensorData, TensorData, TensorData];
  for (const end = source + width * 3; source < end; source += 3, at += step) {
    into[at] = table0[pixels[source + first]!]!;
    into[at + stride] = table1[pixels[source + 1]!]!;
    into[at + 2 * stride] = table2[pixels[source + last]!]!;
  }
};

const writeGreyRow: RowWriter = (pixels, source, width, [table], into, at, step) => {
  for (const end = source + width * 3; source < end; source += 3, at += step) {
    into[at] = table![greyOf(pixels[source]!, pixels[source + 1]!, pixels[source + 2]!)]!;
  }
};

const greyOf = (red: number, green: number, blue: number) =>
  (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
