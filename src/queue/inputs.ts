/**
 * Where the bytes of a request's pictures wait: in files where the api and the
 * workers share a disk, in raw binary Redis keys or object storage where they don't. Job data
 * carries references only. Whoever ends a prediction removes its inputs; what
 * is left over all the same goes after a time to live.
 */
import type { Hash } from "node:crypto";
import { mkdir, open, readdir, readFile, stat, unlink, writeFile, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import type { Config } from "../config/schema.ts";
import { toStoragePlace } from "../config/storagePlace.ts";
import { reachRedis, type RedisClient } from "../redis/connections.ts";
import type { StorageWatch } from "./storageWatch.ts";
import { diskFaultOf } from "../core/diskFaults.ts";
import type { DiskWatch } from "./diskWatch.ts";
import { StorageUnavailableError } from "../errors.ts";
import { MissingObjectError, RefusedObjectError } from "../storage/objectStore.ts";
import { openStorage } from "../storage/storage.ts";
import type { StorageFolder } from "../storage/storageFolder.ts";
import type { Names } from "./names.ts";

/** Pictures are nobody else's on this machine. */
const OWN_FILE = 0o600;
const OWN_FOLDER = 0o700;
const SMALL_BYTES = 1024 * 1024;

/** What an input is called and what it holds; left out where it is the default. */
export interface InputLabel {
  /** Default `image`. */
  name?: string;
  /** Default `application/octet-stream`. */
  media_type?: string;
}

/** What job data carries of an input. */
export type InputRef =
  | LocalInputRef
  /** Bytes elsewhere; the worker fetches them into the input store before an engine gets them. */
  | ({ url: string } & InputLabel)
  /** An object of the input store, by its path below `input_storage`; the worker reads it for the engine. */
  | ({ stored: string } & InputLabel)
  /** A user's own object, by its s3:// URL: of a bulk run of the command line; never removed by infermill. */
  | ({ object: string } & InputLabel);

/** Whether an input's bytes are in the input store, and go when its prediction has ended. */
export function isUploaded(ref: InputRef): boolean {
  return "file" in ref || "redis" in ref || "stored" in ref;
}

/** An input that an engine can read. */
export type LocalInputRef = LocalPlace & InputLabel;

type LocalPlace =
  /** Few bytes, as base64, that need no store. */
  | { data: string }
  /** A file of the input store, relative to its folder. */
  | { file: string }
  /** A key of the input store. */
  | { redis: string }
  /** A user's own file or object below one of the configuration's `bulk_roots`; never removed by infermill. */
  | { root: string; path: string }
  /** A file by its absolute path: of a bulk run that was started on this machine's command line. */
  | { path: string };

/** An input of at most so many bytes may travel in the job itself. */
export const MAX_INLINE_INPUT_BYTES = 4096;

/** An input that was stored. */
export interface StoredInput {
  ref: InputRef;
  /** Digest of its bytes, where it was asked for. */
  sha256?: string;
  bytes: number;
}

/** Whose input it is. */
export interface InputOwner {
  model: string;
  id: string;
}

export interface InputStore {
  /**
   * Stores one input; resolves once a worker can read it.
   * @param owner the prediction, or whatever else has an id of its own
   * @param source bytes, or a stream that is written as it arrives
   * @param hash takes the bytes in for `sha256`
   */
  write(owner: InputOwner, index: number, source: Buffer | Readable, hash?: Hash): Promise<StoredInput>;
  /** The bytes of an input that this store holds; undefined where they are gone, or elsewhere. */
  read(ref: InputRef): Promise<Buffer | undefined>;
  remove(refs: readonly InputRef[]): Promise<void>;
  /**
   * Removes what is older than its time to live; answers how many.
   * @throws why a file could not be removed, when it has removed the others
   */
  sweep(): Promise<number>;
}

/** What guards the places that inputs are written to. */
export interface InputGuards {
  storage: StorageWatch;
  disk: DiskWatch;
}

/** @param guards left out where the input's prediction was accepted before: its input must find room */
export function createInputStore(
  config: Config,
  names: Names,
  redis: RedisClient,
  guards?: InputGuards,
): InputStore {
  const { input_storage: place, input_ttl_seconds: ttlSeconds } = config;
  if (config.inputs === "files") return createFileStore(inputFolder(config), ttlSeconds, guards?.disk);
  if (config.inputs === "redis" || place === undefined)
    return createRedisStore(redis, names, ttlSeconds, guards?.storage);
  return createObjectInputs(
    openStorage(toStoragePlace(place, config.s3), { label: "input_storage" }),
    ttlSeconds,
  );
}

export function inputFolder(config: Pick<Config, "data_dir">): string {
  return join(config.data_dir, "inputs");
}

function createFileStore(folder: string, ttlSeconds: number, disk: DiskWatch | undefined): InputStore {
  return {
    async write({ id }, index, source, hash) {
      // The end of an id is its random part: 256 folders keep each one short.
      const file = `${id.slice(-2).toLowerCase()}/${id}-${index}`;
      disk?.check();
      try {
        const bytes = await writeBytes(join(folder, file), source, hash);
        return { ref: { file }, bytes, ...(hash && { sha256: hash.digest("hex") }) };
      } catch (error) {
        await removeFile(join(folder, file));
        throw diskFaultOf(error) ?? error;
      }
    },

    async read(ref) {
      if (!("file" in ref)) return undefined;
      return readFile(join(folder, ref.file)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
        return undefined;
      });
    },

    async remove(refs) {
      const files = refs.flatMap((ref) => ("file" in ref ? [join(folder, ref.file)] : []));
      await Promise.all(files.map(removeFile));
    },

    async sweep() {
      const oldest = Date.now() - ttlSeconds * 1000;
      let removed = 0;
      let fault: unknown;
      for (const shard of await readdir(folder).catch(() => [])) {
        for (const name of await readdir(join(folder, shard)).catch(() => [])) {
          const path = join(folder, shard, name);
          const age = await stat(path).catch(() => undefined);
          if (!age || age.mtimeMs > oldest) continue;
          try {
            await removeFile(path);
            removed++;
          } catch (error) {
            fault ??= error;
          }
        }
      }
      if (fault) throw fault;
      return removed;
    },
  };
}

/** Removes a file if it is there; `rm` would look at it first. */
async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
}

/**
 * Writes a stream as it arrives. One that ends within SMALL_BYTES is written at once instead: a third of the calls to
 * the system, which count at hundreds of uploads a second.
 */
async function writeBytes(path: string, source: Buffer | Readable, hash?: Hash): Promise<number> {
  if (Buffer.isBuffer(source)) {
    hash?.update(source);
    await inFolder(path, () => writeFile(path, source, { mode: OWN_FILE }));
    return source.length;
  }
  const beginning: Buffer[] = [];
  let bytes = 0;
  let file: FileHandle | undefined;
  try {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      hash?.update(chunk);
      bytes += chunk.length;
      if (bytes <= SMALL_BYTES) {
        beginning.push(chunk);
        continue;
      }
      if (!file) {
        file = await inFolder(path, () => open(path, "w", OWN_FILE));
        await file.writeFile(Buffer.concat(beginning));
      }
      await file.writeFile(chunk);
    }
  } finally {
    await file?.close();
  }
  if (!file) await inFolder(path, () => writeFile(path, Buffer.concat(beginning), { mode: OWN_FILE }));
  return bytes;
}

/** Begins a file; its folder is made where it isn't there, at first or since somebody removed it. */
async function inFolder<T>(path: string, begin: () => Promise<T>): Promise<T> {
  try {
    return await begin();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    await mkdir(dirname(path), { recursive: true, mode: OWN_FOLDER });
    return begin();
  }
}

function createRedisStore(
  redis: RedisClient,
  names: Names,
  ttlSeconds: number,
  storage: StorageWatch | undefined,
): InputStore {
  return {
    async write({ model, id }, index, source, hash) {
      const bytes = Buffer.isBuffer(source) ? source : await readAll(source);
      storage?.claim(model, bytes.length);
      const key = names.input(model, id, index);
      await reachRedis(() => redis.set(key, bytes, "EX", ttlSeconds));
      return {
        ref: { redis: key },
        bytes: bytes.length,
        ...(hash && { sha256: hash.update(bytes).digest("hex") }),
      };
    },

    async read(ref) {
      if (!("redis" in ref)) return undefined;
      return (await reachRedis(() => redis.getBuffer(ref.redis))) ?? undefined;
    },

    async remove(refs) {
      const keys = refs.flatMap((ref) => ("redis" in ref ? [ref.redis] : []));
      if (keys.length > 0) await redis.unlink(keys);
    },

    // Redis expires the keys by itself.
    sweep: async () => 0,
  };
}

function createObjectInputs(folder: StorageFolder, ttlSeconds: number): InputStore {
  return {
    async write({ id }, index, source, hash) {
      const path = `${id.slice(-2).toLowerCase()}/${id}-${index}`;
      let bytes = 0;
      let fault: unknown;
      // What breaks off is the client's connection then, and not the storage's.
      async function* counted() {
        try {
          for await (const chunk of Buffer.isBuffer(source) ? [source] : (source as AsyncIterable<Buffer>)) {
            hash?.update(chunk);
            bytes += chunk.length;
            yield chunk;
          }
        } catch (error) {
          fault = error;
          throw error;
        }
      }
      await folder
        .putOnce(path, Readable.from(counted(), { objectMode: false }), "application/octet-stream")
        .catch((error: unknown) => {
          if (fault) throw fault;
          // That we may not write there is none of the client's faults.
          throw error instanceof RefusedObjectError
            ? new StorageUnavailableError(error.message, { cause: error })
            : error;
        });
      return { ref: { stored: path }, bytes, ...(hash && { sha256: hash.digest("hex") }) };
    },

    async read(ref) {
      if (!("stored" in ref)) return undefined;
      return folder.read(ref.stored).catch((error: unknown) => {
        if (error instanceof MissingObjectError) return undefined;
        throw error;
      });
    },

    async remove(refs) {
      const paths = refs.flatMap((ref) => ("stored" in ref ? [ref.stored] : []));
      await Promise.all(paths.map((path) => folder.remove(path)));
    },

    async sweep() {
      const oldest = Date.now() - ttlSeconds * 1000;
      let removed = 0;
      for await (const page of folder.list()) {
        for (const { path, modified } of page) {
          if (modified > oldest) continue;
          await folder.remove(path);
          removed++;
        }
      }
      return removed;
    },
  };
}

async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
