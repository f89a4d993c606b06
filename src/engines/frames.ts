/** Frames on the pipe between a worker and an engine: a prefix of 12 bytes, a header in JSON, bytes beside it. */
import { parseJson } from "../core/json.ts";

/** "IFM" and the version of the framing. */
const MAGIC = Buffer.from("IFM1", "latin1");
const PREFIX_BYTES = 12;

/** What is longer is refused before it is read. JSON text has to fit into one string. */
export const MAX_HEADER_BYTES = 256 * 2 ** 20;
export const MAX_BODY_BYTES = 2 ** 30;

export interface Frame {
  header: Record<string, unknown>;
  body: Buffer;
}

/** What came is no frame; the pipe can't be read any further. */
export class FrameError extends Error {}

/**
 * The parts of a frame, to be written one after the other.
 * @throws RangeError where it is larger than a frame may be
 */
export function encodeFrame(header: string, body: readonly Uint8Array[] = []): Uint8Array[] {
  const headerBytes = Buffer.byteLength(header);
  const bodyBytes = body.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (headerBytes > MAX_HEADER_BYTES)
    throw new RangeError(
      `its JSON has ${headerBytes} bytes, at most ${MAX_HEADER_BYTES} can be sent at once`,
    );
  if (bodyBytes > MAX_BODY_BYTES)
    throw new RangeError(
      `the bytes beside it are ${bodyBytes}, at most ${MAX_BODY_BYTES} can be sent at once`,
    );
  const start = Buffer.allocUnsafe(PREFIX_BYTES + headerBytes);
  MAGIC.copy(start);
  start.writeUInt32LE(headerBytes, 4);
  start.writeUInt32LE(bodyBytes, 8);
  start.write(header, PREFIX_BYTES, "utf8");
  return [start, ...body];
}

/** Puts frames together again from the pieces in which they arrive. */
export class FrameReader {
  #pieces: Buffer[] = [];
  #held = 0;
  #sizes: { header: number; body: number } | undefined;

  /**
   * The frames that are whole with this piece.
   * @throws FrameError
   */
  push(piece: Buffer): Frame[] {
    this.#pieces.push(piece);
    this.#held += piece.length;
    const frames: Frame[] = [];
    for (;;) {
      if (!this.#sizes) {
        if (this.#held < PREFIX_BYTES) return frames;
        this.#sizes = readPrefix(this.#take(PREFIX_BYTES));
      }
      const { header, body } = this.#sizes;
      if (this.#held < header + body) return frames;
      this.#sizes = undefined;
      frames.push({ header: readHeader(this.#take(header)), body: this.#take(body) });
    }
  }

  #take(count: number): Buffer {
    this.#held -= count;
    const first = this.#pieces[0];
    if (first && first.length > count) {
      this.#pieces[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const taken: Buffer[] = [];
    for (let missing = count; missing > 0;) {
      const piece = this.#pieces.shift()!;
      taken.push(piece.subarray(0, missing));
      if (piece.length > missing) this.#pieces.unshift(piece.subarray(missing));
      missing -= taken.at(-1)!.length;
    }
    return taken.length === 1 ? taken[0]! : Buffer.concat(taken);
  }
}

function readPrefix(prefix: Buffer): { header: number; body: number } {
  if (!prefix.subarray(0, 4).equals(MAGIC))
    throw new FrameError(`it begins with ${JSON.stringify(prefix.toString("latin1"))}`);
  const header = prefix.readUInt32LE(4);
  const body = prefix.readUInt32LE(8);
  if (header > MAX_HEADER_BYTES) throw new FrameError(`its header has ${header} bytes`);
  if (body > MAX_BODY_BYTES) throw new FrameError(`its body has ${body} bytes`);
  return { header, body };
}

function readHeader(bytes: Buffer): Record<string, unknown> {
  let header: unknown;
  try {
    // A Python engine writes whole numbers of any size.
    header = parseJson(bytes.toString("utf8"));
  } catch (error) {
    throw new FrameError(`its header is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw new FrameError("its header is no object");
  return header as Record<string, unknown>;
}
