/**
 * Whether all blocks of a baseline JPEG are there. libvips looks for warnings before each strip of rows, so that it
 * misses what libjpeg says of the last one; where the end marker is missing, that is where a cut would show.
 */

interface Component {
  horizontal: number;
  vertical: number;
}

interface Frame {
  width: number;
  height: number;
  components: Map<number, Component>;
}

/** Codes of each length: the first code, and the index of its symbol. */
interface Table {
  firstCode: Int32Array;
  firstSymbol: Int32Array;
  counts: Uint8Array;
  symbols: Buffer;
}

/**
 * Decodes the codes of the last scan without making pixels of them. True, too, for what isn't sequential or has other
 * oddities: the decoder finds the faults of those before it answers.
 * @param bytes as `repairJpeg` leaves them: nothing between segments, an end marker
 */
export function isLastScanWhole(bytes: Buffer): boolean {
  try {
    return readSegments(bytes);
  } catch (error) {
    // A segment ends before what it should hold.
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function readSegments(bytes: Buffer): boolean {
  const tables = new Map<number, Table>();
  let frame: Frame | undefined;
  let restartInterval = 0;
  let isWhole = true;
  for (let at = 2; at + 4 <= bytes.length && bytes[at + 1] !== 0xd9;) {
    const marker = bytes[at + 1]!;
    const end = at + 2 + bytes.readUInt16BE(at + 2);
    const body = bytes.subarray(at + 4, end);
    at = end;
    if (marker === 0xc4) readTables(body, tables);
    else if (marker === 0xdd) restartInterval = body.readUInt16BE(0);
    else if (marker === 0xc0 || marker === 0xc1) frame = readFrame(body);
    else if (marker === 0xda) {
      if (!frame) return true;
      const scan = new ScanReader(bytes, at);
      isWhole = readScan(scan, body, frame, tables, restartInterval);
      at = scan.end();
    }
  }
  return isWhole;
}

function readFrame(body: Buffer): Frame {
  const components = new Map<number, Component>();
  for (let at = 6; at + 2 < body.length; at += 3)
    components.set(body[at]!, { horizontal: body[at + 1]! >> 4, vertical: body[at + 1]! & 15 });
  return { height: body.readUInt16BE(1), width: body.readUInt16BE(3), components };
}

function readTables(body: Buffer, tables: Map<number, Table>): void {
  for (let at = 0; at + 17 <= body.length;) {
    const id = body[at]!;
    const counts = body.subarray(at + 1, at + 17);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const firstCode = new Int32Array(16);
    const firstSymbol = new Int32Array(16);
    for (let length = 0, code = 0, symbol = 0; length < 16; length++) {
      firstCode[length] = code;
      firstSymbol[length] = symbol;
      code = (code + counts[length]!) << 1;
      symbol += counts[length]!;
    }
    tables.set(id, { firstCode, firstSymbol, counts, symbols: body.subarray(at + 17, at + 17 + total) });
    at += 17 + total;
  }
}

/** ITU-T T.81, A.2 and F.2: how many blocks there are, and the codes of each. */
function readScan(
  scan: ScanReader,
  header: Buffer,
  { width, height, components }: Frame,
  tables: ReadonlyMap<number, Table>,
  restartInterval: number,
): boolean {
  const all = [...components.values()];
  const mostAcross = Math.max(...all.map(({ horizontal }) => horizontal));
  const mostDown = Math.max(...all.map(({ vertical }) => vertical));
  const count = header[0]!;
  const blocks: { dc: Table; ac: Table }[] = [];
  let units = Math.ceil(width / (8 * mostAcross)) * Math.ceil(height / (8 * mostDown));
  for (let index = 0; index < count; index++) {
    const component = components.get(header[1 + index * 2]!);
    const ids = header[2 + index * 2]!;
    const dc = tables.get(ids >> 4);
    const ac = tables.get(16 + (ids & 15));
    if (!component || !dc || !ac) return true;
    const { horizontal, vertical } = component;
    if (count === 1)
      units =
        Math.ceil((width * horizontal) / mostAcross / 8) * Math.ceil((height * vertical) / mostDown / 8);
    const perUnit = count === 1 ? 1 : horizontal * vertical;
    for (let block = 0; block < perUnit; block++) blocks.push({ dc, ac });
  }
  for (let unit = 0; unit < units; unit++) {
    if (restartInterval > 0 && unit > 0 && unit % restartInterval === 0 && !scan.restart()) return false;
    for (const { dc, ac } of blocks) if (!readBlock(scan, dc, ac)) return false;
  }
  return true;
}

function readBlock(scan: ScanReader, dc: Table, ac: Table): boolean {
  const size = scan.symbol(dc);
  if (size === undefined || !scan.skip(size)) return false;
  for (let index = 1; index < 64; index++) {
    const runAndSize = scan.symbol(ac);
    if (runAndSize === undefined) return false;
    if ((runAndSize & 15) === 0 && runAndSize !== 0xf0) return true;
    index += runAndSize >> 4;
    if (!scan.skip(runAndSize & 15)) return false;
  }
  return true;
}

/** Bits of entropy-coded data, up to the next marker. */
class ScanReader {
  readonly #bytes: Buffer;
  #at: number;
  #bits = 0;
  #count = 0;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  /** Undefined where the data ends, or no code begins like it. */
  symbol({ firstCode, firstSymbol, counts, symbols }: Table): number | undefined {
    let code = 0;
    for (let length = 0; length < 16; length++) {
      if (this.#count === 0 && !this.#fill()) return undefined;
      this.#count--;
      code = (code << 1) | ((this.#bits >> this.#count) & 1);
      const offset = code - firstCode[length]!;
      if (offset < counts[length]!) return symbols[firstSymbol[length]! + offset];
    }
    return undefined;
  }

  skip(bits: number): boolean {
    let left = bits;
    while (left > this.#count) {
      left -= this.#count;
      this.#count = 0;
      if (!this.#fill()) return false;
    }
    this.#count -= left;
    return true;
  }

  /** Passes over a restart marker; false where none follows. */
  restart(): boolean {
    this.#count = 0;
    const marker = this.#bytes[this.#at + 1] ?? 0;
    if (this.#bytes[this.#at] !== 0xff || marker < 0xd0 || marker > 0xd7) return false;
    this.#at += 2;
    return true;
  }

  /** Where the next segment begins. */
  end(): number {
    for (let at = this.#bytes.indexOf(0xff, this.#at); at >= 0; at = this.#bytes.indexOf(0xff, at + 1)) {
      const marker = this.#bytes[at + 1] ?? 0xd9;
      if (marker !== 0 && marker !== 0xff && (marker < 0xd0 || marker > 0xd7)) return at;
    }
    return this.#bytes.length;
  }

  #fill(): boolean {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) return false;
    if (byte === 0xff) {
      if (this.#bytes[this.#at + 1] !== 0) return false;
      this.#at++;
    }
    this.#at++;
    this.#bits = byte;
    this.#count = 8;
    return true;
  }
}
