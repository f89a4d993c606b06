/**
 * Reads a picture's upright size from its first bytes, without a thread or a
 * wait: a decoder that had to ask libvips first could not start while a model
 * runs, because the run blocks the event loop.
 */

import type { PictureFormat } from "../../core/pictureFormats.ts";
import { readBmpSize } from "./bmp.ts";

/** Width and height as they are seen, once the EXIF orientation is applied. */
export interface UprightSize {
  width: number;
  height: number;
}

const READERS: Partial<Record<PictureFormat, (bytes: Buffer) => UprightSize | undefined>> = {
  JPEG: readJpegSize,
  PNG: readPngSize,
  WebP: readWebpSize,
  BMP: readBmpSize,
};

/** Channels by the colour type of a PNG; a palette becomes RGB. */
const PNG_CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 3, 4: 2, 6: 4 };

/** Of the header of a PNG: bits and number of its channels, and whether it is interlaced. */
export function pngFormat(bytes: Buffer): { depth: 8 | 16; channels: number; isInterlaced: boolean } {
  return {
    depth: bytes[24] === 16 ? 16 : 8,
    channels: PNG_CHANNELS[bytes[25] ?? 6] ?? 4,
    isInterlaced: bytes[28] === 1,
  };
}

/** Whether a JPEG's rows are known only when all of it was read (SOF2 and its relatives). */
export function isProgressiveJpeg(bytes: Buffer): boolean {
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; at += 2 + bytes.readUInt16BE(at + 2)) {
    const marker = bytes[at + 1]!;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return (marker & 3) === 2;
  }
  return false;
}

/**
 * The upright size, or undefined where the header is in any way unusual (EXIF outside of a JPEG, odd EXIF, damage), so
 * that libvips, which decodes the picture in the end, must be asked.
 */
export function readUprightSize(bytes: Buffer, format: PictureFormat): UprightSize | undefined {
  try {
    return READERS[format]?.(bytes);
  } catch (error) {
    // The picture ends where its header should continue.
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** ITU-T T.81, annex B: segments of a marker and a length, up to a frame header (SOF), which holds the size. */
function readJpegSize(bytes: Buffer): UprightSize | undefined {
  let orientation: number | undefined;
  for (let at = 2; bytes[at] === 0xff;) {
    const marker = bytes[at + 1]!;
    const length = bytes.readUInt16BE(at + 2);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) {
      const height = bytes.readUInt16BE(at + 5);
      const width = bytes.readUInt16BE(at + 7);
      if (width === 0 || height === 0) return undefined;
      return (orientation ?? 1) < 5 ? { width, height } : { width: height, height: width };
    }
    if (marker === 0xe1 && bytes.toString("latin1", at + 4, at + 10) === "Exif\0\0") {
      if (orientation !== undefined) return undefined;
      orientation = readOrientation(bytes.subarray(at + 10, at + 2 + length));
      if (orientation === undefined) return undefined;
    }
    at += 2 + length;
  }
  return undefined;
}

/** Tag 0x0112 of the first directory of a TIFF structure (EXIF 2.32, 4.6); 1 where it is missing. */
function readOrientation(tiff: Buffer): number | undefined {
  const order = tiff.toString("latin1", 0, 4);
  if (order !== "II*\0" && order !== "MM\0*") return undefined;
  const isLittleEndian = order === "II*\0";
  const read16 = (at: number) => (isLittleEndian ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const read32 = (at: number) => (isLittleEndian ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at));
  const directory = read32(4);
  for (let entry = 0; entry < read16(directory); entry++) {
    const at = directory + 2 + entry * 12;
    if (read16(at) !== 0x0112) continue;
    const orientation = read16(at + 8);
    const isOneShort = read16(at + 2) === 3 && read32(at + 4) === 1;
    return isOneShort && orientation >= 1 && orientation <= 8 ? orientation : undefined;
  }
  return 1;
}

/** Chunks up to the first image data; text chunks can hide EXIF, too. */
function readPngSize(bytes: Buffer): UprightSize | undefined {
  if (bytes.toString("latin1", 12, 16) !== "IHDR") return undefined;
  const size = { width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  for (let at = 8; ; at += 12 + bytes.readUInt32BE(at)) {
    const type = bytes.toString("latin1", at + 4, at + 8);
    if (type === "IDAT") return size;
    if (["eXIf", "zTXt", "tEXt", "iTXt", "IEND"].includes(type)) return undefined;
  }
}

/** RFC 9649: a lossy or lossless frame, or an extended header with flags. */
function readWebpSize(bytes: Buffer): UprightSize | undefined {
  const chunk = bytes.toString("latin1", 12, 16);
  if (chunk === "VP8 ") {
    return { width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff };
  }
  if (chunk === "VP8L") {
    const bits = bytes.readUInt32LE(21);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  const hasExifOrFrames = (bytes.readUInt8(20) & 0b1010) !== 0;
  if (chunk !== "VP8X" || hasExifOrFrames) return undefined;
  return { width: bytes.readUIntLE(24, 3) + 1, height: bytes.readUIntLE(27, 3) + 1 };
}
