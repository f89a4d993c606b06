/** The load of the soak: clients that repeat until each of their predictions is settled, and remember what they were told. */
import { setTimeout as sleep } from "node:timers/promises";
import sharp from "sharp";
import { startReceiver, type Receiver } from "../../test/support/receiver.ts";
import type { Json } from "../../test/support/api.ts";
import { createRandom, pick, upTo, type Random } from "../random.ts";

const KINDS = ["json", "json", "upload", "upload", "webhook", "cancel"] as const;
const BULK_CLIENTS = 2;
const BULK_ENTRIES = 300;
const PAUSE_MS = 100;
const RETRY_PAUSE_MS = 250;
/** A frozen api is left for the other one. */
const ANSWER_LIMIT_MS = 8000;
/** Longer than any recovery: what isn't settled then is lost. */
const SETTLE_LIMIT_MS = 180_000;
const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const ENDED_RUN = new Set(["completed", "cancelled", "failed"]);

/** A prediction that a client wants. */
interface Wish {
  key: string;
  kind: (typeof KINDS)[number];
  /** What its answer must say. */
  expected: string;
  /** Its paths: more than one would be a double. */
  paths: Set<string>;
  status?: string;
}

interface BulkWish {
  id: string;
  status?: string;
}

export interface Verdict {
  accepted: number;
  finished: number;
  /** Accepted, and never ended or not found again. */
  lost: string[];
  /** One key with two predictions, an end that changed, an entry with two lines. */
  doubled: string[];
  /** Answers that are another's, refusals that no retry settles, runs that failed. */
  faults: string[];
  bulk: { runs: number; entries: number; lines: number };
  webhooks: { expected: number; missing: string[]; repeated: number };
  outcomes: Map<string, number>;
  /** What clients met on the way and settled by trying again. */
  retries: Map<string, number>;
}

export interface Load {
  /** Settled predictions and lines so far. */
  count(): number;
  /** Ends it, waits until all is settled, and looks at everything once more. */
  finish(): Promise<Verdict>;
}

export async function startLoad(urls: readonly string[], clients: number, seed: number): Promise<Load> {
  const receiver = await startReceiver();
  const picture = await sharp({ create: { width: 32, height: 32, channels: 3, background: "teal" } })
    .jpeg()
    .toBuffer();
  const wishes: Wish[] = [];
  const runs: BulkWish[] = [];
  const verdict: Verdict = {
    accepted: 0,
    finished: 0,
    lost: [],
    doubled: [],
    faults: [],
    bulk: { runs: 0, entries: 0, lines: 0 },
    webhooks: { expected: 0, missing: [], repeated: 0 },
    outcomes: new Map(),
    retries: new Map(),
  };
  const countUp = (counts: Map<string, number>, name: string) =>
    counts.set(name, (counts.get(name) ?? 0) + 1);
  let isOn = true;
  let settled = 0;
  let tries = 0;

  /** Calls one api after the other until one takes it; what they refuse for good is a fault. */
  async function call(
    method: string,
    path: string,
    init: RequestInit = {},
    deadline = Infinity,
  ): Promise<Json> {
    for (;;) {
      const url = urls[tries++ % urls.length]!;
      try {
        const signal = AbortSignal.timeout(ANSWER_LIMIT_MS);
        const answer = await fetch(url + path, { method, ...init, signal });
        const body: Json = await answer.json();
        if (answer.ok || answer.status === 404 || answer.status === 409)
          return { ...body, http: answer.status };
        countUp(verdict.retries, `${answer.status} ${body.code}`);
        if (![429, 503, 507, 408].includes(answer.status)) {
          verdict.faults.push(`${method} ${path}: ${answer.status} ${JSON.stringify(body)}`);
          return { ...body, http: answer.status };
        }
      } catch (error) {
        countUp(verdict.retries, (error as Error).name === "TimeoutError" ? "no answer" : "cut off");
      }
      if (Date.now() > deadline) return { http: 0 };
      await sleep(RETRY_PAUSE_MS);
    }
  }

  function submission({ kind, key, expected }: Wish, random: Random): [string, RequestInit] {
    const headers: Record<string, string> = { "Idempotency-Key": key, Prefer: "wait=5" };
    if (kind === "upload") {
      // Its length is what tells it apart.
      const body = new Uint8Array(Number(expected));
      body.set(picture);
      return ["/v1/models/Size/predictions", { headers: { ...headers, "Content-Type": "image/jpeg" }, body }];
    }
    if (kind === "cancel") headers["Prefer"] = "wait=0";
    const query = kind === "webhook" ? `?webhook=${encodeURIComponent(receiver.url)}` : "";
    const Ms = kind === "cancel" ? 200 : upTo(random, 30);
    return [
      `/v1/models/Scripted/predictions${query}`,
      {
        headers: { ...headers, "Content-Type": "application/json" },
        body: JSON.stringify({ Fid: expected, Ms }),
      },
    ];
  }

  async function settle(wish: Wish, random: Random): Promise<void> {
    const deadline = Date.now() + SETTLE_LIMIT_MS;
    const [path, init] = submission(wish, random);
    let prediction = await call("POST", path, init, deadline);
    if (prediction.http >= 300 || prediction.http === 0) return;
    wishes.push(wish);
    wish.paths.add(prediction.links.self);
    // As a client that did not get the answer.
    if (random() < 0.05) {
      prediction = await call("POST", path, init, deadline);
      if (prediction.http < 300 && prediction.http > 0) wish.paths.add(prediction.links.self);
    }
    const [self] = wish.paths;
    if (wish.kind === "cancel") prediction = await call("DELETE", self!, {}, deadline);
    while (!FINAL.has(prediction.status) && Date.now() < deadline) {
      prediction = await call("GET", `${self}?wait=5`, {}, deadline);
      if (prediction.http === 404) return;
    }
    if (!FINAL.has(prediction.status)) return;
    wish.status = prediction.status;
    checkAnswer(wish, prediction);
    settled++;
  }

  function checkAnswer({ key, kind, expected }: Wish, { status, result, error }: Json): void {
    const isRight =
      status === "succeeded" ? result.Fs[0].Lb === expected : kind === "cancel" && status === "cancelled";
    if (!isRight) verdict.faults.push(`${key}: ${status} ${JSON.stringify(result ?? error)}`);
  }

  async function runClient(client: number): Promise<void> {
    const random = createRandom(seed * 1_000_003 + client);
    for (let index = 0; isOn; index++) {
      const kind = pick(random, KINDS);
      const number = index * clients + client;
      const expected = String(kind === "upload" ? picture.length + number : `${seed}-${number}`);
      await settle({ key: `soak-${seed}-${number}`, kind, expected, paths: new Set() }, random);
      await sleep(upTo(random, 2 * PAUSE_MS));
    }
  }

  async function runBulkClient(client: number): Promise<void> {
    for (let index = 0; isOn; index++) {
      const lines = Array.from({ length: BULK_ENTRIES }, (_, line) =>
        JSON.stringify({ request: { Fid: `b${client}-${index}-${line}`, Ms: 5 } }),
      );
      const query = `?model=Scripted&webhook=${encodeURIComponent(receiver.url)}`;
      const headers = { "Content-Type": "application/x-ndjson" };
      let run = await call("POST", `/v1/bulk${query}`, { headers, body: lines.join("\n") });
      if (run.http >= 300) continue;
      const wish: BulkWish = { id: run.id };
      runs.push(wish);
      const deadline = Date.now() + SETTLE_LIMIT_MS;
      while (!ENDED_RUN.has(run.status) && Date.now() < deadline) {
        await sleep(500);
        run = await call("GET", `/v1/bulk/${wish.id}`, {}, deadline);
      }
      wish.status = run.status;
      if (run.status !== "completed")
        verdict.faults.push(`${wish.id}: ${run.status} ${JSON.stringify(run.error)}`);
      await readLines(wish, `b${client}-${index}-`);
    }
  }

  async function readLines({ id }: BulkWish, prefix: string): Promise<void> {
    const text = await textOf(`/v1/bulk/${id}/results`);
    const seen = new Set<number>();
    for (const line of text.split("\n").filter(Boolean)) {
      const { index, status, result }: Json = JSON.parse(line);
      if (seen.has(index)) verdict.doubled.push(`${id} entry ${index}`);
      seen.add(index);
      if (status !== "succeeded" || result.Fs[0].Lb !== `${prefix}${index}`)
        verdict.faults.push(`${id}: ${line}`);
    }
    for (let index = 0; index < BULK_ENTRIES; index++)
      if (!seen.has(index)) verdict.lost.push(`${id} entry ${index}`);
    verdict.bulk.lines += seen.size;
    settled += seen.size;
  }

  async function textOf(path: string): Promise<string> {
    for (;;) {
      try {
        const answer = await fetch(urls[tries++ % urls.length]! + path, {
          signal: AbortSignal.timeout(30_000),
        });
        if (answer.ok) return await answer.text();
      } catch {
        // Broken off: all of it again.
      }
      await sleep(RETRY_PAUSE_MS);
    }
  }

  /** Once all is quiet: each is there, as it ended. */
  async function look(): Promise<void> {
    let next = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let wish = wishes[next++]; wish; wish = wishes[next++]) {
          if (wish.paths.size > 1) verdict.doubled.push(`${wish.key}: ${[...wish.paths].join(", ")}`);
          const [self] = wish.paths;
          const prediction = await call("GET", self!);
          if (!FINAL.has(prediction.status))
            verdict.lost.push(`${wish.key}: ${self} ${prediction.status ?? "not found"}`);
          else if (wish.status === undefined)
            verdict.lost.push(`${wish.key}: ${self} was not settled in time`);
          else {
            verdict.finished++;
            countUp(verdict.outcomes, prediction.status);
            checkAnswer(wish, prediction);
            if (prediction.status !== wish.status)
              verdict.doubled.push(`${wish.key}: ${wish.status}, then ${prediction.status}`);
          }
        }
      }),
    );
  }

  async function lookForWebhooks(): Promise<void> {
    const expected = [
      ...wishes
        .filter(({ kind }) => kind === "webhook")
        .map(({ paths }) => [...paths][0]!.split("/").at(-1)!),
      ...runs.filter(({ status }) => status === "completed").map(({ id }) => id),
    ];
    const deadline = Date.now() + SETTLE_LIMIT_MS;
    const counts = () => countReceived(receiver);
    while (expected.some((id) => !counts().has(id)) && Date.now() < deadline) await sleep(1000);
    const received = counts();
    verdict.webhooks = {
      expected: expected.length,
      missing: expected.filter((id) => !received.has(id)),
      repeated: expected.filter((id) => (received.get(id) ?? 0) > 1).length,
    };
  }

  const running = [
    ...Array.from({ length: clients }, (_, client) => runClient(client)),
    ...Array.from({ length: BULK_CLIENTS }, (_, client) => runBulkClient(client)),
  ];
  return {
    count: () => settled,
    async finish() {
      isOn = false;
      await Promise.all(running);
      await lookForWebhooks();
      await look();
      await receiver.close();
      verdict.accepted = wishes.length;
      verdict.bulk.runs = runs.length;
      verdict.bulk.entries = runs.length * BULK_ENTRIES;
      return verdict;
    },
  };
}

function countReceived({ received }: Receiver): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { event } of received) counts.set(event.data.id, (counts.get(event.data.id) ?? 0) + 1);
  return counts;
}
