/**
 * Cameras write JPEGs that libjpeg reads with a warning and every viewer shows: junk between segments, no end marker,
 * parameters of a scan left 0. The decoder is told to fail on any warning, since damage looks alike; so what is known
 * to be harmless is put right in the bytes, and whatever it still warns of is damage.
 */

import { isLastScanWhole } from "./jpegScan.ts";

const SOI = 0xd8;
const EOI = 0xd9;
const SOS = 0xda;
/** Markers without a length: TEM, restarts, start and end. */
const isBare = (marker: number) => marker === 0x01 || (marker >= 0xd0 && marker <= EOI);
const isRestart = (marker: number) => marker >= 0xd0 && marker <= 0xd7;

export interface RepairedJpeg {
  bytes: Buffer;
  /** What was put right, for the reader of a response; empty where nothing was. */
  warnings: string[];
  /** Whether its end is missing as well as its end marker. */
  isCut: boolean;
}

/** Puts right what libjpeg overlooks. What is beyond that is copied as it is, for the decoder to judge. */
export function repairJpeg(bytes: Buffer): RepairedJpeg {
  const kept: Buffer[] = [bytes.subarray(0, 2)];
  const warnings: string[] = [];
  let isSequential = false;
  let junk = 0;
  let at = 2;
  while (at < bytes.length) {
    const start = findMarker(bytes, at);
    if (start === undefined) break;
    junk += start.junk;
    const marker = bytes[start.at + 1]!;
    if (marker === EOI) return repaired(true);
    if (isBare(marker)) {
      if (marker !== SOI) kept.push(bytes.subarray(start.at, start.at + 2));
      at = start.at + 2;
      continue;
    }
    if (start.at + 4 > bytes.length) break;
    const end = start.at + 2 + bytes.readUInt16BE(start.at + 2);
    let segment = bytes.subarray(start.at, Math.min(end, bytes.length));
    if (marker === 0xc0 || marker === 0xc1) isSequential = true;
    if (marker === SOS && isSequential && segment.length >= 6 && !hasPlainParameters(segment)) {
      segment = Buffer.from(segment);
      segment.set([0, 63, 0], segment.length - 3);
      warnings.push("the JPEG's scan has parameters that a sequential JPEG may not have");
    }
    kept.push(segment);
    at = end;
    if (marker !== SOS) continue;
    const next = endOfScan(bytes, at);
    kept.push(bytes.subarray(at, next));
    at = next;
  }
  return repaired(false);

  function repaired(hasEnd: boolean): RepairedJpeg {
    if (junk > 0) warnings.push(`the JPEG has ${junk} bytes between its segments that belong to none`);
    if (!hasEnd) warnings.push("the JPEG has no end marker");
    const whole = Buffer.concat([...kept, Buffer.from([0xff, EOI])]);
    return { bytes: whole, warnings, isCut: !hasEnd && !isLastScanWhole(whole) };
  }
}

function hasPlainParameters(scan: Buffer): boolean {
  return scan.subarray(-3).equals(Buffer.from([0, 63, 0]));
}

/** The next marker, and how many bytes before it are neither of a segment nor fill bytes. */
function findMarker(bytes: Buffer, from: number): { at: number; junk: number } | undefined {
  let junk = 0;
  for (let at = from; at + 1 < bytes.length;) {
    if (bytes[at] !== 0xff) {
      const next = bytes.indexOf(0xff, at);
      if (next < 0) return undefined;
      junk += next - at;
      at = next;
    } else if (bytes[at + 1] === 0xff) {
      at++;
    } else if (bytes[at + 1] === 0) {
      junk += 2;
      at += 2;
    } else {
      return { at, junk };
    }
  }
  return undefined;
}

/** Where the entropy-coded data ends: at a marker that is no restart, or with the bytes. */
function endOfScan(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    const marker = bytes[at + 1];
    if (marker === undefined) return at;
    if (marker !== 0 && marker !== 0xff && !isRestart(marker)) return at;
  }
  return bytes.length;
}
