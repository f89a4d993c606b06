/** Model files of other machines: addresses, the cache, faults on the way, `infermill models pull`. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { PassThrough } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { InfermillError } from "../../../src/errors.ts";
import { formatBytes } from "../../../src/core/byteSize.ts";
import { showDownload } from "../../../src/models/downloadProgress.ts";
import { removeLeftovers } from "../../../src/models/leftovers.ts";
import {
  checkModelSource,
  ModelSourceError,
  resolveModelPath,
  type SourceOptions,
} from "../../../src/models/sources.ts";
import { startFileServer, type FileServer, type ServedFile } from "../../support/fileServer.ts";
import { runInfermill } from "../../support/infermill.ts";

const BYTES = randomBytes(3_000_000);
const OTHER_BYTES = randomBytes(3_000_000);
const sha256Of = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
const SHA256 = sha256Of(BYTES);
const HUB_FILE = "/acme/detector/resolve/main/onnx/model.onnx";
const HUB_SOURCE = "hf://acme/detector/onnx/model.onnx";

let server: FileServer;
let folder: string;
let cache: string;
let told: string[];
let options: SourceOptions & { env: NodeJS.ProcessEnv };

beforeEach(async () => {
  server = await startFileServer();
  folder = await mkdtemp(path.join(tmpdir(), "infermill-downloads-"));
  cache = path.join(folder, "cache");
  told = [];
  options = {
    baseDir: folder,
    dataDir: path.join(folder, "data"),
    env: { INFERMILL_CACHE_DIR: cache, HF_ENDPOINT: `http://127.0.0.1:${server.port}` },
    retryDelaysMs: [1, 1],
    onProgress: ({ message }) => told.push(message),
  };
});

afterEach(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** Serves a file and answers its address with checksum. */
function serve(name: string, file: ServedFile, sha256 = SHA256): string {
  server.files[`/${name}`] = { bytes: BYTES, ...file };
  return `http://127.0.0.1:${server.port}/${name}#sha256=${sha256}`;
}

async function refusal(source: string, overrides: Partial<SourceOptions> = {}): Promise<string> {
  const thrown: unknown = await resolveModelPath(source, { ...options, ...overrides }).catch(
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(ModelSourceError);
  return (thrown as InfermillError).message;
}

/** What lies in the cache, relative to its `models` folder. */
async function cachedFiles(): Promise<string[]> {
  const models = path.join(cache, "models");
  const entries = await readdir(models, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(models, path.join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
}

const ranges = () => server.requests.map(({ headers }) => headers.range);

describe("hf://", () => {
  test("a file is fetched once with the token, then served from the cache without network", async () => {
    server.files[HUB_FILE] = { bytes: BYTES };
    options.env["HF_TOKEN"] = "hf_secret\n";
    const file = await resolveModelPath(HUB_SOURCE, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(server.requests.map((request) => request.headers.authorization)).toEqual(["Bearer hf_secret"]);
    expect(told).toEqual([`Downloading 3.0 MB from 127.0.0.1:${server.port}, once`]);
    expect(await cachedFiles()).toEqual([`hf/127.0.0.1%3A${server.port}/acme/detector/main/onnx/model.onnx`]);

    await server.close();
    expect(await resolveModelPath(HUB_SOURCE, options)).toBe(file);
  });

  test("without a token no Authorization is sent", async () => {
    server.files[HUB_FILE] = { bytes: BYTES };
    await resolveModelPath(HUB_SOURCE, options);
    expect(server.requests[0]!.headers.authorization).toBeUndefined();
  });

  test("revisions are kept apart, also those with a slash, and so are two endpoints", async () => {
    const paths = ["main", "v1.0", "refs%2Fpr%2F3"].map((name) => `/acme/detector/resolve/${name}/a.onnx`);
    for (const [index, name] of paths.entries()) server.files[name] = { bytes: Buffer.from([index]) };
    server.files["/mirror/acme/detector/resolve/main/a.onnx"] = { bytes: Buffer.from([9]) };
    const read = async (source: string) => [...(await readFile(await resolveModelPath(source, options)))];

    expect(await read("hf://acme/detector/a.onnx")).toEqual([0]);
    expect(await read("hf://acme/detector/a.onnx@v1.0")).toEqual([1]);
    expect(await read("hf://acme/detector/a.onnx@refs/pr/3")).toEqual([2]);
    options.env["HF_ENDPOINT"] += "/mirror/";
    expect(await read("hf://acme/detector/a.onnx")).toEqual([9]);
  });

  test("an @ and blanks in the file's name travel as they are where a revision follows", async () => {
    server.files["/acme/detector/resolve/main/my%20model%402x%3F.onnx"] = { bytes: BYTES };
    const file = await resolveModelPath("hf://acme/detector/my model@2x?.onnx@main", options);
    expect((await stat(file)).size).toBe(BYTES.length);
  });

  test("the token follows a redirect within the host, but not to another host", async () => {
    server.files[HUB_FILE] = { redirect: "/acme/renamed/model.onnx" };
    server.files["/acme/renamed/model.onnx"] = { redirect: `http://localhost:${server.port}/cdn/blob` };
    server.files["/cdn/blob"] = { bytes: BYTES };
    options.env["HF_TOKEN"] = "hf_secret";
    const file = await resolveModelPath(HUB_SOURCE, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(server.requests.map(({ host, headers }) => [host.split(":")[0], headers.authorization])).toEqual([
      ["127.0.0.1", "Bearer hf_secret"],
      ["127.0.0.1", "Bearer hf_secret"],
      ["localhost", undefined],
    ]);
  });

  test("the checksum that the Hub names on its redirect is checked", async () => {
    server.files[HUB_FILE] = { redirect: "/blob", headers: { "X-Linked-Etag": `"${SHA256}"` } };
    server.files["/blob"] = { bytes: OTHER_BYTES, etag: '"blob"' };
    const message = await refusal(HUB_SOURCE);
    expect(message).toContain(`must have the sha256 ${SHA256}, got ${sha256Of(OTHER_BYTES)} (3.0 MB)`);
    expect(message).toContain("the file was removed");
    expect(await cachedFiles()).toEqual([]);

    server.files["/blob"].bytes = BYTES;
    await resolveModelPath(HUB_SOURCE, options);
  });

  test("a checksum in the source counts, and a git hash as ETag is none", async () => {
    server.files[HUB_FILE] = { bytes: BYTES, etag: `"${"a".repeat(40)}"` };
    await resolveModelPath(`${HUB_SOURCE}@main#sha256=${SHA256.toUpperCase()}`, options);
    expect(await refusal(`${HUB_SOURCE}#sha256=${sha256Of(OTHER_BYTES)}`)).toContain("must have the sha256");
  });

  test("external data lies next to its model", async () => {
    server.files[HUB_FILE] = { bytes: BYTES };
    server.files[`${HUB_FILE}_data`] = { bytes: OTHER_BYTES };
    const model = await resolveModelPath(HUB_SOURCE, options);
    expect(await resolveModelPath(`${HUB_SOURCE}_data`, options)).toBe(`${model}_data`);
  });

  test.each<[status: number, errorCode: string, token: string, expected: string]>([
    [401, "RepoNotFound", "", "doesn't exist, or is private or gated: check the name, or set HF_TOKEN"],
    [401, "GatedRepo", "", "is gated: accept its conditions on http://127.0.0.1"],
    [403, "", "hf_x", "HF_TOKEN doesn't open acme/detector"],
    [404, "RevisionNotFound", "", "acme/detector has no revision main"],
    [404, "EntryNotFound", "", "acme/detector has no such file at main: see http"],
    [404, "", "hf_x", "There is no such repository, revision (main) or file"],
    [418, "", "", "answered 418"],
  ])("%i %s with the token %j is explained and not tried again", async (status, code, token, expected) => {
    server.files[HUB_FILE] = { faults: [{ status, headers: { "X-Error-Code": code } }] };
    options.env["HF_TOKEN"] = token;
    const message = await refusal(HUB_SOURCE);
    expect(message).toContain(`"${HUB_SOURCE}" can't be downloaded: 127.0.0.1:${server.port} answered`);
    expect(message).toContain(expected);
    expect(message).not.toContain("hf_x");
    expect(server.requests).toHaveLength(1);
  });
});

describe("https://", () => {
  test("a file with its checksum is fetched, then served from the cache without network", async () => {
    const source = serve("model.onnx", {});
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    await server.close();
    expect(await resolveModelPath(source, options)).toBe(file);
  });

  test("a wrong checksum is told with both, and nothing is left", async () => {
    const source = serve("model.onnx", { bytes: OTHER_BYTES, etag: '"1"' });
    expect(await refusal(source)).toContain(`must have the sha256 ${SHA256}, got ${sha256Of(OTHER_BYTES)}`);
    expect(await cachedFiles()).toEqual([]);
    expect(server.requests).toHaveLength(1);
  });

  test("a new checksum for the same address fetches the new file", async () => {
    await resolveModelPath(serve("model.onnx", {}), options);
    const source = serve("model.onnx", { bytes: OTHER_BYTES }, sha256Of(OTHER_BYTES));
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(OTHER_BYTES)).toBe(true);
  });

  test("a file that was changed in the cache is fetched again", async () => {
    const source = serve("model.onnx", {});
    const file = await resolveModelPath(source, options);
    await writeFile(file, "spoilt");
    await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
  });

  test("queries are kept apart", async () => {
    const one = await resolveModelPath(serve("model.onnx?v=1", {}), options);
    const two = await resolveModelPath(
      serve("model.onnx?v=2", { bytes: OTHER_BYTES }, sha256Of(OTHER_BYTES)),
      options,
    );
    expect(path.basename(one)).toBe("model.onnx");
    expect(one).not.toBe(two);
  });

  test("a missing file and one behind a login are told as such", async () => {
    const source = serve("model.onnx", { faults: [{ status: 403 }, { status: 404 }] });
    expect(await refusal(source)).toContain("answered 403. It opens for nobody without a login");
    expect(await refusal(source)).toContain("answered 404. There is no such file");
  });
});

describe("addresses that can't be right", () => {
  const sum = `#sha256=${"0".repeat(64)}`;
  test.each([
    ["hf://model.onnx", "must be hf://owner/repository/path/to/file.onnx"],
    ["hf://acme/detector", "must be hf://owner/repository/path/to/file.onnx"],
    ["hf://acme/detector@v1/model.onnx", "with @revision at the end"],
    ["hf://acme/detector/../../model.onnx", "must be hf://owner"],
    ["hf://acme/detector/model.onnx@", "must be hf://owner"],
    ["hf://acme/detector/model.onnx@..", "must be hf://owner"],
    ["hf://acme/detector/model.onnx#sha256=12ab", "must end in #sha256= and 64 hexadecimal digits"],
    ["hf://acme/detector/model.pt", "must be an .onnx or .ort file"],
    [
      "https://host.example/model.onnx",
      'add #sha256= and the 64 digits that its publisher names, or that "sha256sum',
    ],
    [
      `https://host.example/model.onnx#md5=${"0".repeat(32)}`,
      "must end in #sha256= and 64 hexadecimal digits",
    ],
    [`http://host.example/model.onnx${sum}`, "must begin with https://; http:// is for this machine only"],
    [`https://host.example/models/${sum}`, "must end in the name of a file"],
    [`https://host.example/model.h5${sum}`, "must be an .onnx or .ort file"],
    [`https://${sum}`, "must be an address such as https://host/file.onnx"],
  ])("%s", async (source, expected) => {
    expect(await refusal(source)).toContain(expected);
    await expect(checkModelSource(source, options)).rejects.toThrow(expected);
  });

  test("a password in an address is not repeated", async () => {
    const message = await refusal(`https://me:sesame@host.example/model.onnx${sum}`);
    expect(message).toContain("must not hold a user and password");
    expect(message).not.toContain("sesame");
  });

  test("a token that no header can hold is not repeated", async () => {
    options.env["HF_TOKEN"] = "hf_one\nhf_two";
    const message = await refusal(HUB_SOURCE);
    expect(message).toContain("HF_TOKEN must be printable ASCII characters without spaces");
    expect(message).not.toContain("hf_one");
  });

  test.each(["huggingface.co", "ftp://host.example"])("HF_ENDPOINT %s", async (endpoint) => {
    options.env["HF_ENDPOINT"] = endpoint;
    expect(await refusal(HUB_SOURCE)).toBe("HF_ENDPOINT must be an address such as https://huggingface.co");
  });

  test("a check fetches nothing", async () => {
    await checkModelSource(HUB_SOURCE, options);
    await checkModelSource("demo://centernet", options);
    expect(server.requests).toEqual([]);
  });
});

describe("faults on the way", () => {
  test("a download that is cut continues where it broke", async () => {
    const source = serve("model.onnx", {
      etag: '"v1"',
      // More cuts than tries: each that brought something starts the count anew.
      faults: [{ cutAfter: 700_000 }, { cutAfter: 700_000 }, { cutAfter: 700_000 }, { cutAfter: 700_000 }],
    });
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(ranges()).toEqual([
      undefined,
      "bytes=700000-",
      "bytes=1400000-",
      "bytes=2100000-",
      "bytes=2800000-",
    ]);
    expect(server.requests[0]!.headers["accept-encoding"]).toBe("identity");
    expect(server.requests.slice(1).map(({ headers }) => headers["if-range"])).toEqual(
      Array.from({ length: 4 }, () => '"v1"'),
    );
    expect(told).toContain("Going on at 23 % of 3.0 MB");
    expect(
      told.filter((line) => /^the connection broke \(.+\); trying again in 0.001 s$/.test(line)),
    ).toHaveLength(4);
    expect(await readdir(path.join(cache, "models", ".downloads"))).toEqual([]);
  });

  test("a later run continues where an earlier one gave up", async () => {
    const source = serve("model.onnx", { etag: '"v1"', faults: [{ cutAfter: 700_000 }] });
    expect(await refusal(source, { retryDelaysMs: [] })).toMatch(
      /can't be downloaded from 127.0.0.1:\d+: the connection broke \(.+\) \(tried 1 times\)/,
    );
    await resolveModelPath(source, options);
    expect(ranges()).toEqual([undefined, "bytes=700000-"]);
  });

  test("a file that changed since the cut is fetched from its beginning", async () => {
    server.files[HUB_FILE] = { bytes: OTHER_BYTES, etag: '"old"', faults: [{ cutAfter: 700_000 }] };
    await refusal(HUB_SOURCE, { retryDelaysMs: [] });
    server.files[HUB_FILE] = { bytes: BYTES, etag: '"new"' };
    const file = await resolveModelPath(HUB_SOURCE, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
  });

  test("a host that answers parts of a changed file in spite of If-Range is found out by its ETag", async () => {
    server.files[HUB_FILE] = { bytes: OTHER_BYTES, etag: '"old"', faults: [{ cutAfter: 700_000 }] };
    await refusal(HUB_SOURCE, { retryDelaysMs: [] });
    server.files[HUB_FILE] = { bytes: BYTES, etag: '"old"', headers: { ETag: '"new"' } };
    const file = await resolveModelPath(HUB_SOURCE, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
  });

  test("a host that ignores ranges is read from the beginning", async () => {
    const source = serve("model.onnx", {
      etag: '"v1"',
      ignoresRanges: true,
      faults: [{ cutAfter: 700_000 }],
    });
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(ranges()).toEqual([undefined, "bytes=700000-"]);
  });

  test.each([undefined, 'W/"v1"'])("with the ETag %s no part is asked for", async (etag) => {
    const source = serve("model.onnx", { ...(etag && { etag }), faults: [{ cutAfter: 700_000 }] });
    await resolveModelPath(source, options);
    expect(ranges()).toEqual([undefined, undefined]);
  });

  test("a part that an earlier run left whole needs no more bytes", async () => {
    const source = serve("model.onnx", { etag: '"v1"', faults: [{ cutAfter: BYTES.length - 1 }] });
    await refusal(source, { retryDelaysMs: [] });
    const downloads = path.join(cache, "models", ".downloads");
    const part = (await readdir(downloads)).find((name) => name.endsWith(".part"))!;
    await writeFile(path.join(downloads, part), BYTES);
    await resolveModelPath(source, options);
    expect(ranges()).toEqual([undefined, `bytes=${BYTES.length}-`]);
  });

  test("a part that an earlier run left damaged is fetched again as a whole", async () => {
    const source = serve("model.onnx", { etag: '"v1"', faults: [{ cutAfter: 700_000 }] });
    await refusal(source, { retryDelaysMs: [] });
    const downloads = path.join(cache, "models", ".downloads");
    const part = (await readdir(downloads)).find((name) => name.endsWith(".part"))!;
    await writeFile(path.join(downloads, part), Buffer.alloc(700_000));
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(ranges()).toEqual([undefined, "bytes=700000-", undefined]);
  });

  test("503 and 429 pass, with the wait that the host asks for", async () => {
    const source = serve("model.onnx", {
      faults: [{ status: 503 }, { status: 429, headers: { "Retry-After": "1" } }],
    });
    const startedAt = Date.now();
    await resolveModelPath(source, options);
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(999);
    expect(told.slice(0, 2)).toEqual([
      `127.0.0.1:${server.port} answered 503; trying again in 0.001 s`,
      `127.0.0.1:${server.port} answered 429; trying again in 1 s`,
    ]);
  });

  test("a 503 that lasts is given up, with what to do", async () => {
    server.files[HUB_FILE] = { faults: Array.from({ length: 9 }, () => ({ status: 503 })) };
    const message = await refusal(HUB_SOURCE);
    expect(message).toContain("answered 503 (tried 3 times)");
    expect(message).toContain(
      "set HF_ENDPOINT to a mirror, or bring the file by other means and name its path",
    );
    expect(server.requests).toHaveLength(3);
  });

  test("without network the reason is told", async () => {
    await server.close();
    expect(await refusal(HUB_SOURCE)).toContain(
      `connect ECONNREFUSED 127.0.0.1:${server.port} (tried 3 times)`,
    );
  });

  test("a host that falls silent is left and asked for the rest", async () => {
    const source = serve("model.onnx", { etag: '"v1"', faults: [{ silentAfter: 700_000 }] });
    const file = await resolveModelPath(source, { ...options, silenceLimitMs: 300 });
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(ranges()).toEqual([undefined, "bytes=700000-"]);
    expect(told).toContain("the connection broke (nothing came for 0.3 s); trying again in 0.001 s");
  });

  test("a slow host that keeps sending is waited for", async () => {
    const source = serve("model.onnx", { faults: [{ dripMs: 100 }] });
    await resolveModelPath(source, { ...options, silenceLimitMs: 500 });
    expect(server.requests).toHaveLength(1);
  });

  test("redirects in a circle are given up", async () => {
    const source = serve("model.onnx", { redirect: "/model.onnx" });
    expect(await refusal(source)).toContain("redirects more than 10 times");
  });

  test.each([
    ["ftp://host.example/model.onnx", "redirects to ftp://host.example, and only https://"],
    ["http://me:sesame@host.example/", "redirects to http://host.example, and only https:// without a user"],
    ["http://[", "redirects to no address"],
  ])("a redirect to %s is refused", async (redirect, expected) => {
    const message = await refusal(serve("model.onnx", { redirect }));
    expect(message).toContain(expected);
    expect(message).not.toContain("sesame");
  });

  test("a host that compresses all the same is read right", async () => {
    const source = serve("model.onnx", {
      bytes: gzipSync(BYTES),
      etag: '"gzip"',
      headers: { "Content-Encoding": "gzip" },
      faults: [{ cutAfter: 700_000 }],
    });
    const file = await resolveModelPath(source, options);
    expect((await readFile(file)).equals(BYTES)).toBe(true);
    expect(ranges()).toEqual([undefined, undefined]);
  });

  test("an empty file is a file", async () => {
    const source = serve("labels.txt", { bytes: Buffer.alloc(0) }, sha256Of(Buffer.alloc(0)));
    expect((await stat(await resolveModelPath(source, options))).size).toBe(0);
  });
});

describe("the cache", () => {
  test("lies below XDG_CACHE_HOME, else in .cache of the home folder", async () => {
    server.files[HUB_FILE] = { bytes: BYTES };
    const { HF_ENDPOINT } = options.env;
    const xdg = path.join(folder, "xdg");
    const inXdg = await resolveModelPath(HUB_SOURCE, {
      ...options,
      env: { HF_ENDPOINT, XDG_CACHE_HOME: xdg },
    });
    expect(inXdg.startsWith(path.join(xdg, "infermill", "models"))).toBe(true);
    const atHome = await resolveModelPath(HUB_SOURCE, { ...options, env: { HF_ENDPOINT, HOME: folder } });
    expect(atHome.startsWith(path.join(folder, ".cache", "infermill", "models"))).toBe(true);
  });

  test("a folder that can't be written is told with the variable that names another", async () => {
    await writeFile(cache, "a file");
    expect(await refusal(HUB_SOURCE)).toMatch(
      /can't be kept in .+set INFERMILL_CACHE_DIR to a folder that can be written/,
    );
  });

  test("two fetches at once in one process make one request", async () => {
    const source = serve("model.onnx", {});
    const [one, two] = await Promise.all([
      resolveModelPath(source, options),
      resolveModelPath(source, options),
    ]);
    expect(one).toBe(two);
    expect(server.requests).toHaveLength(1);
  });

  test("leftovers older than a day go with the next download, younger ones and models stay", async () => {
    const downloads = path.join(cache, "models", ".downloads");
    await mkdir(downloads, { recursive: true });
    const age = async (name: string, hours: number) => {
      await writeFile(path.join(downloads, name), "");
      const at = new Date(Date.now() - hours * 3_600_000);
      await utimes(path.join(downloads, name), at, at);
    };
    for (const name of ["a.part", "a.part.etag", "a.lock"]) await age(name, 25);
    await age("b.part", 23);
    const file = await resolveModelPath(serve("model.onnx", {}), options);
    expect(await readdir(downloads)).toEqual(["b.part"]);
    expect((await stat(file)).isFile()).toBe(true);
  });

  test("only files whose name matches are leftovers", async () => {
    await writeFile(path.join(folder, "model.onnx"), "");
    await writeFile(path.join(folder, "model.tmp"), "");
    const old = new Date(Date.now() - 25 * 3_600_000);
    for (const name of ["model.onnx", "model.tmp"]) await utimes(path.join(folder, name), old, old);
    await removeLeftovers(folder, /\.tmp$/);
    expect(await readdir(folder)).toEqual(["model.onnx"]);
    await removeLeftovers(path.join(folder, "none"), /./);
  });
});

describe("progress", () => {
  test("elsewhere than on a terminal a line is told every ten seconds", async () => {
    vi.useFakeTimers();
    try {
      const lines: string[] = [];
      const progress = await showDownload(
        0,
        98_000_000,
        (line) => lines.push(line),
        new PassThrough() as never,
      );
      for (let second = 0; second < 25; second++) {
        vi.advanceTimersByTime(1000);
        progress.advance(1_200_000);
      }
      progress.end();
      expect(lines).toEqual(["12 % of 98 MB", "24 % of 98 MB"]);
    } finally {
      vi.useRealTimers();
    }
  });

  test("on a terminal a bar shows where it is, and is gone at the end", async () => {
    const terminal = Object.assign(new PassThrough(), { isTTY: true, columns: 80 });
    const lines: string[] = [];
    const progress = await showDownload(
      49_000_000,
      98_000_000,
      (line) => lines.push(line),
      terminal as never,
    );
    progress.end();
    const drawn = String(terminal.read());
    expect(drawn).toContain("50 % of 98 MB");
    expect(drawn.lastIndexOf("\u001b[2K")).toBeGreaterThan(drawn.lastIndexOf("50 %"));
    expect(lines).toEqual([]);
  });

  test("where the host names no size the bytes are told", async () => {
    vi.useFakeTimers();
    try {
      const lines: string[] = [];
      const terminal = Object.assign(new PassThrough(), { isTTY: true }) as never;
      const progress = await showDownload(0, undefined, (line) => lines.push(line), terminal);
      vi.advanceTimersByTime(10_000);
      progress.advance(12_000_000);
      progress.end();
      expect(lines).toEqual(["12 MB"]);
    } finally {
      vi.useRealTimers();
    }
  });

  test.each([
    [0, "0 bytes"],
    [999, "999 bytes"],
    [1000, "1.0 kB"],
    [4_944_000, "4.9 MB"],
    [9_950_000, "10 MB"],
    [999_499_999, "999 MB"],
    [999_500_000, "1.0 GB"],
    [2e15, "2000 TB"],
  ])("%i is %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe("infermill models pull", () => {
  let config: string;
  let env: NodeJS.ProcessEnv;

  beforeEach(async () => {
    config = path.join(folder, "infermill.json");
    env = { ...options.env, HF_TOKEN: "", INFERMILL_CONFIG: config };
    await writeFile(path.join(folder, "own.onnx"), BYTES);
    const model = (...sources: string[]) => ({ loader: "YoloModelLoader", model_path: sources });
    await writeFile(
      config,
      JSON.stringify({
        models: {
          Hub: model(HUB_SOURCE, `${HUB_SOURCE}_data`),
          Own: model("own.onnx"),
          Web: model(serve("web.onnx", {})),
        },
      }),
    );
    server.files[HUB_FILE] = { bytes: BYTES, etag: '"v1"' };
    server.files[`${HUB_FILE}_data`] = { bytes: OTHER_BYTES.subarray(0, 1234) };
  });

  test("prints path and size of every source", async () => {
    const pull = runInfermill(["models", "pull"], { env });
    expect(await pull.exited).toEqual({ code: 0, signal: null });
    const hub = path.join(cache, "models", "hf", `127.0.0.1%3A${server.port}`, "acme/detector/main/onnx");
    const lines = pull.output().split("\n");
    expect(lines).toContain(`Hub  ${path.join(hub, "model.onnx")}  3.0 MB`);
    expect(lines).toContain(`Hub  ${path.join(hub, "model.onnx_data")}  1.2 kB`);
    expect(lines).toContain(`Own  ${path.join(folder, "own.onnx")}  3.0 MB`);
    expect(pull.output()).toContain(`${HUB_SOURCE}: Downloading 3.0 MB from 127.0.0.1`);
  });

  test("one that fails makes the exit code 1 and doesn't keep the others", async () => {
    server.files[HUB_FILE] = { faults: [{ status: 401 }] };
    const pull = runInfermill(["models", "pull", "--config", config], {
      env: { ...env, INFERMILL_CONFIG: "" },
    });
    expect(await pull.exited).toEqual({ code: 1, signal: null });
    expect(pull.output()).toContain(`infermill: Hub: "${HUB_SOURCE}" can't be downloaded`);
    expect(pull.output()).toMatch(/^Web {2}.+web\.onnx {2}3\.0 MB$/m);
  });

  test("only the named models are fetched, an unknown name is refused", async () => {
    const pull = runInfermill(["models", "-c", config, "pull", "Web"], {
      env: { ...env, INFERMILL_CONFIG: "" },
    });
    expect(await pull.exited).toEqual({ code: 0, signal: null });
    expect(server.requests.map((request) => request.path)).toEqual(["/web.onnx"]);

    const unknown = runInfermill(["models", "pull", "Wep"], { env });
    expect((await unknown.exited).code).toBe(2);
    expect(unknown.output()).toContain("there is no model Wep; configured are: Hub, Own, Web");
  });

  test("models without pull still lists and fetches nothing", async () => {
    const list = runInfermill(["models"], { env });
    expect((await list.exited).code).toBe(0);
    expect(list.output()).toMatch(/^MODEL +LOADER/);
    expect(server.requests).toEqual([]);
  });

  test("of two processes at once one fetches and the other waits", async () => {
    let open = () => {};
    server.files[HUB_FILE]!.gate = new Promise<void>((resolve) => (open = resolve));
    const first = runInfermill(["models", "pull", "Hub"], { env });
    await vi.waitUntil(() => server.requests.length === 1, 20_000);
    const second = runInfermill(["models", "pull", "Hub"], { env });
    await second.printed(/waiting for it/);
    open();
    expect((await first.exited).code).toBe(0);
    expect((await second.exited).code).toBe(0);
    expect(server.requests.filter((request) => request.path === HUB_FILE)).toHaveLength(1);
  });

  test("after a killed process the next continues where it was", async () => {
    server.files[HUB_FILE]!.faults = [{ silentAfter: 2_000_000 }];
    const killed = runInfermill(["models", "pull", "Hub"], { env });
    const downloads = path.join(cache, "models", ".downloads");
    await vi.waitUntil(async () => {
      const part = (await readdir(downloads).catch(() => [])).find((name) => name.endsWith(".part"));
      return part && (await stat(path.join(downloads, part))).size === 2_000_000;
    }, 20_000);
    killed.child.kill("SIGKILL");
    await killed.exited;

    const next = runInfermill(["models", "pull", "Hub"], { env });
    expect((await next.exited).code).toBe(0);
    expect(next.output()).toContain("Going on at 66 % of 3.0 MB");
    const file = path.join(
      cache,
      "models",
      (await cachedFiles()).find((name) => name.endsWith("model.onnx"))!,
    );
    expect((await readFile(file)).equals(BYTES)).toBe(true);
  });
});
