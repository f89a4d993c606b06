/**
 * From an encoded picture to numbers in a tensor: decode, turn upright, fit to
 * the model's input (`decodePicture`), then normalise in one pass into a batch
 * buffer (`writeTensor`).
 */
import type { Sharp, SharpOptions } from "sharp";
import { BadInputError } from "../../errors.ts";
import { readUprightSize, type PictureFormat } from "./pictureHeader.ts";
import { resample, sourceSpan, type Kernel, type ResampledAxis } from "./resample.ts";

export type { Kernel } from "./resample.ts";

export interface PictureSize {
  width: number;
  height: number;
}

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
}

export interface DecodeOptions {
  /** Width and height of the tensor. */
  size: PictureSize;
  fit: Fit;
  /** Most pixels (width × height) of the picture; read from its header, before anything is decoded. */
  maxPixels: number;
  /** For `crop`: the part of the short side that is kept. Default 0.875 (224 of 256). */
  cropFraction?: number;
  /**
   * How pixels are interpolated, as Pillow does it: with antialiasing where the picture shrinks. Enlarged pictures are
   * Pillow's to the bit, shrunk ones within a grey level on average. Default `linear`.
   */
  kernel?: Kernel;
}

/**
 * Decodes a JPEG, PNG or WebP (of an animated one the first frame) and fits it to the canvas. EXIF orientation is
 * applied; grey and CMYK become RGB, 16 bits become 8; transparent parts lie on white. Colour profiles are not applied:
 * the training code of these models (PIL, OpenCV) doesn't either, and it doubles the time.
 * @throws BadInputError where the bytes are no such picture, are damaged, or decode to more than `maxPixels`.
 */
export async function decodePicture(bytes: Buffer, options: DecodeOptions): Promise<DecodedPicture> {
  const format = pictureFormat(bytes);
  const original = await readOriginalSize(bytes, format, options.maxPixels);
  const placement = placePicture(original, options);
  const canvas = options.fit === "inside" ? sizeOf(placement) : options.size;
  const visible = visiblePart(placement, canvas);

  const source = { bytes, format, original, maxPixels: options.maxPixels };
  const pixels = await fitPixels(source, placement, visible, options.kernel ?? "linear");
  return { pixels, ...sizeOf(visible), canvas, placement, original };
}

/** An encoded picture whose header was read. */
interface Source {
  bytes: Buffer;
  format: PictureFormat;
  original: PictureSize;
  maxPixels: number;
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

/** What the first bytes say. Nothing else reaches the decoder, so its SVG, TIFF and GIF readers are never exposed. */
function pictureFormat(bytes: Buffer): PictureFormat {
  const text = (start: number, end: number) => bytes.toString("latin1", start, end);
  if (bytes.length >= 3 && bytes.readUIntBE(0, 3) === 0xffd8ff) return "JPEG";
  if (text(0, 8) === "\x89PNG\r\n\x1a\n") return "PNG";
  if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP") return "WebP";
  throw new BadInputError(`the picture must be a JPEG, PNG or WebP, got ${describeBytes(bytes)}`);
}

const OTHER_FORMATS: readonly [name: string, pattern: RegExp][] = [
  ["a GIF", /^GIF8/],
  ["a TIFF", /^(II[*+]\p{Cc}|MM\p{Cc}[*+])/u],
  ["a BMP", /^BM.{4}\p{Cc}{4}/su],
  ["an AVIF", /^.{4}ftyp(avif|avis)/s],
  ["a HEIC", /^.{4}ftyp(heic|heix|hevc|mif1|msf1)/s],
  ["a JPEG XL", /^(\xff\n|.{4}JXL )/s],
  ["a JPEG 2000", /^.{4}jP {2}/s],
  ["a PDF", /^%PDF/],
  ["an SVG", /^[^]{0,512}<svg[\s>]/i],
];

function describeBytes(bytes: Buffer): string {
  if (bytes.length === 0) return "no bytes at all";
  const head = bytes.toString("latin1", 0, 600);
  const known = OTHER_FORMATS.find(([, pattern]) => pattern.test(head));
  if (known) return known[0];
  const isText = /^[\t\n\r\x20-\x7e]+$/.test(head.slice(0, 24));
  return `${bytes.length} bytes that begin with ${
    isText ? JSON.stringify(head.slice(0, 24)) : bytes.toString("hex", 0, 12).replaceAll(/(..)(?=.)/g, "$1 ")
  }`;
}

let sharp: typeof import("sharp").default | undefined;

/** Loads libvips with the first picture, so that a process that decodes none stays small. */
async function openPicture(bytes: Uint8Array, options: SharpOptions): Promise<Sharp> {
  sharp ??= (await import("sharp")).default;
  return sharp(bytes, options);
}

async function readOriginalSize(
  bytes: Buffer,
  format: PictureFormat,
  maxPixels: number,
): Promise<PictureSize> {
  const size = readUprightSize(bytes, format) ?? (await askForUprightSize(bytes, format));
  const pixels = size.width * size.height;
  if (pixels > maxPixels) {
    throw new BadInputError(
      `the picture is ${sizeText(size)} = ${pixels} pixels, more than max_picture_pixels (${maxPixels})`,
    );
  }
  return size;
}

async function askForUprightSize(bytes: Buffer, format: PictureFormat): Promise<PictureSize> {
  try {
    const image = await openPicture(bytes, { limitInputPixels: false });
    return (await image.metadata()).autoOrient;
  } catch (error) {
    throw damaged(`the picture (${format}, ${bytes.length} bytes)`, error);
  }
}

// Many cameras write these, and every viewer shows the picture as it was meant.
const HARMLESS_WARNING =
  /Invalid SOS parameters for sequential JPEG|: \d{1,2} extraneous bytes before marker/;

/** Decodes what `fit` makes of the picture to RGB of 8 bits. */
async function decode(source: Source, fit: (image: Sharp) => Sharp): Promise<Uint8Array> {
  const { bytes, format, original, maxPixels } = source;
  const decodeWith = async (failOn: "warning" | "error") => {
    const image = await openPicture(bytes, {
      failOn,
      limitInputPixels: maxPixels,
      autoOrient: true,
      ignoreIcc: true,
    });
    const { data, info } = await fit(image.flatten({ background: "#ffffff" }).toColourspace("srgb"))
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`expected RGB from the decoder, got ${info.channels} channels`);
    return data;
  };
  const what = `the picture (${format}, ${sizeText(original)})`;
  try {
    // Below "warning", libvips answers with grey or garbage where the data is damaged.
    return await decodeWith("warning");
  } catch (error) {
    if (!HARMLESS_WARNING.test(String(error))) throw damaged(what, error);
    return await decodeWith("error").catch((second: unknown) => {
      throw damaged(what, second);
    });
  }
}

function damaged(what: string, error: unknown): BadInputError {
  const reason = (error as Error).message
    .split("\n")[0]!
    .replace(/^Input buffer has corrupt header: /, "")
    .replace(/^(VipsJpeg|vipspng|pngload_buffer|webp\w*): /i, "");
  return new BadInputError(`${what} is damaged or cut short: ${reason}`, { cause: error });
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
  /** Value (0..255, before normalisation) of the canvas where there is no picture. Default 114, as Ultralytics and YOLOX. */
  pad?: number;
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
  const { layout, channels, pad = 114 } = writer.format;
  const count = writer.tables.length;
  const plane = canvas.width * canvas.height;
  // Distance in the tensor from a pixel to its right neighbour, and from a channel to the next.
  const [step, stride] = layout === "nchw" ? [1, plane] : [count, 1];

  if (width !== canvas.width || height !== canvas.height) {
    for (const [channel, table] of writer.tables.entries()) {
      const start = offset + channel * stride;
      if (step === 1) into.fill(table[pad]!, start, start + plane);
      else for (let at = start; at < start + plane * step; at += step) into[at] = table[pad]!;
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
    const grey =
      (pixels[source]! * 19595 + pixels[source + 1]! * 38470 + pixels[source + 2]! * 7471 + 0x8000) >> 16;
    into[at] = table![grey]!;
  }
};

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** The 16 bits of the IEEE 754 half that is nearest (ties to even). */
export function toHalf(value: number): number {
  floatView[0] = value;
  const bits = bitsView[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    // Rebiases the exponent from 127 to 15 and rounds the 13 bits that are dropped.
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  // Below 2⁻¹⁴ halves are multiples of 2⁻²⁴. Adding 2²³ rounds to whole ones, ties to even.
  floatView[0] = Math.abs(value) * 2 ** 24 + 2 ** 23;
  return sign | (bitsView[0]! - 0x4b000000);
}

/** The number that the 16 bits of an IEEE 754 half mean. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
