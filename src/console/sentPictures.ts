/** The pictures that this page sent itself: the server keeps no more than a thumbnail of them. */
import type { ShownPicture } from "./parts/result.tsx";

/** Of the last predictions; what is older is shown by its thumbnail. */
const MAX_REMEMBERED = 50;

const sent = new Map<string, readonly ShownPicture[]>();

export function rememberPictures(prediction: string, pictures: readonly ShownPicture[]): void {
  if (pictures.length === 0) return;
  sent.set(prediction, pictures);
  const [oldest] = sent.keys();
  if (sent.size > MAX_REMEMBERED && oldest !== undefined) sent.delete(oldest);
}

export function picturesOfPrediction(prediction: string): readonly ShownPicture[] {
  return sent.get(prediction) ?? [];
}
