/** Reads the addresses that `model_path` may hold: where a file comes from and where it lies in the cache. */
import { createHash } from "node:crypto";
import path from "node:path";
import { isLoopback } from "../core/loopback.ts";
import { ModelSourceError } from "./modelSourceError.ts";

/** A file on another machine. */
export interface RemoteFile {
  /** What the configuration says, for messages. */
  source: string;
  url: URL;
  /** Place below the cache's `models` folder. Host, repository and revision are part of it, so that no two files share one. */
  cachePath: string;
  /** What the file must have, in lower case. */
  sha256?: string;
  /** Set for files of the Hugging Face Hub. */
  hub?: {
    repository: string;
    revision: string;
    /** Sent to the origin of `url` and to no other. */
    token?: string;
  };
}

const HUB_FORM = "hf://owner/repository/path/to/file.onnx, with @revision at the end for another than main";
const CHECKSUM = /^#sha256=([0-9a-f]{64})$/i;

/**
 * Reads `hf://owner/repository/path@revision#sha256=…`; revision (`main`) and checksum may be left out. Honours
 * `HF_ENDPOINT` and `HF_TOKEN`.
 */
export function readHubAddress(source: string, env: NodeJS.ProcessEnv): RemoteFile {
  const [, address, revision = "main", checksum] =
    /^hf:\/\/([^#]*?)(?:@([^@#]*))?(#.*)?$/is.exec(source) ?? [];
  const segments = address?.split("/") ?? [];
  if (segments.length < 3 || ![...segments, ...revision.split("/")].every(isPlainSegment)) {
    throw new ModelSourceError(`"${source}" must be ${HUB_FORM}`);
  }
  const [owner, name, ...file] = segments.map(encodeURIComponent);
  const endpoint = readHubEndpoint(env);
  const place = [...endpoint.pathname.split("/"), owner!, name!].filter(Boolean);
  const url = new URL(endpoint);
  url.pathname = [...place, "resolve", encodeURIComponent(revision), ...file].join("/");
  const sha256 = readChecksum(checksum, source);
  const token = readHubToken(env);
  return {
    source,
    url,
    cachePath: path.join("hf", encodeURIComponent(url.host), ...place, encodeURIComponent(revision), ...file),
    ...(sha256 && { sha256 }),
    hub: { repository: segments.slice(0, 2).join("/"), revision, ...(token && { token }) },
  };
}

/** Reads `https://host/file.onnx#sha256=…`. */
export function readWebAddress(source: string): RemoteFile {
  const url = parseUrl(source);
  if (!url) throw new ModelSourceError(`"${source}" must be an address such as https://host/file.onnx`);
  if (url.username || url.password) {
    url.username = url.password = "";
    throw new ModelSourceError(
      `"${url.href}" must not hold a user and password; name an address that opens by itself, or download the file and name its path`,
    );
  }
  if (url.protocol === "http:" && !isLoopback(url.hostname)) {
    throw new ModelSourceError(
      `"${source}" must begin with https://; http:// is for this machine only (127.0.0.1, localhost)`,
    );
  }
  const segments = url.pathname.split("/").filter(Boolean);
  const file = segments.pop();
  if (file === undefined || url.pathname.endsWith("/")) {
    throw new ModelSourceError(`"${source}" must end in the name of a file, such as model.onnx`);
  }
  const sha256 = readChecksum(url.hash, source);
  if (!sha256) {
    throw new ModelSourceError(
      `"${source}" needs the checksum of its file: add #sha256= and the 64 digits that its publisher names, ` +
        `or that "sha256sum FILE" (macOS: "shasum -a 256 FILE", Windows: "Get-FileHash FILE") prints for a copy that you trust`,
    );
  }
  url.hash = "";
  const query = url.search ? [createHash("sha256").update(url.search).digest("hex").slice(0, 16)] : [];
  return {
    source,
    url,
    cachePath: path.join("https", encodeURIComponent(url.host), ...segments, ...query, file),
    sha256,
  };
}

function isPlainSegment(segment: string): boolean {
  return segment !== "" && segment !== "." && segment !== "..";
}

function readChecksum(fragment: string | undefined, source: string): string | undefined {
  if (!fragment) return undefined;
  const sha256 = CHECKSUM.exec(fragment)?.[1];
  if (!sha256) {
    throw new ModelSourceError(
      `"${source}" must end in #sha256= and 64 hexadecimal digits, got ${fragment.length - 1} characters after the #`,
    );
  }
  return sha256.toLowerCase();
}

function readHubEndpoint(env: NodeJS.ProcessEnv): URL {
  const text = env["HF_ENDPOINT"] || "https://huggingface.co";
  const url = parseUrl(text);
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password) {
    throw new ModelSourceError("HF_ENDPOINT must be an address such as https://huggingface.co");
  }
  return new URL(url.pathname, url.origin);
}

function readHubToken(env: NodeJS.ProcessEnv): string | undefined {
  const token = env["HF_TOKEN"]?.trim();
  // fetch would print a header that it refuses, and so the token.
  if (token && !/^[\x21-\x7e]+$/.test(token)) {
    throw new ModelSourceError("HF_TOKEN must be printable ASCII characters without spaces, such as hf_…");
  }
  return token || undefined;
}

function parseUrl(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}
