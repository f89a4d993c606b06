/** What a loader can do to its engine, from one table for engines of Node and of Python: only the request at fault fails. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { configSchema } from "../../../src/config/schema.ts";
import type { Member } from "../../../src/engines/protocol.ts";
import { PRIORITIES } from "../../../src/core/prediction.ts";
import { planEngines } from "../../../src/worker/enginePlan.ts";
import type { EnginePool, EngineResult } from "../../../src/worker/enginePool.ts";
import { SCRIPTED_LOADER } from "../../support/infermill.ts";
import { commandOf, processesBelow } from "../../support/processes.ts";
import { whyNoPython } from "../../support/python.ts";

/** What is shipped, as engines start from it twice as fast as from the sources. */
const shipped = new URL("../../../dist/worker/enginePool.js", import.meta.url).href;

const KINDS = [
  { kind: "Node", file: SCRIPTED_LOADER, skip: false as string | false },
  {
    kind: "Python",
    file: fileURLToPath(new URL("../../loaders/scripted.py", import.meta.url)),
    skip: whyNoPython,
  },
];

/** What the request at fault does, and the error that it alone ends with. */
const FAULTS: [what: string, code: string, detail: RegExp][] = [
  ["throw", "loader_failed", /told to throw/],
  ["wrong count", "loader_failed", /must return an? .* of one outcome for each of its 1 requests, got 0/],
  ["no dictionary", "loader_failed", /must return a response dictionary, got 42/],
  ["NaN", "loader_failed", /the response can't be written as JSON: Fs\[1\]\.Cs is NaN/],
  ["refuse", "bad_input", /told to refuse/],
];
const LETHAL: [what: string, code: string, detail: RegExp][] = [
  ["crash", "engine_lost", /was killed by SIGKILL/],
  ["abort", "engine_lost", /was killed by SIG(ABRT|TRAP|ILL)/],
  ["exit", "engine_lost", /exited with code 3/],
  ["hang", "timeout", /timeout_ms of 1500/],
  ["huge frame", "engine_lost", /sent what is no message \(its header has 2147483648 bytes\)/],
  ["stray line", "engine_lost", /sent what is no message \(it begins with "a stray li/],
  ["bare NaN", "engine_lost", /sent what is no message \(its header is not JSON/],
];

describe.each(KINDS)("an engine of $kind", ({ file, skip }) => {
  const folder = mkdtempSync(join(tmpdir(), "infermill-faults-"));
  let pool: EnginePool;
  let log: string;
  afterEach(() => pool?.close(0));
  afterAll(() => rmSync(folder, { recursive: true }));

  async function startPool(): Promise<void> {
    const config = {
      ...configSchema.parse({
        models: {
          Scripted: {
            loader: "ScriptedModelLoader",
            model_loader_file: file,
            instances: 1,
            timeout_ms: 1500,
            max_batch_size: 8,
          },
        },
      }),
      file: join(folder, "c.json"),
    };
    log = "";
    const stream = new Writable({
      write(line: Buffer, _encoding, done) {
        log += line.toString();
        done();
      },
    });
    const { EnginePool: Pool } = (await import(
      shipped
    )) as typeof import("../../../src/worker/enginePool.ts");
    pool = new Pool({
      modelName: "Scripted",
      specs: planEngines(config, ["Scripted"]).get("Scripted")!,
      maxBatchSize: 8,
      maxQueueDelayMs: 0,
      readStored: (members) => members as Member[],
      log: pino({ level: "info" }, stream),
    });
    await pool.loaded;
  }

  function run(request: Record<string, unknown>): Promise<EngineResult> {
    return pool.run({
      id: String(request["Fid"]),
      request,
      inputs: [],
      priority: PRIORITIES.normal,
      timeoutMs: 1500,
    });
  }

  /** Eight requests in one batch, of which the fourth does something else. */
  function runEight(what: string): Promise<PromiseSettledResult<EngineResult>[]> {
    return Promise.allSettled(
      Array.from({ length: 8 }, (_, index) => run({ Fid: `${index}`, ...(index === 3 && { Do: what }) })),
    );
  }

  function expectOnlyTheFourthToFail(
    outcomes: PromiseSettledResult<EngineResult>[],
    code: string,
    detail: RegExp,
  ): void {
    const labels = outcomes.map((outcome) =>
      outcome.status === "fulfilled" ? (outcome.value.response["Fs"] as { Lb: string }[])[0]!.Lb : "failed",
    );
    expect(labels).toEqual(["0", "1", "2", "failed", "4", "5", "6", "7"]);
    expect(outcomes[3]).toMatchObject({
      reason: { code: expect.stringMatching(code), message: expect.stringMatching(detail) },
    });
  }

  test.skipIf(skip)("continues when a request in a batch is faulty, which fails alone", async () => {
    await startPool();
    const { pid } = pool.report().engines[0]!;
    for (const [what, code, detail] of FAULTS) {
      expectOnlyTheFourthToFail(await runEight(what), code, detail);
    }
    expect(pool.report().engines).toMatchObject([{ pid, restarts: 0 }]);
  });

  test.skipIf(skip).each(LETHAL)("is replaced on %s: the request fails alone", async (what, code, detail) => {
    await startPool();
    expectOnlyTheFourthToFail(await runEight(what), code, detail);
    expect(await run({ Fid: "after" })).toMatchObject({ response: { Fid: "after" } });
  });

  test.skipIf(skip)("is replaced when its loader closes the pipe", async () => {
    await startPool();
    // A thread of a Python engine reads from it and keeps it open, until the time is over.
    expectOnlyTheFourthToFail(await runEight("close pipe"), "engine_lost|timeout", /engine|timeout_ms/);
    expect(await run({ Fid: "after" })).toMatchObject({ response: { Fid: "after" } });
  });

  test.skipIf(skip)("whose memory is too small for a batch runs smaller ones from then on", async () => {
    await startPool();
    const outcomes = await runEight("out of memory");
    expect(outcomes.map(({ status }) => status)).toEqual(outcomes.map(() => "fulfilled"));
    expect(pool.report()).toMatchObject({ batch_limit: 2, engines: [{ restarts: 0 }] });
    expect(log).toMatch(/out of memory, batches hold 2 from now on \(set max_batch_size to 2\)/);
    const later = await Promise.all(Array.from({ length: 4 }, (_, index) => run({ Fid: `${index}` })));
    expect(later.map(({ batchSize }) => batchSize)).toEqual([2, 2, 2, 2]);
  });

  test.skipIf(skip)("prints what it likes: lines of the log with its name", async () => {
    await startPool();
    expect((await runEight("print garbage")).map(({ status }) => status)).not.toContain("rejected");
    await vi.waitUntil(() => log.includes("a last word"), 5000);
    const lines = log
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toContainEqual(
      expect.objectContaining({ engine: "Scripted-0", stream: "stderr", msg: "a last word" }),
    );
    expect(lines).toContainEqual(
      expect.objectContaining({ engine: "Scripted-0", stream: "stdout", msg: "IFM1" }),
    );
    expect(pool.report().engines[0]!.restarts).toBe(0);
  });

  test.skipIf(skip)("leaves none of the processes that its loader started behind", async () => {
    await startPool();
    await runEight("fork children");
    const { pid } = pool.report().engines[0]!;
    const children = processesBelow(pid!);
    expect(children.length).toBeGreaterThanOrEqual(3);
    const [outcome] = await Promise.allSettled([run({ Fid: "lethal", Do: "crash" })]);
    expect(outcome).toMatchObject({ reason: { code: "engine_lost" } });
    await vi.waitUntil(() => children.every((child) => commandOf(child) === ""), 10_000);
  });

  test.skipIf(skip)("may run for longer than timeout_ms while it reports progress", async () => {
    await startPool();
    const result = await pool.run({
      id: "long",
      request: { Fid: "long", Do: "progress" },
      inputs: [],
      priority: PRIORITIES.normal,
      timeoutMs: 1500,
    });
    expect(result.timings.infer_ms).toBeGreaterThan(2000);
  });
});
