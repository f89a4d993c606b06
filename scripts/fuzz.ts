/**
 * `npm run fuzz`: malformed requests and damaged pictures against a real infermill, seeded, outside CI. No answer may be
 * a 500, no engine may be lost, nothing may hang, and the memory of the processes must go back to about where it was.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { findSamplePhoto } from "../src/models/samplePhotos.ts";
import { readFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import sharp from "sharp";
import { startInfermill, until } from "../test/support/infermill.ts";
import { processesBelow } from "../test/support/processes.ts";
import { describeScript, number } from "./options.ts";
import { createRandom, pick, upTo, type Random } from "./random.ts";

const { requests, pictures, seed, parallel } = describeScript(
  "fuzz",
  "Malformed requests and damaged pictures against a real infermill.",
)
  .addOption(number("requests", "malformed requests", 100_000))
  .addOption(number("pictures", "damaged pictures", 5000))
  .addOption(number("seed", "of what is random", 1))
  .addOption(number("parallel", "side by side", 16))
  .parse()
  .opts<{ requests: number; pictures: number; seed: number; parallel: number }>();

/** No answer takes longer: the model's own work included. */
const HANG_MS = 60_000;
/** What a process may keep, in MiB: its heap has grown to the size of the load. */
const MAX_GROWTH_MIB = 300;

const PATHS = [
  "/v1/models/Detector/predictions",
  "/v1/models/Detector/predictions/some-id",
  "/v1/models/none/predictions",
  "/v1/models/Detector",
  "/v1/bulk",
  "/v1/bulk?model=Detector",
  "/v1/bulk/bulk_00000000000000000000000000000000",
  "/v2/models/Detector/infer",
  "/v2/repository/index",
  "/v1/embeddings",
  "/Detector",
  "/v1/webhooks/deliveries?status=failed&limit=5",
  "/%ff",
  "/v1/models/%2e%2e/predictions",
];
const METHODS = ["GET", "POST", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
const TYPES = [
  "application/json",
  "application/x-ndjson",
  "multipart/form-data; boundary=x",
  "multipart/form-data",
  "image/jpeg",
  "image/svg+xml",
  "text/plain",
  "application/octet-stream",
  "nonsense",
];
const QUERIES = [
  "",
  "?priority=high",
  "?ttl_ms=-1",
  "?timeout_ms=1e9",
  "?C_threshold=NaN",
  "?wait=0",
  "?a[b][c]=1",
  "?webhook=x",
];
/** The faults of which each once was one. */
const BODIES = [
  "[".repeat(4125),
  "[".repeat(50_000) + "]".repeat(50_000),
  '{"a":'.repeat(5000) + "1" + "}".repeat(5000),
  `{"model":"Detector","folder":"photos","glob":${JSON.stringify(`${"{?,}".repeat(60)}zz`)}}`,
  `{"model":"Detector","folder":"photos","glob":${JSON.stringify("?(?|?)".repeat(40))}}`,
  '{"model":"Detector","folder":"photos","glob":"*a*a*a*a*b"}',
  '{"model":"Detector","folder":"../../etc"}',
  '{"Base_64":"AAAA"}',
  '{"Base_64":["AAAA",null,1]}',
  '{"image":"photos/../../etc/passwd"}',
  '{"image":"http://127.0.0.1:1/x.jpg"}',
  '{"C_threshold":1e400}',
  '{"__proto__":{"x":1},"constructor":{"prototype":1}}',
  '{"inputs":[{"name":"x","shape":[-1,1e9],"datatype":"FP32","data":[1]}]}',
  '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":1e12}}]}',
  '--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"a":\r\n--x--',
  '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nhalf',
  "\uFFFD\u0000",
  "",
  "null",
  "{}",
  "{}\n{}\n[",
];

function mutate(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  const changes = 1 + upTo(random, 20);
  for (let change = 0; change < changes && copy.length > 0; change++) {
    const at = upTo(random, copy.length);
    // More often where the header is.
    copy[random() < 0.4 ? Math.min(at, upTo(random, 64)) : at] = upTo(random, 256);
  }
  const kind = random();
  if (kind < 0.15) return copy.subarray(0, upTo(random, copy.length));
  if (kind < 0.25) return Buffer.concat([copy, copy.subarray(upTo(random, copy.length))]);
  return copy;
}

async function runAll(count: number, one: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      while (next < count) await one(next++);
    }),
  );
}

function memoryOf(pids: readonly number[]): Map<number, number> {
  const table = execFileSync("ps", ["-o", "pid=,rss=", "-p", pids.join(",")], { encoding: "utf8" });
  return new Map(
    table
      .trim()
      .split("\n")
      .map((line) => line.trim().split(/\s+/).map(Number) as [number, number]),
  );
}

const folder = mkdtempSync(join(tmpdir(), "infermill-fuzz-"));
const infermill = await startInfermill({
  log_level: "warn",
  bulk_roots: { photos: folder },
  models: {
    Detector: {
      loader: "CenterNetModelLoader",
      model_path: ["demo://centernet"],
      class_names: ["coco"],
      instances: 1,
    },
  },
});
const faults: string[] = [];
const statuses = new Map<number, number>();

/** Sends it, and notes what must not be. */
async function send(name: string, path: string, init: RequestInit): Promise<void> {
  try {
    const answer = await fetch(`${infermill.url}${path}`, { ...init, signal: AbortSignal.timeout(HANG_MS) });
    const text = await answer.text();
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    if (answer.status === 500 || /engine_lost|worker_lost/.test(text))
      faults.push(`${name}: ${answer.status} ${text.slice(0, 300)}`);
  } catch (error) {
    // An api that refuses a body in its middle may close the connection before all of it was sent.
    const { name: kind, message } = error as Error;
    if (kind === "TimeoutError") faults.push(`${name}: no answer within ${HANG_MS / 1000} s`);
    else if (!/fetch failed|terminated/.test(message)) faults.push(`${name}: ${message}`);
  }
}

try {
  const photo = readFileSync(findSamplePhoto("march-pastoral")!);
  const small = sharp(photo).resize(160);
  const sources = await Promise.all([
    small.clone().jpeg().toBuffer(),
    small.clone().jpeg({ progressive: true }).toBuffer(),
    small.clone().png().toBuffer(),
    small.clone().png({ progressive: true, palette: true }).toBuffer(),
    small.clone().webp().toBuffer(),
    small.clone().gif().toBuffer(),
    small.clone().tiff().toBuffer(),
  ]);
  await send("warm-up", "/v1/models/Detector/predictions", {
    method: "POST",
    headers: { "Content-Type": "image/jpeg", Prefer: "wait=60" },
    body: new Uint8Array(sources[0]),
  });
  const pids = [infermill.child.pid!, ...processesBelow(infermill.child.pid!)];
  const before = memoryOf(pids);

  await runAll(requests, async (index) => {
    const random = createRandom(seed * 1_000_003 + index);
    const method = pick(random, METHODS);
    const path = pick(random, PATHS);
    const text = Buffer.from(pick(random, BODIES));
    const body = random() < 0.5 ? text : mutate(random, text);
    const headers: Record<string, string> = { "Content-Type": pick(random, TYPES) };
    if (random() < 0.1) headers["Idempotency-Key"] = "k".repeat(upTo(random, 300));
    if (random() < 0.1) headers["Prefer"] = pick(random, ["wait=0", "wait=x", "wait=-1"]);
    if (random() < 0.05) headers["Inference-Header-Content-Length"] = String(upTo(random, 100));
    const query = path.includes("?") ? "" : pick(random, QUERIES);
    const hasBody = method !== "GET" && method !== "OPTIONS";
    const init = { method, headers, ...(hasBody && { body: new Uint8Array(body) }) };
    await send(`request ${index} (--seed ${seed})`, path + query, init);
  });
  await runAll(pictures, async (index) => {
    const random = createRandom(seed * 7_000_003 + index);
    const body = new Uint8Array(mutate(random, pick(random, sources)));
    const headers = { "Content-Type": "application/octet-stream", Prefer: "wait=60" };
    await send(`picture ${index} (--seed ${seed})`, PATHS[0]!, { method: "POST", headers, body });
  });

  await until(
    async () => (await fetch(`${infermill.url}/health/ready`)).ok,
    "ready after all of it",
    120_000,
  );
  const after = memoryOf(pids);
  const lost = /was killed|exited with code|event loop has been blocked/.exec(infermill.output());
  if (lost) faults.push(`a process was lost: ${infermill.output().slice(-2000)}`);
  for (const [pid, kib] of after) {
    const growth = (kib - (before.get(pid) ?? kib)) / 1024;
    console.log(
      `process ${pid}: ${Math.round(kib / 1024)} MiB, ${growth >= 0 ? "+" : ""}${Math.round(growth)}`,
    );
    if (growth > MAX_GROWTH_MIB) faults.push(`the process ${pid} has grown by ${Math.round(growth)} MiB`);
  }
  for (const pid of pids) if (!after.has(pid)) faults.push(`the process ${pid} has ended`);
} finally {
  await infermill.stop();
  rmSync(folder, { recursive: true, force: true });
}
console.log(
  `answers: ${[...statuses]
    .toSorted(([a], [b]) => a - b)
    .map(([status, count]) => `${count} × ${status}`)
    .join(", ")}`,
);
for (const fault of faults.slice(0, 20)) console.error(fault);
console.log(faults.length === 0 ? "no fault" : `${faults.length} faults`);
process.exit(faults.length === 0 ? 0 : 1);
