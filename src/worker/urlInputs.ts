/**
 * Fetches what an engine can't reach before one sees it: pictures that requests name by URL into the input store,
 * objects into memory. Not the engine's work: a host that is slow would hold up
 * the other predictions of its chunk, and have the engine killed for taking too
 * long.
 */
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { createEgress, parseOutsideUrl, type Resolve } from "../egress/egress.ts";
import type { Config } from "../config/schema.ts";
import { BadInputError, RetryableError } from "../errors.ts";
import type { InputLabel, InputRef, InputStore, LocalInputRef } from "../queue/inputs.ts";
import type { StorageOptions } from "../storage/storageFolder.ts";
import { createObjectReader } from "./objectInputs.ts";
import type { ReachableInput } from "./storedInputs.ts";
import { newPredictionId } from "../queue/names.ts";
import { version } from "../version.ts";

const MAX_REDIRECTS = 3;

/** The inputs of one prediction, all where an engine can read them. */
export interface FetchedInputs {
  refs: readonly ReachableInput[];
  /** Those of them that were fetched; the caller removes them from the input store. */
  fetched: readonly LocalInputRef[];
  /** Gives back the room of what is held in memory; called once, when the prediction has run. */
  release: () => void;
  /** How long that took. */
  ms: number;
}

export interface FetchInputs {
  /** @throws BadInputError where trying again can't help, else RetryableError or StorageUnavailableError */
  (model: string, refs: readonly InputRef[]): Promise<FetchedInputs>;
  /** Whether something has to be fetched. */
  isNeeded(refs: readonly InputRef[]): boolean;
}

/**
 * @param resolve default: what the operating system says
 * @param storage of object storage that is away: `signal` is aborted to wait no more
 */
export function createInputFetcher(
  config: Config,
  inputs: InputStore,
  {
    resolve,
    storage,
  }: { resolve?: Resolve | undefined; storage?: Pick<StorageOptions, "signal" | "onAway"> } = {},
): FetchInputs {
  const {
    url_inputs: { allow, timeout_ms: timeoutMs },
    max_body_bytes: maxBytes,
  } = config;
  const objects = createObjectReader(config, storage);
  const egress = createEgress({ allow, allowKey: "url_inputs.allow", ...(resolve && { resolve }) });

  async function openUrl(text: string, deadline: number): Promise<IncomingMessage> {
    let url = parseOutsideUrl(text, "image");
    for (let redirects = 0; ; redirects++) {
      const left = Math.max(1, deadline - Date.now());
      const answer = await egress
        .request(url, {
          method: "GET",
          headers: { Accept: "image/*", "User-Agent": `infermill/${version}` },
          timeoutMs: left,
        })
        .catch((error) => {
          throw fetchError(url, error);
        });
      const { statusCode: status = 0, headers } = answer;
      if (status >= 200 && status < 300) return answer;
      answer.destroy();
      const location = status >= 300 && status < 400 && headers.location;
      if (!location) throw statusError(url, status);
      if (redirects === MAX_REDIRECTS)
        throw new BadInputError(`${shown(text)} was redirected more than ${MAX_REDIRECTS} times`);
      if (!URL.canParse(location, url.href))
        throw new BadInputError(`${shown(url.href)} was redirected to no URL`);
      url = parseOutsideUrl(new URL(location, url).href, "a redirect of image");
    }
  }

  async function fetchInput(
    model: string,
    { url: text, ...label }: { url: string } & InputLabel,
  ): Promise<LocalInputRef> {
    const answer = await openUrl(text, Date.now() + timeoutMs);
    const body = Readable.from(limited(answer, text, maxBytes));
    // Under an id of its own: the prediction may be tried again while this try is still under way.
    const { ref, bytes } = await inputs.write({ model, id: newPredictionId() }, 0, body);
    if (bytes > 0) return { ...(ref as LocalInputRef), ...label };
    await inputs.remove([ref]);
    throw new BadInputError(`${shown(text)} is empty`);
  }

  const isElsewhere = (ref: InputRef) => "url" in ref || objects.isObject(ref);

  async function fetchInputs(model: string, refs: readonly InputRef[]): Promise<FetchedInputs> {
    if (!refs.some(isElsewhere))
      return { refs: refs as readonly LocalInputRef[], fetched: [], release: () => {}, ms: 0 };
    const startedAt = performance.now();
    const ofObjects = refs.filter((ref) => objects.isObject(ref));
    const reading = ofObjects.length > 0 ? objects.read(ofObjects) : undefined;
    // Its fault is met below.
    reading?.catch(() => {});
    const outcomes = await Promise.allSettled(
      refs.map(async (ref) => {
        if ("url" in ref) return fetchInput(model, ref);
        const at = ofObjects.indexOf(ref);
        return at < 0 ? (ref as LocalInputRef) : (await reading!).inputs[at]!;
      }),
    );
    const here = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const fetched = here.filter(
      (input): input is LocalInputRef => !("bytes" in input) && !(refs as unknown[]).includes(input),
    );
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    const release = (await reading?.catch(() => undefined))?.release ?? (() => {});
    if (!failed) return { refs: here, fetched, release, ms: performance.now() - startedAt };
    release();
    await inputs.remove(fetched);
    throw failed.reason;
  }

  return Object.assign(fetchInputs, { isNeeded: (refs: readonly InputRef[]) => refs.some(isElsewhere) });
}

async function* limited(answer: IncomingMessage, url: string, maxBytes: number): AsyncGenerator<Buffer> {
  let bytes = Number(answer.headers["content-length"] ?? 0);
  const tooLarge = () =>
    new BadInputError(`${shown(url)} must be a picture of at most ${maxBytes} bytes (max_body_bytes)`);
  if (bytes > maxBytes) throw tooLarge();
  bytes = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw tooLarge();
      yield chunk;
    }
  } catch (error) {
    throw error instanceof BadInputError ? error : fetchError(url, error);
  } finally {
    answer.destroy();
  }
}

/** 408, 425 and 429 ask to come again later; the rest of 4xx won't change its mind. */
function statusError(url: URL, status: number): Error {
  const detail = `${shown(url.href)} answered ${status}`;
  const isTemporary = status >= 500 || [408, 425, 429].includes(status);
  return isTemporary ? new RetryableError(detail) : new BadInputError(detail);
}

function fetchError(url: URL | string, error: unknown): Error {
  if (error instanceof BadInputError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const detail = `${shown(String(url))} can't be fetched: ${message || code}`;
  // The name server says for sure that there is no such name.
  return code === "ENOTFOUND"
    ? new BadInputError(detail, { cause: error })
    : new RetryableError(detail, { cause: error });
}

/** Without its query, which may hold a key that nobody is to see. */
function shown(url: string): string {
  return url.replace(/[?#].*$/s, "").slice(0, 200);
}
