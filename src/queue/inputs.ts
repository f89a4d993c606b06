/**
 * Where the bytes of a request's pictures wait: in files where the api and the
 * workers share a disk, in raw binary Redis keys where they don't. Job data
 * carries references only. Whoever ends a prediction removes its inputs; what
 * is left over all the same goes after a time to live.
 */
import { createHash, type Hash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { join, sep } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Redis } from "ioredis";
import type { Config } from "../config/schema.ts";
import { BadInputError } from "../errors.ts";
import { reachRedis } from "./connections.ts";
import type { Names } from "./names.ts";

/** What job data carries of an input. */
export type InputRef =
  /** A file of the input store, relative to its folder. */
  | { file: string }
  /** A key of the input store. */
  | { redis: string }
  /** A user's own file below one of the configuration's `bulk_roots`; never removed by infermill. */
  | { root: string; path: string };

/** An input that was stored, with the digest of its bytes. */
export interface StoredInput {
  ref: InputRef;
  sha256: string;
  bytes: number;
}

export interface InputStore {
  /**
   * Stores one input; resolves once a worker can read it.
   * @param source bytes, or a stream that is written as it arrives
   */
  write(predictionId: string, index: number, source: Buffer | Readable): Promise<StoredInput>;
  remove(refs: readonly InputRef[]): Promise<void>;
  /** Removes what is older than its time to live; answers how many. */
  sweep(): Promise<number>;
}

export function createInputStore(config: Config, names: Names, redis: Redis): InputStore {
  return config.inputs === "files"
    ? createFileStore(inputFolder(config), config.input_ttl_seconds)
    : createRedisStore(redis, names, config.input_ttl_seconds);
}

export function inputFolder(config: Pick<Config, "data_dir">): string {
  return join(config.data_dir, "inputs");
}

function createFileStore(folder: string, ttlSeconds: number): InputStore {
  const made = new Map<string, Promise<unknown>>();

  return {
    async write(predictionId, index, source) {
      const hash = createHash("sha256");
      // The end of an id is its random part: 256 folders keep each one short.
      const shard = predictionId.slice(-2).toLowerCase();
      const file = `${shard}/${predictionId}-${index}`;
      try {
        if (!made.has(shard)) made.set(shard, mkdir(join(folder, shard), { recursive: true }));
        await made.get(shard);
        const bytes = await writeBytes(join(folder, file), source, hash);
        return { ref: { file }, sha256: hash.digest("hex"), bytes };
      } catch (error) {
        made.delete(shard);
        await rm(join(folder, file), { force: true });
        throw error;
      }
    },

    async remove(refs) {
      const files = refs.flatMap((ref) => ("file" in ref ? [join(folder, ref.file)] : []));
      await Promise.all(files.map((file) => rm(file, { force: true })));
    },

    async sweep() {
      const oldest = Date.now() - ttlSeconds * 1000;
      let removed = 0;
      for (const shard of await readdir(folder).catch(() => [])) {
        for (const name of await readdir(join(folder, shard)).catch(() => [])) {
          const path = join(folder, shard, name);
          const age = await stat(path).catch(() => undefined);
          if (!age || age.mtimeMs > oldest) continue;
          await rm(path, { force: true });
          removed++;
        }
      }
      return removed;
    },
  };
}

async function writeBytes(path: string, source: Buffer | Readable, hash: Hash): Promise<number> {
  if (Buffer.isBuffer(source)) {
    hash.update(source);
    await writeFile(path, source);
    return source.length;
  }
  let bytes = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  await pipeline(source, measure, createWriteStream(path));
  return bytes;
}

function createRedisStore(redis: Redis, names: Names, ttlSeconds: number): InputStore {
  return {
    async write(predictionId, index, source) {
      const bytes = Buffer.isBuffer(source) ? source : await readAll(source);
      const key = names.input(predictionId, index);
      await reachRedis(() => redis.set(key, bytes, "EX", ttlSeconds));
      return {
        ref: { redis: key },
        sha256: createHash("sha256").update(bytes).digest("hex"),
        bytes: bytes.length,
      };
    },

    async remove(refs) {
      const keys = refs.flatMap((ref) => ("redis" in ref ? [ref.redis] : []));
      if (keys.length > 0) await redis.unlink(keys);
    },

    // Redis expires the keys by itself.
    sweep: async () => 0,
  };
}

async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Where a reader finds the inputs that references name. */
export interface InputSources {
  /** Folder of the file store. */
  folder: string;
  /** Real folders by the name of their bulk root. */
  roots: Readonly<Record<string, string>>;
  /** Needed where inputs wait in Redis. */
  redis?: Redis | undefined;
}

/**
 * Reads the inputs of a whole chunk: files side by side, Redis keys with one MGET. What can't be read is an error in
 * its place, so that it fails its own prediction only.
 */
export async function readInputs(
  refs: readonly InputRef[],
  sources: InputSources,
): Promise<(Buffer | BadInputError)[]> {
  const keys = refs.flatMap((ref) => ("redis" in ref ? [ref.redis] : []));
  const values = keys.length > 0 && sources.redis ? await sources.redis.mgetBuffer(keys) : [];
  const byKey = new Map(keys.map((key, index) => [key, values[index]]));
  return Promise.all(
    refs.map(async (ref) => {
      if ("redis" in ref) return byKey.get(ref.redis) ?? lostInput();
      try {
        return await readFile(
          "file" in ref ? join(sources.folder, ref.file) : await realFile(ref, sources.roots),
        );
      } catch (error) {
        if (error instanceof BadInputError) return error;
        return "file" in ref
          ? lostInput(error)
          : new BadInputError(`${ref.root}/${ref.path} can't be read`, { cause: error });
      }
    }),
  );
}

function lostInput(cause?: unknown): BadInputError {
  return new BadInputError(
    "the stored picture is gone: it outlived input_ttl_seconds, or api and worker don't share data_dir (then set inputs to redis)",
    { cause },
  );
}

async function realFile(
  ref: { root: string; path: string },
  roots: Readonly<Record<string, string>>,
): Promise<string> {
  const root = roots[ref.root];
  if (!root) throw new BadInputError(`there is no bulk root "${ref.root}"`);
  const folder = await realpath(root);
  const file = await realpath(join(folder, ref.path)).catch((error: NodeJS.ErrnoException) => {
    throw new BadInputError(`there is no file ${ref.root}/${ref.path}`, { cause: error });
  });
  if (!file.startsWith(folder + sep))
    throw new BadInputError(`${ref.root}/${ref.path} leads out of its bulk root`);
  if (!(await stat(file)).isFile()) throw new BadInputError(`${ref.root}/${ref.path} is no regular file`);
  return file;
}

/**
 * Reads `<root>/<path>`, the way clients name a file below a bulk root.
 * @throws BadInputError where the root is unknown or the path is absolute or leads upwards.
 */
export function parseFileReference(text: string, roots: Readonly<Record<string, string>>): InputRef {
  const slash = text.indexOf("/");
  const root = slash < 0 ? text : text.slice(0, slash);
  const path = text.slice(slash + 1);
  const known = Object.keys(roots);
  if (slash < 0 || path === "" || !Object.hasOwn(roots, root)) {
    throw new BadInputError(
      `image must be <root>/<path> with a root of bulk_roots (${known.length > 0 ? known.join(", ") : "none is configured"}), got ${JSON.stringify(text.slice(0, 200))}`,
    );
  }
  if (path.startsWith("/") || path.includes("\0") || path.split(/[/\\]/).includes("..")) {
    throw new BadInputError(`image must stay below its root, got ${JSON.stringify(text.slice(0, 200))}`);
  }
  return { root, path };
}
