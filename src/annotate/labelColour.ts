/** The colour of a label: of the label alone, so that it is the same in every picture, run and process. */

/** Steps of 10°, in two lightnesses on which black letters can be read. */
const HUES = 36;
const LIGHTNESSES = [0.56, 0.7];
const SATURATION = 0.85;

/** As `#rrggbb`. */
export function labelColour(label: string): string {
  const mixed = hash(label);
  const hue = (mixed % HUES) * (360 / HUES);
  const lightness = LIGHTNESSES[Math.floor(mixed / HUES) % LIGHTNESSES.length]!;
  const channels = [0, 8, 4].map((offset) => {
    const k = (offset + hue / 30) % 12;
    const chroma = SATURATION * Math.min(lightness, 1 - lightness);
    return lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  });
  return `#${channels.map((channel) => toHex(Math.round(255 * channel))).join("")}`;
}

function toHex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** FNV-1a, mixed once more: labels that differ in one letter get colours that are far apart. */
function hash(text: string): number {
  let sum = 0x811c9dc5;
  for (const letter of text) sum = Math.imul(sum ^ letter.codePointAt(0)!, 0x01000193);
  sum = Math.imul(sum ^ (sum >>> 16), 0x45d9f3b);
  return (sum ^ (sum >>> 13)) >>> 0;
}
