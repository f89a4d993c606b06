/**
 * A bucket, or the part of one below a prefix, as the rest of the house sees it: paths below the prefix, which never
 * lead out of it, and storage that is away for a while is waited for.
 */
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { isSafeKey, splitStorageUrl, type StoragePlace } from "../config/storagePlace.ts";
import { createBackoff } from "../core/backoff.ts";
import { BadInputError, InfermillError, StorageUnavailableError } from "../errors.ts";
import { RefusedObjectError, type ObjectStore, type OpenedObject, type StoredObject } from "./objectStore.ts";

/** How long storage that is away is waited for by what works in the background. */
export const PATIENCE_MS = 60_000;
const PAGE = 1000;

export interface StorageOptions {
  /** How its objects are called in messages, such as the name of its root. Default: by its URL. */
  label?: string | undefined;
  /** How long storage that is away is waited for, in milliseconds; its own library tries for some seconds in any case. */
  patienceMs?: number | undefined;
  /** Aborted to wait no more. */
  signal?: AbortSignal | undefined;
  /** Is told whenever it is waited for. */
  onAway?: ((error: StorageUnavailableError) => void) | undefined;
}

/** An object by its path below the folder. */
export interface FoundObject extends Omit<StoredObject, "key"> {
  path: string;
  /** To list behind it. */
  mark: string;
}

export class StorageFolder {
  readonly #store: ObjectStore;
  readonly #url: string;
  readonly #prefix: string;
  readonly #options: StorageOptions & { label: string };

  constructor(place: StoragePlace, store: ObjectStore, options: StorageOptions = {}) {
    const { key } = splitStorageUrl(place.url);
    this.#store = store;
    this.#url = place.url;
    this.#prefix = key === "" ? "" : `${key}/`;
    this.#options = { ...options, label: options.label ?? place.url };
  }

  /** What an object is called in messages. */
  nameOf(path: string): string {
    return [this.#options.label, path].filter(Boolean).join("/");
  }

  /**
   * The objects below a path, in pages.
   * @param after the mark of the one behind which to begin
   */
  async *list(
    below = "",
    { after, limit = PAGE }: { after?: string | undefined; limit?: number } = {},
  ): AsyncGenerator<FoundObject[]> {
    const prefix = below === "" ? this.#prefix : `${this.#keyOf(below)}/`;
    for (let mark = after; ;) {
      const objects = await this.#patiently(() => this.#store.list(prefix, mark, limit));
      if (objects.length === 0) return;
      // A server that doesn't know where to begin would be listed for ever, and one without an order in part.
      if (mark !== undefined && Buffer.compare(Buffer.from(objects[0]!.key), Buffer.from(mark)) <= 0)
        throw new RefusedObjectError(
          `${this.nameOf(below)} can't be listed: its server lists in no order, or doesn't begin where it is asked to`,
        );
      yield objects.map(({ key, bytes, modified }) => ({
        path: key.slice(prefix.length),
        mark: key,
        bytes,
        modified,
      }));
      mark = objects.at(-1)!.key;
    }
  }

  /** Whether there is an object below a path. */
  async hasObjects(below = ""): Promise<boolean> {
    for await (const page of this.list(below, { limit: 1 })) return page.length > 0;
    return false;
  }

  /**
   * All bytes of an object, or its first ones.
   * @param mayHold is asked, with its size, before they are read; what it answers is waited for without a connection
   * @throws MissingObjectError, RefusedObjectError, StorageUnavailableError
   */
  async read(
    path: string,
    { first, mayHold }: { first?: number; mayHold?: (bytes: number) => Promise<void> | undefined } = {},
  ): Promise<Buffer> {
    const key = this.#keyOf(path);
    let isAllowed = mayHold === undefined;
    for (;;) {
      const found = await this.#patiently(async () => {
        const opened = await this.#store.open(key, first);
        if (isAllowed) return readAll(opened, this.nameOf(path));
        const wait = mayHold!(first === undefined ? opened.bytes : Math.min(first, opened.bytes));
        isAllowed = true;
        if (wait === undefined) return readAll(opened, this.nameOf(path));
        opened.body.destroy();
        return wait;
      });
      if (found) return found;
    }
  }

  find(path: string): Promise<StoredObject | undefined> {
    return this.#patiently(() => this.#store.find(this.#keyOf(path)));
  }

  /** @param source bytes, or what opens the stream anew for another try */
  put(path: string, source: Uint8Array | (() => Readable), mediaType: string): Promise<void> {
    return this.#patiently(() =>
      this.#store.put(this.#keyOf(path), typeof source === "function" ? source() : source, mediaType),
    );
  }

  /** Puts a stream that can't be read twice: without patience. */
  putOnce(path: string, source: Readable, mediaType: string): Promise<void> {
    return this.#named(() => this.#store.put(this.#keyOf(path), source, mediaType));
  }

  remove(path: string): Promise<void> {
    return this.#named(() => this.#store.remove(this.#keyOf(path)));
  }

  /** @throws BadInputError where the path could lead out of the prefix */
  #keyOf(path: string): string {
    if (!isSafeKey(path))
      throw new BadInputError(`an object's path must have no empty part, . or .., got ${this.nameOf(path)}`);
    return this.#prefix + path;
  }

  /** Clients know a place by the name of its root. */
  async #named<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof InfermillError)
        error.message = error.message.replaceAll(this.#url, this.#options.label);
      throw error;
    }
  }

  async #patiently<T>(work: () => Promise<T>): Promise<T> {
    const { patienceMs = 0, signal, onAway } = this.#options;
    const deadline = Date.now() + patienceMs;
    const backoff = createBackoff({ firstMs: 500, maxMs: 5000 });
    for (;;) {
      try {
        return await this.#named(work);
      } catch (error) {
        if (!(error instanceof StorageUnavailableError) || Date.now() >= deadline || signal?.aborted)
          throw error;
        onAway?.(error);
        await sleep(backoff.next(), undefined, signal && { signal }).catch(() => {});
      }
    }
  }
}

async function readAll({ body, bytes }: OpenedObject, name: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
    }
  } catch (cause) {
    throw new StorageUnavailableError(`${name} broke off after ${length} of ${bytes} bytes`, { cause });
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, length);
}
