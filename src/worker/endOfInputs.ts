/**
 * What happens to the inputs of a prediction that has ended: a thumbnail is made of its picture where there is time for
 * one, the inputs of the last ones may be kept for a while, the others are removed.
 */
import { readFile } from "node:fs/promises";
import type { Logger } from "pino";
import { openBelowRoot } from "../config/bulkRoots.ts";
import { thumbnailSize } from "../config/browsers.ts";
import type { Config } from "../config/schema.ts";
import { toFilePath } from "../core/filePaths.ts";
import { UNKNOWN_MEDIA_TYPE } from "../core/request.ts";
import { isUploaded, type InputRef, type InputStore } from "../queue/inputs.ts";
import type { ThumbnailStore } from "../queue/thumbnails.ts";
import { locateObject, type PlacedObject } from "../storage/storage.ts";
import { createThumbnail } from "./thumbnail.ts";

/**
 * Part of a worker's time that thumbnails may take: each costs some milliseconds of a core, which belong to the models,
 * and lasts longer on a busy machine, which makes fewer of them then.
 */
const MAX_SHARE = 0.01;
/** After a pause so much at once: some two hundred of the usual pictures. */
const BURST_MS = 2000;
/** One picture that took long delays the next ones by no more than a hundred times this. */
const MAX_DEBT_MS = 300;

interface Owner {
  model: string;
  id: string;
}

export interface EndOfInputs {
  /**
   * Removes the inputs of a prediction that has ended, once its thumbnail is made; later where they are to be kept.
   * @param wasRead whether an engine came through with them: what killed one must not be decoded here
   */
  end(owner: Owner, refs: readonly InputRef[], wasRead: boolean): Promise<void>;
  /** The same for those that were fetched for one attempt, and are fetched again for another: none is kept. */
  endFetched(owner: Owner, refs: readonly InputRef[], wasRead: boolean): Promise<void>;
  /** Resolves when nothing is under way. */
  close(): Promise<void>;
}

export function createEndOfInputs({
  config,
  inputs,
  thumbnails,
  log,
}: {
  config: Config;
  inputs: InputStore;
  thumbnails: ThumbnailStore;
  log: Logger;
}): EndOfInputs {
  const size = thumbnailSize(config);
  const kept: (readonly InputRef[])[] = [];
  let allowanceMs = BURST_MS;
  let allowedAt = performance.now();
  /** One at a time, so that large pictures don't add up. */
  let last: Promise<void> = Promise.resolve();

  function hasTime(): boolean {
    const now = performance.now();
    allowanceMs = Math.min(BURST_MS, allowanceMs + (now - allowedAt) * MAX_SHARE);
    allowedAt = now;
    return allowanceMs > 0;
  }

  async function make({ model, id }: Owner, ref: InputRef): Promise<void> {
    // Those before it may have taken what was left.
    if (!hasTime()) return;
    const startedAt = performance.now();
    try {
      const bytes = await readInput(ref, inputs, config);
      const thumbnail = bytes && (await createThumbnail(bytes, size!, config.max_picture_pixels));
      if (thumbnail) await thumbnails.write(model, id, thumbnail);
    } catch (error) {
      log.debug({ err: error, model, prediction: id }, "no thumbnail");
    } finally {
      allowanceMs = Math.max(-MAX_DEBT_MS, allowanceMs - (performance.now() - startedAt));
    }
  }

  async function showThumbnail(owner: Owner, refs: readonly InputRef[]): Promise<void> {
    const picture = size === undefined ? undefined : refs.find(mayBePicture);
    if (!picture || !hasTime()) return;
    last = last.then(() => make(owner, picture));
    await last;
  }

  async function endLater(refs: readonly InputRef[]): Promise<void> {
    if (!refs.some(isUploaded)) return;
    kept.push(refs);
    while (kept.length > config.console.keep_inputs) await inputs.remove(kept.shift()!);
  }

  const underWay = new Set<Promise<void>>();

  function follow(ending: Promise<void>): Promise<void> {
    underWay.add(ending);
    return ending.finally(() => underWay.delete(ending));
  }

  const withThumbnail = async (owner: Owner, refs: readonly InputRef[], wasRead: boolean) => {
    if (wasRead) await showThumbnail(owner, refs);
  };

  return {
    end: (owner, refs, wasRead) => follow(withThumbnail(owner, refs, wasRead).then(() => endLater(refs))),
    endFetched: (owner, refs, wasRead) =>
      follow(withThumbnail(owner, refs, wasRead).then(() => inputs.remove(refs))),
    close: async () => void (await Promise.allSettled(underWay)),
  };
}

function mayBePicture({ media_type: type = UNKNOWN_MEDIA_TYPE, ...ref }: InputRef): boolean {
  // What is elsewhere was fetched, and is gone by now.
  return !("url" in ref) && (type === UNKNOWN_MEDIA_TYPE || type.startsWith("image/"));
}

async function readInput(ref: InputRef, inputs: InputStore, config: Config): Promise<Buffer | undefined> {
  if ("data" in ref) return Buffer.from(ref.data, "base64");
  if ("path" in ref && !("root" in ref)) return readFile(toFilePath(ref.path));
  const stored = locateObject(ref, config);
  if (stored) return readObject(stored, config);
  if (!("root" in ref)) return inputs.read(ref);
  const file = await openBelowRoot(ref, config.bulk_roots);
  try {
    const stats = await file.stat();
    return stats.isFile() && stats.size <= config.max_body_bytes ? await file.readFile() : undefined;
  } finally {
    await file.close();
  }
}

async function readObject({ folder, path }: PlacedObject, config: Config): Promise<Buffer | undefined> {
  const found = await folder.find(path);
  return found && found.bytes <= config.max_body_bytes ? folder.read(path) : undefined;
}
