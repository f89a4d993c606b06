/** Reference models and photos that lie next to the clone; tests that need them are skipped where they are missing. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const besideTheClone = fileURLToPath(new URL("../../../shared", import.meta.url));
const shared = process.env["INFERMILL_SHARED"] ?? besideTheClone;

function existing(folder: string): string | undefined {
  return existsSync(folder) ? folder : undefined;
}

/** Folder of the reference models, or undefined. `INFERMILL_SHARED` names another folder that holds `models` and `photos`. */
export const sharedModels = existing(path.join(shared, "models"));

/** Folder of the photos that the reference models' NOTES.json speak of, or undefined. */
export const sharedPhotos = existing(path.join(shared, "photos"));

/** Folder of small inputs that failed once, with what is right about them in its NOTES.md, or undefined. */
export const sharedField = existing(path.join(shared, "field"));

/** Why a test was skipped, for `context.skip(noSharedModels)`. */
export const noSharedModels = `no reference models in ${path.join(shared, "models")}; INFERMILL_SHARED names another folder`;
