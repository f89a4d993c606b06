/** Pictures that a request names by URL. */
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { configSchema, type Config } from "../../../src/config/schema.ts";
import { BadInputError, RetryableError } from "../../../src/errors.ts";
import { createInputStore, inputFolder } from "../../../src/queue/inputs.ts";
import { createNames } from "../../../src/queue/names.ts";
import { createInputFetcher, type FetchInputs } from "../../../src/worker/urlInputs.ts";
import { startInfermill, submit, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

let server: Server;
let base: string;
let answer: RequestListener;
const asked: string[] = [];
const picture = Buffer.alloc(3000, "p");

beforeAll(async () => {
  server = createServer((req, res) => {
    asked.push(String(req.url));
    answer(req, res);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
beforeEach(() => {
  asked.length = 0;
  answer = (_req, res) => res.end(picture);
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe("fetching", () => {
  let config: Config;
  let fetchInputs: FetchInputs;

  beforeAll(async () => {
    const data_dir = await mkdtemp(join(tmpdir(), "infermill-urls-"));
    const content = {
      data_dir,
      max_body_bytes: 5000,
      url_inputs: { allow: ["127.0.0.1"], timeout_ms: 500 },
      models: { Echo: { loader: "EchoModelLoader" } },
    };
    config = { ...configSchema.parse(content), file: join(data_dir, "infermill.json") };
    const store = createInputStore(config, createNames("test"), undefined as unknown as Redis);
    fetchInputs = createInputFetcher(config, store);
  });
  afterAll(() => rm(config.data_dir, { recursive: true }));

  async function stored(): Promise<string[]> {
    const entries = await readdir(inputFolder(config), { recursive: true, withFileTypes: true }).catch(
      () => [],
    );
    return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  }

  async function failure(path: string): Promise<Error> {
    const error: unknown = await fetchInputs("Echo", [{ url: base + path }]).catch(
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof Error)) throw new Error(`${path} was fetched`);
    return error;
  }

  test("a picture is stored where engines read it, beside those that are there already", async () => {
    const here = { file: "ab/other" };
    const { refs, fetched, ms } = await fetchInputs("Echo", [here, { url: `${base}/a.jpg?key=1` }]);
    expect(asked).toEqual(["/a.jpg?key=1"]);
    expect(refs).toEqual([here, fetched[0]]);
    expect(await readFile(join(inputFolder(config), (fetched[0] as { file: string }).file))).toEqual(picture);
    expect(ms).toBeGreaterThan(0);
    await rm(inputFolder(config), { recursive: true });
  });

  test("three redirects are followed, the fourth isn't", async () => {
    answer = (req, res) => {
      const [, left] = /^\/(\d)$/.exec(req.url!) as RegExpExecArray;
      if (left === "0") res.end(picture);
      else res.writeHead(302, { Location: `/${Number(left) - 1}` }).end();
    };
    expect((await fetchInputs("Echo", [{ url: `${base}/3` }])).fetched).toHaveLength(1);
    expect(await failure("/4")).toMatchObject({ message: expect.stringContaining("more than 3 times") });
    await rm(inputFolder(config), { recursive: true });
  });

  test("a redirect is checked like a URL of its own", async () => {
    for (const [location, reason] of [
      ["http://169.254.169.254/latest/meta-data", "url_inputs.allow"],
      ["http://[::1]/", "url_inputs.allow"],
      ["http://user:secret@127.0.0.1/", "user name"],
      ["file:///etc/passwd", "http:// or https://"],
      ["http://", "no URL"],
    ] as const) {
      answer = (_req, res) => res.writeHead(302, { Location: location }).end();
      const error = await failure("/redirect");
      expect(error, location).toBeInstanceOf(BadInputError);
      expect(error.message).toContain(reason);
    }
  });

  test("answers that won't change are bad input, those that may are tried again", async () => {
    for (const status of [301, 400, 401, 404, 410]) {
      answer = (_req, res) => res.writeHead(status).end();
      expect(await failure("/x"), String(status)).toBeInstanceOf(BadInputError);
    }
    for (const status of [408, 429, 500, 503]) {
      answer = (_req, res) => res.writeHead(status).end();
      expect(await failure("/x"), String(status)).toBeInstanceOf(RetryableError);
    }
    answer = (_req, res) => void res.socket!.destroy();
    expect(await failure("/x")).toBeInstanceOf(RetryableError);
    answer = (_req, res) => {
      res.writeHead(200, { "Content-Length": 3000 }).write("half");
      setTimeout(() => res.socket!.destroy(), 50);
    };
    expect(await failure("/x?key=secret")).toBeInstanceOf(RetryableError);
    expect((await failure("/x?key=secret")).message).not.toContain("secret");
    expect(await stored()).toEqual([]);
  });

  test("a picture that doesn't come or doesn't end is given up in time, and nothing of it is left", async () => {
    for (const begin of [() => {}, (write: () => void) => write()]) {
      answer = (_req, res) => begin(() => res.write("x"));
      const start = Date.now();
      const error = await failure("/slow");
      expect(error).toBeInstanceOf(RetryableError);
      expect(error.message).toContain("can't be fetched");
      expect(Date.now() - start).toBeLessThan(1500);
    }
    expect(await stored()).toEqual([]);
  });

  test("one that is too large is refused, whether it says so or not, and so is an empty one", async () => {
    answer = (_req, res) => res.end(Buffer.alloc(5001));
    expect((await failure("/large")).message).toContain("at most 5000 bytes (max_body_bytes)");
    answer = (_req, res) => {
      const write = () => {
        while (!res.destroyed && res.write(Buffer.alloc(1000)));
      };
      res.on("drain", write);
      write();
    };
    expect((await failure("/endless")).message).toContain("at most 5000 bytes");
    answer = (_req, res) => res.end();
    expect((await failure("/empty")).message).toContain("empty");
    expect(await stored()).toEqual([]);
  });

  test("what was fetched beside one that failed is removed", async () => {
    answer = (req, res) => (req.url === "/bad" ? res.writeHead(404).end() : res.end(picture));
    await expect(fetchInputs("Echo", [{ url: `${base}/good` }, { url: `${base}/bad` }])).rejects.toThrow(
      "404",
    );
    expect(await stored()).toEqual([]);
  });
});

describe.skipIf(whyNoRedis)("predicting", () => {
  let infermill: TestInfermill;
  beforeAll(async () => {
    const loader = fileURLToPath(new URL("../../loaders/pictureSize.ts", import.meta.url));
    const size = { loader: "PictureSizeModelLoader", model_loader_file: loader, instances: 1 };
    infermill = await startInfermill({
      url_inputs: { allow: ["127.0.0.1"], timeout_ms: 3000 },
      models: { Size: { ...size, timeout_ms: 1000 } },
    });
  });
  afterAll(() => infermill?.stop());

  async function inputFiles(): Promise<string[]> {
    const folder = join(infermill.folder, "data", "inputs");
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  }

  test("a picture by URL is predicted, its time counts as reading, and nothing of it stays", async () => {
    answer = (_req, res) => setTimeout(() => res.end(picture), 300);
    const { status, result, timings } = await submit(infermill.url, "Size", {
      image: [`${base}/a`, `${base}/b`],
    });
    expect([status, result!.Fs.map(({ Lb }) => Lb)]).toEqual(["succeeded", ["3000", "3000"]]);
    expect(timings!.read_ms).toBeGreaterThan(250);
    await expect.poll(inputFiles).toEqual([]);
  });

  test("a host that has a moment of weakness is asked again", async () => {
    answer = (_req, res) => (asked.length < 2 ? res.writeHead(503).end() : res.end(picture));
    const prediction = await submit(infermill.url, "Size", { image: `${base}/a` });
    expect(prediction).toMatchObject({ status: "succeeded", attempts: 2 });
  });

  test("what can't be fetched fails with the reason, at once", async () => {
    answer = (_req, res) => res.writeHead(404).end();
    expect(await submit(infermill.url, "Size", { image: `${base}/a?k=1` })).toMatchObject({
      status: "failed",
      attempts: 1,
      error: { code: "bad_input", detail: `${base}/a answered 404` },
    });
    expect(await submit(infermill.url, "Size", { image: "http://[::1]/" })).toMatchObject({
      status: "failed",
      error: { code: "bad_input", detail: expect.stringContaining("url_inputs.allow") },
    });
  });

  test("hosts that are slower than timeout_ms hold up no other prediction and cost no engine", async () => {
    const engines = async () =>
      (await (await fetch(`${infermill.url}/v1/models/Size`)).json()) as { engines: unknown };
    const before = await engines();
    answer = (req, res) =>
      void (req.url === "/slow" ? setTimeout(() => res.end(picture), 2500) : res.end(picture));
    const slow = Array.from({ length: 40 }, () => submit(infermill.url, "Size", { image: `${base}/slow` }));
    await expect.poll(() => asked.length).toBeGreaterThan(30);
    const start = Date.now();
    await submit(infermill.url, "Size", { Base_64: picture.toString("base64") });
    expect(Date.now() - start).toBeLessThan(1000);
    for (const { status } of await Promise.all(slow)) expect(status).toBe("succeeded");
    expect((await engines()).engines).toEqual(before.engines);
  });

  test.each([
    ["https://user:secret@example.org/a.jpg", "user name or password"],
    ["http://", "http:// or https://"],
  ])("%s is refused before anything is accepted", async (image, reason) => {
    await expect(submit(infermill.url, "Size", { image })).rejects.toThrow(reason);
  });
});
