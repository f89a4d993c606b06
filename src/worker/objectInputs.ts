/**
 * Reads inputs that lie in object storage, before an engine sees them: side by side, in memory that has a limit, and
 * with patience, so that storage which is away for a while neither holds up an engine nor fails a prediction.
 */
import type { Config } from "../config/schema.ts";
import { toStoragePlace } from "../config/storagePlace.ts";
import { BadInputError, StorageUnavailableError } from "../errors.ts";
import { lostInput } from "../engines/protocol.ts";
import type { InputLabel, InputRef } from "../queue/inputs.ts";
import { MissingObjectError, RefusedObjectError } from "../storage/objectStore.ts";
import { locateObject, openStorage, type PlacedObject } from "../storage/storage.ts";
import { PATIENCE_MS, type StorageOptions } from "../storage/storageFolder.ts";
import { NotStartedError } from "./enginePool.ts";

/** What a worker holds of objects that no engine has run yet; one may be as large. */
const MAX_HELD_BYTES = 256 * 1024 * 1024;

/** The inputs of one prediction that are objects, in their places; their bytes count as held until they are given back. */
export interface ReadObjects {
  inputs: ({ bytes: Buffer } & InputLabel)[];
  release: () => void;
}

export interface ObjectReader {
  isObject(ref: InputRef): boolean;
  /** @throws BadInputError for what can't be read, StorageUnavailableError, NotStartedError where `signal` is aborted */
  read(refs: readonly InputRef[]): Promise<ReadObjects>;
}

/** @param maxHeldBytes what may be held at a time */
export function createObjectReader(
  config: Config,
  { signal, onAway }: Pick<StorageOptions, "signal" | "onAway"> = {},
  maxHeldBytes = MAX_HELD_BYTES,
): ObjectReader {
  const room = new Room(maxHeldBytes);
  const options = { patienceMs: PATIENCE_MS, signal, onAway };

  /** Where an object lies; undefined for an input of another kind. */
  function placeOf(ref: InputRef): PlacedObject | undefined {
    if (!("stored" in ref)) return locateObject(ref, config, options);
    const { input_storage: place } = config;
    if (!place) throw lostInput();
    const folder = openStorage(toStoragePlace(place, config.s3), { ...options, label: "input_storage" });
    return { folder, path: ref.stored };
  }

  const tooLarge = (name: string, bytes: number) =>
    new BadInputError(`${name} must have at most ${maxHeldBytes} bytes, got ${bytes}`);

  /** Its size is known once it is opened: where there is no room it is closed again, and opened when there is. */
  async function readOne({ folder, path }: PlacedObject, hold: (bytes: number) => Promise<void> | undefined) {
    const mayHold = (bytes: number) => {
      if (bytes > maxHeldBytes) throw tooLarge(folder.nameOf(path), bytes);
      return hold(bytes);
    };
    return [await folder.read(path, { mayHold })];
  }

  /** The room for all of them at once: predictions that each hold some of theirs could wait for each other for ever. */
  async function readSeveral(
    places: readonly PlacedObject[],
    hold: (bytes: number) => Promise<void> | undefined,
  ) {
    const found = await Promise.all(places.map(({ folder, path }) => folder.find(path)));
    const missing = places[found.indexOf(undefined)];
    if (missing) throw new MissingObjectError(`there is no object ${missing.folder.nameOf(missing.path)}`);
    const bytes = found.reduce((sum, object) => sum + object!.bytes, 0);
    if (bytes > maxHeldBytes) throw tooLarge("the inputs of a prediction", bytes);
    await hold(bytes);
    return Promise.all(places.map(({ folder, path }) => folder.read(path)));
  }

  return {
    isObject: (ref) => "stored" in ref || locateObject(ref, config) !== undefined,

    async read(refs) {
      let held = 0;
      const hold = (bytes: number) => {
        held = bytes;
        return room.enter(bytes);
      };
      try {
        const places = refs.map((ref) => placeOf(ref)!);
        const read = await (places.length === 1 ? readOne(places[0]!, hold) : readSeveral(places, hold));
        return {
          inputs: read.map((bytes, index) => ({ ...labelOf(refs[index]!), bytes })),
          release: () => room.leave(held),
        };
      } catch (error) {
        room.leave(held);
        if (signal?.aborted) throw new NotStartedError("the worker is stopping");
        if (!refs.some((ref) => "stored" in ref)) throw error;
        // What was uploaded is ours to find again.
        if (error instanceof MissingObjectError) throw lostInput(error);
        if (error instanceof RefusedObjectError)
          throw new StorageUnavailableError(error.message, { cause: error });
        throw error;
      }
    },
  };
}

function labelOf({ name, media_type }: InputLabel): InputLabel {
  return { ...(name !== undefined && { name }), ...(media_type !== undefined && { media_type }) };
}

/** Bytes that may be held at a time; whoever has to wait enters in the order of coming. */
class Room {
  #free: number;
  readonly #waiting: { bytes: number; enter: () => void }[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** At once, or what is to be waited for. */
  enter(bytes: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && bytes <= this.#free) {
      this.#free -= bytes;
      return undefined;
    }
    return new Promise((resolve) => this.#waiting.push({ bytes, enter: resolve }));
  }

  leave(bytes: number): void {
    this.#free += bytes;
    for (let next = this.#waiting[0]; next && next.bytes <= this.#free; next = this.#waiting[0]) {
      this.#free -= next.bytes;
      this.#waiting.shift();
      next.enter();
    }
  }
}
