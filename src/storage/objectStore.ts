/**
 * What object storage is to infermill. A kind of storage is a file beside this one that answers these calls for the
 * whole of a bucket; all rules about names, patience and prefixes stand in `storageFolder.ts`.
 */
import type { Readable } from "node:stream";
import { BadInputError } from "../errors.ts";

export interface StoredObject {
  key: string;
  bytes: number;
  /** Unix time in ms. */
  modified: number;
}

export interface OpenedObject {
  /** Of the whole object. */
  bytes: number;
  /** To be read to its end, or destroyed. */
  body: Readable;
}

/** Each call rejects with MissingObjectError, RefusedObjectError or StorageUnavailableError, named after `key`. */
export interface ObjectStore {
  /** Up to 1000 objects whose keys begin with `prefix` and lie behind `after`, in the order of their keys. */
  list(prefix: string, after: string | undefined, limit?: number): Promise<StoredObject[]>;
  /** @param first so many bytes only; the object must not be empty then */
  open(key: string, first?: number): Promise<OpenedObject>;
  /** Undefined where there is none. */
  find(key: string): Promise<StoredObject | undefined>;
  /** Seen whole or not at all; what is larger than a part goes up in several, a few side by side. */
  put(key: string, source: Uint8Array | Readable, mediaType: string): Promise<void>;
  /** Also where there is none. */
  remove(key: string): Promise<void>;
}

export class MissingObjectError extends BadInputError {}

/** The storage refuses this call, and would again. */
export class RefusedObjectError extends BadInputError {}

export class MissingBucketError extends RefusedObjectError {}
