/**
 * Where the bytes of a response's outputs are kept: small ones in the job's return value, the others in files where
 * the api and the workers share a disk, in raw binary Redis keys where they don't. They live as long as their
 * prediction, or their bulk run.
 */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat, unlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Config } from "../config/schema.ts";
import type { Output } from "../core/request.ts";
import { LoaderError } from "../errors.ts";
import { reachRedis, type RedisClient } from "../redis/connections.ts";
import type { Names } from "./names.ts";

/** BullMQ copies return values into its event stream, which is why more than this stays out of them. */
const INLINE_BYTES = 2048;
/** Names of tensors are of all kinds: `Identity:0`, `/head/Add`. */
const OUTPUT_NAME = /^[^\p{Cc}\p{Cs}]{1,256}$/u;
/** A longer part of a file's name is hashed. */
const MAX_FILE_PART = 128;

/** What a job's return value carries of an output. */
export interface OutputRef {
  name: string;
  media_type: string;
  bytes: number;
  /** The bytes themselves as base64, where they are few. */
  data?: string;
  /** A file of the output store, relative to its folder. */
  file?: string;
  /** A key of the output store. */
  redis?: string;
}

/** What outputs take of Redis. */
export function bytesInRedis(refs: readonly OutputRef[]): number {
  return refs.reduce((sum, ref) => sum + ("redis" in ref || "data" in ref ? ref.bytes : 0), 0);
}

/** Whose outputs they are: of a prediction, or of an entry of a bulk run. */
export type OutputOwner = { model: string; id: string } | { model: string; bulkRun: string; index: string };

export interface OutputStore {
  /**
   * Stores the outputs of one response; resolves once they can be read.
   * @throws LoaderError where a name can't be used
   */
  write(owner: OutputOwner, outputs: readonly Output[]): Promise<OutputRef[]>;
  /** @returns undefined where they are gone */
  read(ref: OutputRef): Promise<Buffer | undefined>;
  /** Those of a response whose references are not at hand, by name. */
  readOf(owner: OutputOwner, name: string): Promise<Buffer | undefined>;
  /** Removes all that a bulk run has. */
  removeBulkRun(run: string): Promise<void>;
  /** Removes what is older than its prediction or bulk run may be. */
  sweep(): Promise<void>;
}

export function createOutputStore(config: Config, names: Names, redis: RedisClient): OutputStore {
  const ttlOf = (owner: OutputOwner) =>
    "id" in owner
      ? (config.models[owner.model]?.result_ttl_seconds ?? config.bulk_ttl_seconds)
      : config.bulk_ttl_seconds;
  const place =
    config.inputs === "files"
      ? createFiles(join(config.data_dir, "outputs"), config)
      : createKeys(
          redis,
          (owner, name) =>
            names.output(
              owner.model,
              "id" in owner ? `${owner.model}:${owner.id}` : `${owner.bulkRun}:${owner.index}`,
              name,
            ),
          ttlOf,
        );
  return {
    async write(owner, outputs) {
      checkNames(outputs);
      return Promise.all(
        outputs.map(async (output) => {
          const { name, mediaType: media_type } = output;
          const bytes = Buffer.from(output.bytes.buffer, output.bytes.byteOffset, output.bytes.byteLength);
          const ref = { name, media_type, bytes: bytes.length };
          if (bytes.length <= INLINE_BYTES) return { ...ref, data: bytes.toString("base64") };
          return { ...ref, ...(await place.write(owner, name, bytes)) };
        }),
      );
    },
    read: async (ref) => (ref.data === undefined ? place.read(ref) : Buffer.from(ref.data, "base64")),
    readOf: async (owner, name) =>
      OUTPUT_NAME.test(name) && ("id" in owner || /^\d+$/.test(owner.index))
        ? place.read(place.refOf(owner, name))
        : undefined,
    removeBulkRun: (run) => place.removeBulkRun(run),
    sweep: () => place.sweep(),
  };
}

function checkNames(outputs: readonly Output[]): void {
  const names = outputs.map(({ name }) => name);
  const faulty = names.find((name, index) => !OUTPUT_NAME.test(name) || names.indexOf(name) !== index);
  if (faulty === undefined) return;
  throw new LoaderError(
    `the outputs of a response must have different names of 1 to 256 printable characters, got ${JSON.stringify(names)}`,
  );
}

type PlaceRef = Pick<OutputRef, "file" | "redis">;

interface Place {
  refOf(owner: OutputOwner, name: string): PlaceRef;
  write(owner: OutputOwner, name: string, bytes: Buffer): Promise<PlaceRef>;
  read(ref: PlaceRef): Promise<Buffer | undefined>;
  removeBulkRun(run: string): Promise<void>;
  sweep(): Promise<void>;
}

/** Below `models/<model>/<end of the id>/` and `bulk/<run>/`. */
export function createFiles(folder: string, config: Config): Place {
  const fileOf = (owner: OutputOwner, name: string) =>
    "id" in owner
      ? `models/${owner.model}/${owner.id.slice(-2)}/${owner.id}~${filePart(name)}`
      : `bulk/${owner.bulkRun}/${owner.index}~${filePart(name)}`;
  return {
    refOf: (owner, name) => ({ file: fileOf(owner, name) }),
    async write(owner, name, bytes) {
      const file = fileOf(owner, name);
      await mkdir(dirname(join(folder, file)), { recursive: true, mode: 0o700 });
      await writeFile(join(folder, file), bytes, { mode: 0o600 });
      return { file };
    },
    read: ({ file = "" }) => readFile(join(folder, file)).catch(ifMissing),
    removeBulkRun: (run) => rm(join(folder, "bulk", run), { recursive: true, force: true }),
    async sweep() {
      for (const model of await entriesOf(join(folder, "models"))) {
        const seconds = config.models[model]?.result_ttl_seconds ?? config.bulk_ttl_seconds;
        for (const shard of await entriesOf(join(folder, "models", model)))
          await removeOlder(join(folder, "models", model, shard), seconds);
      }
      for (const run of await entriesOf(join(folder, "bulk"))) {
        const path = join(folder, "bulk", run);
        await removeOlder(path, config.bulk_ttl_seconds);
        if ((await entriesOf(path)).length === 0) await rm(path, { recursive: true, force: true });
      }
    },
  };
}

function filePart(name: string): string {
  const part = encodeURIComponent(name);
  return part.length <= MAX_FILE_PART ? part : createHash("sha256").update(name).digest("hex");
}

async function entriesOf(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(ifMissing)) ?? [];
}

async function removeOlder(folder: string, ttlSeconds: number): Promise<void> {
  const oldest = Date.now() - ttlSeconds * 1000;
  for (const name of await entriesOf(folder)) {
    const path = join(folder, name);
    const found = await stat(path).catch(ifMissing);
    if (found && found.mtimeMs < oldest) await unlink(path).catch(ifMissing);
  }
}

function ifMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

export function createKeys(
  redis: RedisClient,
  keyOf: (owner: OutputOwner, name: string) => string,
  ttlOf: (owner: OutputOwner) => number,
): Place {
  return {
    refOf: (owner, name) => ({ redis: keyOf(owner, name) }),
    async write(owner, name, bytes) {
      const key = keyOf(owner, name);
      await reachRedis(() => redis.set(key, bytes, "EX", ttlOf(owner)));
      return { redis: key };
    },
    read: async ({ redis: key = "" }) => (await reachRedis(() => redis.getBuffer(key))) ?? undefined,
    // Redis expires the keys by itself.
    removeBulkRun: async () => {},
    sweep: async () => {},
  };
}
