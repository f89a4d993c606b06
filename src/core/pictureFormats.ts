/**
 * The picture formats that are decoded: their names, media types, file extensions
 * and first bytes. Whoever asks "is this a picture?" asks here.
 */

export type PictureFormat = "JPEG" | "PNG" | "WebP" | "GIF" | "TIFF" | "BMP" | "AVIF" | "HEIC";

interface FormatDescription {
  /** The first is the registered one; the others are what browsers, cameras and Windows write. */
  mediaTypes: readonly string[];
  extensions: readonly string[];
  /** Whether bytes begin like this format. */
  isIn: (bytes: Buffer) => boolean;
}

/** Whether bytes begin with `text` (latin1); "?" stands for any byte. */
const begins =
  (...texts: readonly string[]) =>
  (bytes: Buffer): boolean =>
    texts.some((text) => {
      const head = bytes.toString("latin1", 0, text.length);
      if (head.length < text.length) return false;
      for (let at = 0; at < text.length; at++) if (text[at] !== "?" && text[at] !== head[at]) return false;
      return true;
    });

/** Sizes of the headers of a BMP. */
const BMP_HEADERS = new Set([12, 40, 52, 56, 64, 108, 124]);
const HEIF_BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"];

export const PICTURE_FORMATS: Readonly<Record<PictureFormat, FormatDescription>> = {
  JPEG: {
    mediaTypes: ["image/jpeg", "image/jpg", "image/pjpeg", "image/jfif"],
    extensions: ["jpg", "jpeg", "jpe", "jfif"],
    isIn: begins("\xff\xd8\xff"),
  },
  PNG: {
    mediaTypes: ["image/png", "image/x-png", "image/apng", "image/vnd.mozilla.apng"],
    extensions: ["png", "apng"],
    isIn: begins("\x89PNG\r\n\x1a\n"),
  },
  WebP: { mediaTypes: ["image/webp"], extensions: ["webp"], isIn: begins("RIFF????WEBP") },
  GIF: { mediaTypes: ["image/gif"], extensions: ["gif"], isIn: begins("GIF87a", "GIF89a") },
  TIFF: {
    mediaTypes: ["image/tiff", "image/tif", "image/x-tiff", "image/x-tif"],
    extensions: ["tif", "tiff"],
    // The second two are BigTIFF.
    isIn: begins("II*\0", "MM\0*", "II+\0\x08\0", "MM\0+\0\x08"),
  },
  BMP: {
    mediaTypes: ["image/bmp", "image/x-bmp", "image/x-ms-bmp", "image/x-windows-bmp", "image/x-win-bitmap"],
    extensions: ["bmp", "dib"],
    // "BM" alone begins many a text; the size of a known header follows after 12 bytes.
    isIn: (bytes) => begins("BM")(bytes) && bytes.length >= 18 && BMP_HEADERS.has(bytes.readUInt32LE(14)),
  },
  AVIF: {
    mediaTypes: ["image/avif", "image/avif-sequence"],
    extensions: ["avif"],
    isIn: begins("????ftypavif", "????ftypavis"),
  },
  HEIC: {
    mediaTypes: ["image/heic", "image/heif", "image/heic-sequence", "image/heif-sequence"],
    extensions: ["heic", "heif"],
    isIn: begins(...HEIF_BRANDS.map((brand) => `????ftyp${brand}`)),
  },
};

/** "JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC" */
export const PICTURE_FORMAT_NAMES = listOf(Object.keys(PICTURE_FORMATS));

/** "image/jpeg, image/png, …": the registered media types. */
export const PICTURE_MEDIA_TYPE_NAMES = Object.values(PICTURE_FORMATS)
  .map(({ mediaTypes }) => mediaTypes[0]!)
  .join(", ");

const MEDIA_TYPES = new Set(Object.values(PICTURE_FORMATS).flatMap(({ mediaTypes }) => mediaTypes));
const EXTENSIONS = new Set(Object.values(PICTURE_FORMATS).flatMap(({ extensions }) => extensions));

/** Bytes of a file that `sniffPicture` and `describeBytes` look at. */
export const MAGIC_BYTES = 600;

/** The format that the first bytes say, whatever a name or a header claims. */
export function sniffPicture(bytes: Buffer): PictureFormat | undefined {
  for (const [format, { isIn }] of Object.entries(PICTURE_FORMATS))
    if (isIn(bytes)) return format as PictureFormat;
  return undefined;
}

/** Whether a media type (lower case, without parameters) names a format that is decoded. */
export function isPictureMediaType(mediaType: string): boolean {
  return MEDIA_TYPES.has(mediaType);
}

/** Whether a file is called like a picture, in upper or lower case. */
export function hasPictureExtension(name: string): boolean {
  const dot = name.lastIndexOf(".");
  return dot >= 0 && EXTENSIONS.has(name.slice(dot + 1).toLowerCase());
}

const OTHER_FORMATS: readonly [name: string, isIn: (bytes: Buffer) => boolean][] = [
  ["a JPEG XL", begins("\xff\n", "????JXL ")],
  ["a JPEG 2000", begins("????jP  ", "\xff\x4f\xff\x51")],
  ["a PDF", begins("%PDF")],
  ["an SVG", (bytes) => /<svg[\s>]/i.test(bytes.toString("latin1", 0, MAGIC_BYTES))],
  ["a Photoshop file", begins("8BPS")],
  ["an icon", begins("\0\0\x01\0")],
  ["an OpenEXR", begins("v/1\x01")],
  ["a Radiance HDR", begins("#?RADIANCE", "#?RGBE")],
  ["a DICOM file", begins(`${"?".repeat(128)}DICM`)],
  ["a ZIP archive", begins("PK\x03\x04")],
  ["a video", begins("????ftyp", "\x1aE\xdf\xa3", "RIFF????AVI ")],
  ["a Git LFS pointer, not the file itself", begins("version https://git-lfs")],
  [
    "an HTML page",
    (bytes) => /^\s*<(!doctype html|html)[\s>]/i.test(bytes.toString("latin1", 0, MAGIC_BYTES)),
  ],
];

/**
 * What bytes are that are no picture, for an error: "a PDF", `12 bytes that begin with "…"`.
 * @param what to say instead of how many bytes there are
 */
export function describeBytes(bytes: Buffer, what = `${bytes.length} bytes that`): string {
  if (bytes.length === 0) return "no bytes at all";
  const known = OTHER_FORMATS.find(([, isIn]) => isIn(bytes));
  if (known) return known[0];
  const head = bytes.toString("latin1", 0, 24);
  const isText = /^[\t\n\r\x20-\x7e]+$/.test(head);
  return `${what} begin with ${
    isText ? JSON.stringify(head) : bytes.toString("hex", 0, 12).replaceAll(/(..)(?=.)/g, "$1 ")
  }`;
}

function listOf(names: readonly string[]): string {
  return `${names.slice(0, -1).join(", ")} or ${names.at(-1)!}`;
}
