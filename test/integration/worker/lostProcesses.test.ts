import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Prediction } from "../../support/answers.ts";
import { SCRIPTED_LOADER, startInfermill, until, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);

describe.skipIf(whyNoRedis)("under load, when a process is killed", () => {
  let infermill: TestInfermill;
  beforeAll(async () => {
    infermill = await startInfermill({
      models: {
        Scripted: {
          loader: "ScriptedModelLoader",
          model_loader_file: SCRIPTED_LOADER,
          instances: 2,
          max_batch_size: 4,
        },
      },
    });
  });
  afterAll(() => infermill?.stop());

  const predictionsUrl = () => `${infermill.url}/v1/models/Scripted/predictions`;

  /** Submits without a pause until it is stopped; answers what was accepted, by id. */
  function startLoad(): { accepted: Map<string, string>; stop(): Promise<void> } {
    const accepted = new Map<string, string>();
    let isOn = true;
    let next = 0;
    const clients = Array.from({ length: 8 }, async () => {
      while (isOn) {
        const Fid = `${next++}`;
        try {
          const answer = await fetch(predictionsUrl(), {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ Fid, Ms: 20 }),
          });
          const { id } = (await answer.json()) as Prediction;
          if (answer.status === 202) accepted.set(id, Fid);
        } catch {
          // Not accepted: the client would send it again.
        }
        await sleep(20);
      }
    });
    return {
      accepted,
      async stop() {
        isOn = false;
        await Promise.all(clients);
      },
    };
  }

  async function read(id: string): Promise<Prediction> {
    return (await (await fetch(`${predictionsUrl()}/${id}`)).json()) as Prediction;
  }

  /** Each accepted prediction ends once, with its own answer, and stays as it ended. */
  async function expectAllToSucceed(accepted: Map<string, string>): Promise<void> {
    const ended = new Map<string, Prediction>();
    for (const id of accepted.keys()) {
      ended.set(
        id,
        await until(async () => {
          const prediction = await read(id);
          return FINAL.has(prediction.status) && prediction;
        }, `the end of ${id}`),
      );
    }
    for (const [id, Fid] of accepted) {
      expect(ended.get(id)).toMatchObject({ status: "succeeded", error: null });
      expect(ended.get(id)!.result!.Fs[0]!.Lb).toBe(Fid);
      expect(await read(id)).toEqual(ended.get(id));
    }
  }

  async function reportedPids(): Promise<{ engines: number[]; worker: number }> {
    const answer = await fetch(`${infermill.url}/v1/models/Scripted`);
    const { engines } = (await answer.json()) as { engines: { pid: number; worker: string }[] };
    return { engines: engines.map(({ pid }) => pid), worker: Number(engines[0]!.worker.split("-").at(-2)) };
  }

  test("an engine: what it held runs again, nothing is lost", async () => {
    const load = startLoad();
    await until(() => load.accepted.size > 50, "some load");
    process.kill((await reportedPids()).engines[0]!, "SIGKILL");
    const before = load.accepted.size;
    await until(() => load.accepted.size > before + 50, "some load afterwards");
    await load.stop();
    await expectAllToSucceed(load.accepted);
  });

  test("the worker: another takes over, nothing is lost", async () => {
    const load = startLoad();
    await until(() => load.accepted.size > 50, "some load");
    process.kill((await reportedPids()).worker, "SIGKILL");
    const before = load.accepted.size;
    await until(() => load.accepted.size > before + 50, "some load afterwards");
    await load.stop();
    await expectAllToSucceed(load.accepted);
  });
});
