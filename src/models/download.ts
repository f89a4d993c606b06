/**
 * Brings one remote file into a `.part` file: over redirects, again after faults that pass, from where the last
 * connection broke. Naming the finished file is left to the cache.
 */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { formatBytes } from "../core/byteSize.ts";
import { describeProgress, showDownload } from "./downloadProgress.ts";
import { ModelSourceError } from "./modelSourceError.ts";
import type { RemoteFile } from "./remoteFile.ts";

const RETRY_DELAYS_MS = [1000, 2000, 4000, 8000];
const MAX_RETRY_AFTER_MS = 60_000;
const SILENCE_LIMIT_MS = 60_000;
const MAX_REDIRECTS = 10;

export interface DownloadOptions {
  /** Takes a line about what happens. */
  tell: (line: string) => void;
  /** Waits in milliseconds before each further try after a fault that may pass. Counted anew after progress. Default 1, 2, 4, 8 s. */
  retryDelaysMs?: readonly number[] | undefined;
  /** Longest time in milliseconds that a host may send nothing. Default a minute. */
  silenceLimitMs?: number | undefined;
}

/** Next to the part: the ETag that its bytes belong to. */
export const etagFileOf = (part: string): string => `${part}.etag`;

/**
 * Completes `part` and checks it by the checksum of the source, else by the one that the Hub names.
 * @throws ModelSourceError when the host refuses, can't be reached, or sends another file than expected
 */
export async function downloadFile(
  remote: RemoteFile,
  part: string,
  options: DownloadOptions,
): Promise<void> {
  const beganEarlier = (await sizeOf(part)) > 0 && (await sizeOf(etagFileOf(part))) > 0;
  const expected = await fetchWithRetries(remote, part, options);
  if (!expected) return;
  let got = await sha256Of(part);
  if (got !== expected && beganEarlier) {
    // A crash of the machine may have damaged what the earlier run had written.
    options.tell("What an earlier run had downloaded is damaged; downloading it all again");
    await removePart(part);
    await fetchWithRetries(remote, part, options);
    got = await sha256Of(part);
  }
  if (got === expected) return;
  const size = formatBytes(await sizeOf(part));
  await removePart(part);
  throw new ModelSourceError(
    `"${remote.source}" must have the sha256 ${expected}, got ${got} (${size}); the file was removed. ` +
      (remote.sha256
        ? "Compare the sha256 of the configuration with the publisher's: one of the two changed, or the address answers with a page instead of the file"
        : `The sha256 is the one that ${remote.url.host} names: try again later, or from another network`),
  );
}

/** The sha256 of a file in lower-case hexadecimal digits. */
export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), hash);
  return hash.digest("hex");
}

// Tries

/** A fault that a further try may not meet. */
class PassingFault extends Error {
  readonly retryAfterMs: number;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/** Answers the sha256 that the file must have, if the source or the host names one. */
async function fetchWithRetries(
  remote: RemoteFile,
  part: string,
  options: DownloadOptions,
): Promise<string | undefined> {
  const { tell, retryDelaysMs = RETRY_DELAYS_MS } = options;
  let furthest = await sizeOf(part);
  let tries = 0;
  for (;;) {
    try {
      return await fetchRest(remote, part, options);
    } catch (error) {
      if (!(error instanceof PassingFault)) throw error;
      const size = await sizeOf(part);
      if (size > furthest) {
        furthest = size;
        tries = 0;
      }
      const delay = retryDelaysMs[tries++];
      if (delay === undefined) {
        throw new ModelSourceError(
          `"${remote.source}" can't be downloaded from ${remote.url.host}: ${error.message} (tried ${tries} times). ` +
            `Try again when this machine reaches ${remote.url.host}${remote.hub ? ", set HF_ENDPOINT to a mirror" : ""}, ` +
            `or bring the file by other means and name its path`,
          { cause: error },
        );
      }
      const wait = Math.min(Math.max(delay, error.retryAfterMs), MAX_RETRY_AFTER_MS);
      tell(`${error.message}; trying again in ${wait / 1000} s`);
      await sleep(wait);
    }
  }
}

/** One request: all of the file, or what `part` still lacks. */
async function fetchRest(
  remote: RemoteFile,
  part: string,
  { tell, silenceLimitMs = SILENCE_LIMIT_MS }: DownloadOptions,
): Promise<string | undefined> {
  const etag = await readFile(etagFileOf(part), "utf8").catch(() => "");
  const have = etag ? await sizeOf(part) : 0;
  const silence = watchSilence(silenceLimitMs);
  try {
    const { response, expected } = await request(
      remote,
      have > 0 ? { have, etag } : undefined,
      silence.signal,
    );
    const { status } = response;
    if (status === 416 && response.headers.get("content-range") === `bytes */${have}`) return expected;
    const start = status === 200 ? 0 : have;
    if (start > 0 && !continues(response, have, etag)) {
      await response.body?.cancel();
      await removePart(part);
      throw new PassingFault("the host continued at another place than it was asked for");
    }
    await preparePart(part, start, response);

    const total = totalSize(response, start);
    const host = new URL(response.url || remote.url).host;
    tell(
      start > 0
        ? `Going on at ${describeProgress(start, total)}`
        : `Downloading ${total === undefined ? "" : `${formatBytes(total)} `}from ${host}, once`,
    );
    const progress = await showDownload(start, total, tell);
    const received = (bytes: number) => {
      silence.received();
      progress.advance(bytes);
    };
    try {
      await pipeline(
        readBody(response, received),
        createWriteStream(part, { flags: "r+", start, flush: true }),
      );
    } finally {
      progress.end();
    }
    const size = await sizeOf(part);
    if (total !== undefined && size !== total) {
      throw new PassingFault(`the host sent ${size} bytes instead of ${total}`);
    }
    return expected;
  } finally {
    silence.stop();
  }
}

/** Empties the part unless the response resumes it, and notes what its bytes belong to. */
async function preparePart(part: string, start: number, response: Response): Promise<void> {
  if (start === 0) await writeFile(part, "");
  const etag = response.headers.get("etag");
  // A weak one (W/"…") may stay the same while bytes change, and decoded bytes can't be counted.
  if (etag?.startsWith('"') && !response.headers.has("content-encoding")) {
    await writeFile(etagFileOf(part), etag);
  } else if (start === 0) await rm(etagFileOf(part), { force: true });
}

async function* readBody(response: Response, received: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response.body ?? []) {
      received(chunk.byteLength);
      yield chunk;
    }
  } catch (error) {
    throw new PassingFault(`the connection broke (${describeFault(error)})`, { cause: error });
  }
}

function continues(response: Response, have: number, etag: string): boolean {
  const [, start] = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "") ?? [];
  return Number(start) === have && [null, etag].includes(response.headers.get("etag"));
}

function totalSize({ headers }: Response, start: number): number | undefined {
  const length = headers.get("content-length");
  return length === null || headers.has("content-encoding") ? undefined : start + Number(length);
}

/** Aborts what is under way when the host is silent for too long. */
function watchSilence(limitMs: number) {
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new Error(`nothing came for ${limitMs / 1000} s`)),
    limitMs,
  );
  return {
    signal: controller.signal,
    received: () => void timer.refresh(),
    stop: () => clearTimeout(timer),
  };
}

// One request

/** Follows redirects by hand, since each answer on the way may name the checksum and only the first host may see the token. */
async function request(
  remote: RemoteFile,
  resume: { have: number; etag: string } | undefined,
  signal: AbortSignal,
): Promise<{ response: Response; expected: string | undefined }> {
  const { source, hub } = remote;
  let expected = remote.sha256;
  let url = remote.url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const isFirstHost = url.origin === remote.url.origin;
    const headers = {
      "User-Agent": "infermill",
      // Ranges and lengths count the bytes as they travel, so these must be the file's own.
      "Accept-Encoding": "identity",
      ...(resume && { Range: `bytes=${resume.have}-`, "If-Range": resume.etag }),
      ...(isFirstHost && hub?.token && { Authorization: `Bearer ${hub.token}` }),
    };
    const response = await fetch(url, { headers, signal, redirect: "manual" }).catch((error: unknown) => {
      throw new PassingFault(describeFault(error), { cause: error });
    });
    if (isFirstHost && hub) expected ??= namedChecksum(response);
    const { status } = response;
    if (status === 200 || (resume && (status === 206 || status === 416))) return { response, expected };

    await response.body?.cancel();
    if (![301, 302, 303, 307, 308].includes(status)) throw refusal(remote, response, url);
    url = redirectTarget(source, url, response);
  }
  throw new ModelSourceError(
    `"${source}" can't be downloaded: ${remote.url.host} redirects more than ${MAX_REDIRECTS} times`,
  );
}

/** The Hub answers the sha256 of large files as their ETag, and a shorter git hash for small ones. */
function namedChecksum({ headers }: Response): string | undefined {
  const etag = headers.get("x-linked-etag") ?? headers.get("etag") ?? "";
  return /^(?:W\/)?"([0-9a-f]{64})"$/.exec(etag)?.[1];
}

function redirectTarget(source: string, from: URL, response: Response): URL {
  const location = response.headers.get("location") ?? "";
  const refuse = (what: string) =>
    new ModelSourceError(`"${source}" can't be downloaded: ${from.host} redirects to ${what}`);
  if (!location || !URL.canParse(location, from.href)) throw refuse("no address");
  const target = new URL(location, from);
  const isSafe = target.protocol === "https:" || (target.protocol === "http:" && from.protocol === "http:");
  if (!isSafe || target.username || target.password) {
    throw refuse(`${target.protocol}//${target.host}, and only https:// without a user is followed`);
  }
  return target;
}

function refusal(remote: RemoteFile, response: Response, url: URL): Error {
  const { status, headers } = response;
  const answered = `${url.host} answered ${status}`;
  if (status === 408 || status === 429 || status >= 500) {
    return new PassingFault(answered, { retryAfterMs: (Number(headers.get("retry-after")) || 0) * 1000 });
  }
  const way = remote.hub
    ? explainHubRefusal(remote, status, headers.get("x-error-code"))
    : explainWebRefusal(status);
  return new ModelSourceError(`"${remote.source}" can't be downloaded: ${answered}${way}`);
}

function explainHubRefusal({ hub, url }: RemoteFile, status: number, errorCode: string | null): string {
  const { repository, revision, token } = hub!;
  const page = `${url.origin}/${repository}`;
  if (errorCode === "GatedRepo") {
    return `. The repository is gated: accept its conditions on ${page} and set HF_TOKEN to a token of that account`;
  }
  if (status === 401 || status === 403) {
    return token
      ? `. HF_TOKEN doesn't open ${repository}: check the name, and that the token is valid and may read it`
      : `. ${repository} doesn't exist, or is private or gated: check the name, or set HF_TOKEN to a token that may read it`;
  }
  if (errorCode === "RevisionNotFound") return `. ${repository} has no revision ${revision}`;
  if (errorCode === "EntryNotFound") {
    return `. ${repository} has no such file at ${revision}: see ${page}/tree/${encodeURIComponent(revision)}`;
  }
  if (status === 404) return `. There is no such repository, revision (${revision}) or file: see ${page}`;
  return "";
}

function explainWebRefusal(status: number): string {
  if (status === 401 || status === 403) {
    return ". It opens for nobody without a login: name a presigned address, or download the file and name its path";
  }
  return status === 404 || status === 410 ? ". There is no such file: check the address" : "";
}

/** fetch hides the reason below one or two causes. */
function describeFault(error: unknown): string {
  const { cause } = error as { cause?: unknown };
  const inner = (cause ?? error) as NodeJS.ErrnoException;
  return inner.message || inner.code || String(inner);
}

// Part files

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

async function removePart(part: string): Promise<void> {
  await rm(etagFileOf(part), { force: true });
  await rm(part, { force: true });
}
