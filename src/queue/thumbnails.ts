/**
 * Small pictures of what predictions were made of, kept as long as they: files where the api and the workers share a
 * disk, else Redis keys. Not every prediction has one.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { thumbnailSize } from "../config/browsers.ts";
import type { Config } from "../config/schema.ts";
import { reachRedis, type RedisClient } from "../redis/connections.ts";
import type { Names } from "./names.ts";
import { createFiles, createKeys } from "./outputs.ts";

export interface ThumbnailStore {
  /** @param bytes WebP */
  write(model: string, id: string, bytes: Buffer): Promise<void>;
  /** @returns undefined where there is none */
  read(model: string, id: string): Promise<Buffer | undefined>;
  /** Of which there is one, in the order of the ids. */
  has(model: string, ids: readonly string[]): Promise<boolean[]>;
  /** Removes what is older than its prediction may be. */
  sweep(): Promise<void>;
}

const NAME = "thumbnail";

export function createThumbnailStore(config: Config, names: Names, redis: RedisClient): ThumbnailStore {
  const folder = join(config.data_dir, "thumbnails");
  const ttlOf = (model: string) => config.models[model]?.result_ttl_seconds ?? config.bulk_ttl_seconds;
  const place =
    config.inputs === "files"
      ? createFiles(folder, config)
      : createKeys(
          redis,
          (owner) => ("id" in owner ? names.thumbnail(owner.model, owner.id) : ""),
          (owner) => ("id" in owner ? ttlOf(owner.model) : 0),
        );
  const areMade = thumbnailSize(config) !== undefined;
  const exists = async (model: string, id: string) => {
    const { file = "", redis: key = "" } = place.refOf({ model, id }, NAME);
    if (config.inputs !== "files") return (await reachRedis(() => redis.exists(key))) === 1;
    return access(join(folder, file)).then(
      () => true,
      () => false,
    );
  };
  return {
    write: async (model, id, bytes) => void (await place.write({ model, id }, NAME, bytes)),
    read: (model, id) => place.read(place.refOf({ model, id }, NAME)),
    // Where none are made, none is asked for.
    has: async (model, ids) =>
      areMade ? Promise.all(ids.map((id) => exists(model, id))) : ids.map(() => false),
    sweep: () => place.sweep(),
  };
}
