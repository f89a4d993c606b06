/** Deliveries over HTTP and on the command line, with real processes, some of which are killed. */
import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, type Json } from "../../support/api.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";

describe.skipIf(whyNoRedis)("deliveries", () => {
  let infermill: TestInfermill;
  let isUp = true;
  let receiver: Receiver;
  beforeAll(async () => {
    receiver = await startReceiver((res) => res.writeHead(isUp ? 200 : 500).end());
    infermill = await startInfermill({
      webhooks: {
        secret: SECRET,
        url: receiver.url,
        events: ["prediction.succeeded", "prediction.failed"],
        allow: ["127.0.0.1"],
        retry_delays_ms: [0, 100],
      },
      models: {
        Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 },
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    await receiver?.close();
  });

  const deliveries = (query = "") => send("GET", `${infermill.url}/v1/webhooks/deliveries${query}`);

  async function failedDelivery(): Promise<Json> {
    isUp = false;
    const { links } = await submit(infermill.url, "Scripted", { Fid: "x" });
    const its = await until(async () => {
      const { body } = await send("GET", `${infermill.url}${links.self}/deliveries`);
      return body.deliveries[0].status === "failed" && body.deliveries[0];
    }, "a dead delivery");
    isUp = true;
    return its;
  }

  function untilDelivered(id: string): Promise<Json> {
    return until(async () => {
      const { body } = await send("GET", `${infermill.url}/v1/webhooks/deliveries/${id}`);
      return body.status === "delivered" && body;
    }, `the delivery ${id}`);
  }

  async function cli(...args: string[]): Promise<{ code: number | null; output: string }> {
    const run = runInfermill([...args, "--config", `${infermill.folder}/infermill.json`]);
    const { code } = await run.exited;
    return { code, output: run.output() };
  }

  test("the configuration's webhook is told where a call names none", async () => {
    const { id } = await submit(infermill.url, "Scripted", { Fid: "1" });
    await until(() => receiver.received.some(({ event }) => event.data.id === id), "the event");
  });

  test("a dead delivery is listed and replayed over HTTP, under the same id, with its log kept", async () => {
    const dead = await failedDelivery();
    expect(dead.attempts).toHaveLength(2);
    const { body } = await deliveries();
    expect(body.deliveries.map(({ id }: Json) => id)).toContain(dead.id);
    expect(body.counts.failed).toBeGreaterThanOrEqual(1);
    const replayed = await send("POST", infermill.url + dead.links.replay);
    expect(replayed.status).toBe(202);
    const its = await untilDelivered(dead.id);
    expect(its.attempts.map(({ status }: Json) => status)).toEqual([500, 500, 200]);
    expect(receiver.received.at(-1)!.id).toBe(dead.id);
    expect((await deliveries("?status=delivered")).body.deliveries.map(({ id }: Json) => id)).toContain(
      dead.id,
    );
  });

  test("the command line lists and replays", async () => {
    const dead = [await failedDelivery(), await failedDelivery(), await failedDelivery()];
    const list = await cli("webhooks", "list", "--failed");
    for (const { id } of dead) expect(list.output).toContain(id);
    expect(list.output).toMatch(/3 failed, \d+ pending, \d+ delivered/);
    expect(await cli("webhooks", "replay", dead[0].id)).toMatchObject({ code: 0 });
    await untilDelivered(dead[0].id);
    expect((await cli("webhooks", "replay", "--all-failed")).output).toContain("2 sent again");
    for (const { id } of dead) await untilDelivered(id);
    expect(await cli("webhooks", "replay")).toMatchObject({ code: 2 });
    expect(await cli("webhooks", "replay", "msg_none")).toMatchObject({ code: 1 });
    expect((await cli("webhooks", "secret")).output).toContain(SECRET);
  }, 90_000);

  test("a delivery that isn't there, or can't be, is 404", async () => {
    for (const id of ["msg_none", "meta", "delayed", "1"]) {
      const { status, body } = await send("GET", `${infermill.url}/v1/webhooks/deliveries/${id}`);
      expect([id, status, body.code]).toEqual([id, 404, "delivery_not_found"]);
    }
    expect((await deliveries("?status=dead")).status).toBe(422);
  });

  test("they are a queue on the dashboard and a metric", async () => {
    const { body } = await send("GET", `${infermill.url}/dashboard/api/queues?activeQueue=_webhooks`);
    expect(body.queues.map(({ name }: Json) => name)).toContain("_webhooks");
    const metrics = await (await fetch(`${infermill.url}/metrics`)).text();
    expect(metrics).toMatch(/infermill_webhook_deliveries\{state="delivered"\} \d+/);
  });

  /** Finds a process of `infermill start` by what it does. */
  function pidOf(name: string): number {
    const processes = execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" });
    const child = processes
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .find(([, parent, ...args]) => Number(parent) === infermill.child.pid && args.at(-1) === name);
    return Number(child![0]);
  }

  test.runIf(process.platform === "linux")(
    "a few names whose servers are away leave threads to look up others, in the worker and the coordinator",
    () => {
      for (const name of ["worker", "coordinator"]) {
        const threads = execFileSync("ps", ["-o", "nlwp=", "-p", String(pidOf(name))], { encoding: "utf8" });
        expect(Number(threads), name).toBeGreaterThan(64);
      }
    },
  );

  test("under load, with worker and coordinator killed: every end arrives, each under one id", async () => {
    const accepted = new Set<string>();
    let isOn = true;
    const clients = Array.from({ length: 4 }, async () => {
      while (isOn) {
        const answer = await send("POST", `${infermill.url}/v1/models/Scripted/predictions`, { Ms: 5 }).catch(
          () => undefined,
        );
        if (answer?.status === 202) accepted.add(answer.body.id);
        await sleep(10);
      }
    });
    const grow = (by: number) => {
      const before = accepted.size;
      return until(() => accepted.size > before + by, "some load");
    };
    for (const name of ["worker", "coordinator", "worker", "coordinator"]) {
      await grow(60);
      process.kill(pidOf(name), "SIGKILL");
    }
    await grow(60);
    isOn = false;
    await Promise.all(clients);
    await until(
      () => {
        const told = new Set(receiver.received.map(({ event }) => event.data.id));
        return [...accepted].every((id) => told.has(id));
      },
      "the end of every prediction",
      50_000,
    );
    const idsOf = new Map<string, Set<string>>();
    for (const { id, event } of receiver.received)
      idsOf.set(event.data.id, (idsOf.get(event.data.id) ?? new Set()).add(id));
    for (const [prediction, ids] of idsOf) expect([prediction, ids.size]).toEqual([prediction, 1]);
  }, 120_000);
});
