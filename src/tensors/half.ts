/** The 16 bits of IEEE 754 halves (float16) as numbers, and back. Node has a Float16Array from 23 on only. */

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** The 16 bits of the half that is nearest (ties to even). */
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

/** The number that the 16 bits of a half mean. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let table: Float32Array | undefined;

/** The numbers of many halves, from a table that is computed at the first call (256 KB). */
export function fromHalves(bits: Uint16Array): Float32Array {
  table ??= Float32Array.from({ length: 0x1_0000 }, (_, index) => fromHalf(index));
  const numbers = new Float32Array(bits.length);
  for (let index = 0; index < bits.length; index++) numbers[index] = table[bits[index]!]!;
  return numbers;
}
