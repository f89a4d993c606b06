/** Traces of OpenTelemetry: one over all processes, nothing of it where nobody asks for them. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, type Json } from "../../support/api.ts";
import { freePort } from "../../support/freePort.ts";
import {
  runInfermill,
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  type TestInfermill,
} from "../../support/infermill.ts";
import { startOtlpReceiver, type OtlpReceiver, type ReceivedSpan } from "../../support/otlpReceiver.ts";
import { SECRET, startReceiver, type Receiver } from "../../support/receiver.ts";
import { whyNoRedis } from "../../support/redis.ts";

const LIST_MODULES = fileURLToPath(new URL("../../support/listModules.cjs", import.meta.url));
const SERVICES = ["infermill-api", "infermill-worker", "infermill-coordinator"];
const MODEL = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, max_batch_size: 4 };
const SETTINGS = {
  models: { Scripted: MODEL },
  webhooks: { secret: SECRET, allow: ["127.0.0.1"] },
};

describe.skipIf(whyNoRedis)("traces", () => {
  let collector: OtlpReceiver;
  let receiver: Receiver;
  let infermill: TestInfermill;
  let folder: string;
  let modulesFile: string;
  beforeAll(async () => {
    collector = await startOtlpReceiver();
    receiver = await startReceiver();
    folder = mkdtempSync(join(tmpdir(), "infermill-traces-"));
    modulesFile = join(folder, "modules");
    writeFileSync(join(folder, "one.json"), JSON.stringify({ Fid: "bulk" }));
    infermill = await startInfermill(SETTINGS, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      NODE_OPTIONS: `--require ${LIST_MODULES}`,
      MODULES_FILE: modulesFile,
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    await receiver?.close();
    await collector?.close();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const predictionsUrl = (): string => `${infermill.url}/v1/models/Scripted/predictions`;
  const newTraceId = () => crypto.randomUUID().replaceAll("-", "");
  const traceparent = (traceId: string, flags = "01") => `00-${traceId}-00f067aa0ba902b7-${flags}`;

  /** The spans of a trace, once there is one of each of these names. */
  async function spansOf(traceId: string, ...names: string[]): Promise<Map<string, ReceivedSpan>> {
    return until(
      () => {
        const found = new Map(
          collector.spans.filter((span) => span.traceId === traceId).map((span) => [span.name, span]),
        );
        return names.every((name) => found.has(name)) && found;
      },
      `the spans ${names.join(", ")}`,
      10_000,
    );
  }

  test("one trace leads from the caller's through the api, the queue and the engine to the webhook", async () => {
    const traceId = newTraceId();
    const url = `${predictionsUrl()}?webhook=${encodeURIComponent(receiver.url)}`;
    const headers = { traceparent: traceparent(traceId), Prefer: "wait=30" };
    const { body } = await send("POST", url, { Fid: "a", Ms: 30 }, headers);
    expect(body.status).toBe("succeeded");
    const route = "POST /v1/models/{model}/predictions";
    const spans = await spansOf(traceId, route, "send Scripted", "process Scripted", "infer", "POST");

    const tree = (name: string) => {
      const { service, kind, parentSpanId, hasFailed } = spans.get(name)!;
      const parent = [...spans.values()].find(({ spanId }) => spanId === parentSpanId)?.name ?? parentSpanId;
      return { service, kind, parent, hasFailed };
    };
    const ok = { hasFailed: false };
    const [api, worker, coordinator] = SERVICES;
    expect(tree(route)).toEqual({ ...ok, service: api, kind: "server", parent: "00f067aa0ba902b7" });
    expect(tree("send Scripted")).toEqual({ ...ok, service: api, kind: "producer", parent: route });
    expect(tree("process Scripted")).toEqual({
      ...ok,
      service: worker,
      kind: "consumer",
      parent: "send Scripted",
    });
    expect(tree("batch Scripted")).toEqual({
      ...ok,
      service: worker,
      kind: "internal",
      parent: "process Scripted",
    });
    expect(tree("infer")).toEqual({ ...ok, service: worker, kind: "internal", parent: "batch Scripted" });
    expect(tree("POST")).toEqual({ ...ok, service: coordinator, kind: "client", parent: "send Scripted" });

    expect(spans.get(route)!.attributes).toMatchObject({
      "http.request.method": "POST",
      "http.route": "/v1/models/{model}/predictions",
      "http.response.status_code": 200,
      "url.path": "/v1/models/Scripted/predictions",
    });
    const message = {
      "messaging.system": "bullmq",
      "messaging.destination.name": "Scripted",
      "messaging.message.id": body.id,
    };
    expect(spans.get("send Scripted")!.attributes).toMatchObject({
      ...message,
      "messaging.operation.type": "send",
    });
    expect(spans.get("process Scripted")!.attributes).toMatchObject({
      ...message,
      "messaging.operation.type": "process",
      "infermill.infer_ms": expect.closeTo(body.timings.infer_ms, 1),
    });
    expect(spans.get("batch Scripted")).toMatchObject({
      links: [spans.get("process Scripted")!.spanId],
      attributes: { "infermill.batch_size": 1, "infermill.engine": "Scripted-0" },
    });
    const { startMs, endMs } = spans.get("infer")!;
    expect(endMs - startMs).toBeCloseTo(body.timings.infer_ms, 0);
    expect(spans.get("POST")!.attributes).toMatchObject({
      "http.response.status_code": 200,
      "server.address": "127.0.0.1",
    });
    const delivered = receiver.received.find(({ event }) => event.data.id === body.id)!;
    expect(delivered.headers["traceparent"]).toBe(`00-${traceId}-${spans.get("POST")!.spanId}-01`);
    // No secret of the webhook's address, and nothing of the request.
    expect(JSON.stringify([...spans.values()])).not.toMatch(/hook|Fid/);
  });

  test("a batch is linked with all predictions that ran in it", async () => {
    const traceId = newTraceId();
    const requests = Array.from({ length: 4 }, (_, index) => ({ Fid: `${index}`, Ms: 20 }));
    // Until it has run, the others wait and make one batch.
    const first = submit(infermill.url, "Scripted", { Ms: 300 });
    const { status } = await send("POST", predictionsUrl(), requests, { traceparent: traceparent(traceId) });
    expect(status).toBe(202);
    await first;
    await spansOf(traceId, "batch Scripted");
    const ofTrace = (name: string) =>
      collector.spans.filter((span) => span.traceId === traceId && span.name === name);
    const processed = await until(
      () => ofTrace("process Scripted").length === 4 && ofTrace("process Scripted"),
      "four predictions",
    );
    const batches = ofTrace("batch Scripted");
    const ids = processed.map(({ spanId }) => spanId);
    expect(batches.flatMap(({ links }) => links).toSorted()).toEqual(ids.toSorted());
    expect(batches.some(({ links }) => links.length > 1)).toBe(true);
    for (const { spanId, links } of batches)
      for (const member of processed)
        if (links.slice(1).includes(member.spanId)) expect(member.links).toEqual([spanId]);
    expect(ofTrace("send Scripted")[0]!.attributes["messaging.batch.message_count"]).toBe(4);
  });

  test("what failed says why; an error of the client is none of the server", async () => {
    const traceId = newTraceId();
    const headers = { traceparent: traceparent(traceId), Prefer: "wait=30" };
    await send("POST", predictionsUrl(), { Do: "refuse" }, headers);
    const spans = await spansOf(traceId, "process Scripted", "POST /v1/models/{model}/predictions");
    expect(spans.get("process Scripted")).toMatchObject({
      hasFailed: true,
      attributes: { "error.type": "bad_input" },
    });
    const missing = newTraceId();
    await send("GET", `${predictionsUrl()}/none`, undefined, { traceparent: traceparent(missing) });
    const [span] = (await spansOf(missing, "GET /v1/models/{model}/predictions/{id}")).values();
    expect(span).toMatchObject({ hasFailed: false, attributes: { "http.response.status_code": 404 } });
  });

  test("a bulk run is one span, and its webhook is a part of the same trace", async () => {
    const traceId = newTraceId();
    const lines = Array.from({ length: 3 }, (_, index) => JSON.stringify({ request: { Fid: `${index}` } }));
    const url = `${infermill.url}/v1/bulk?model=Scripted&webhook=${encodeURIComponent(receiver.url)}`;
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/x-ndjson", traceparent: traceparent(traceId) },
      body: lines.join("\n"),
    });
    const run = (await answer.json()) as Json;
    expect(answer.status, JSON.stringify(run)).toBe(202);
    const spans = await spansOf(traceId, "POST /v1/bulk", "send _bulk", "process _bulk", "POST");
    expect(spans.get("process _bulk")).toMatchObject({
      service: "infermill-coordinator",
      parentSpanId: spans.get("send _bulk")!.spanId,
      attributes: { "messaging.message.id": run.id },
    });
    expect(spans.has("process Scripted")).toBe(false);
  });

  test("neither what its caller doesn't sample nor probes and scrapes are recorded", async () => {
    const [unsampled, probed] = [newTraceId(), newTraceId()];
    await send(
      "POST",
      predictionsUrl(),
      {},
      { traceparent: traceparent(unsampled, "00"), Prefer: "wait=30" },
    );
    for (const path of ["/health/ready", "/metrics"])
      await fetch(`${infermill.url}${path}`, { headers: { traceparent: traceparent(probed) } });
    const last = newTraceId();
    await send("POST", predictionsUrl(), {}, { traceparent: traceparent(last), Prefer: "wait=30" });
    await spansOf(last, "process Scripted", "POST /v1/models/{model}/predictions");
    const seen = new Set(collector.spans.map(({ traceId }) => traceId));
    expect([unsampled, probed].filter((id) => seen.has(id))).toEqual([]);
    for (const resource of collector.resources)
      expect(resource).toMatchObject({ "deployment.environment.name": "test" });
  });

  test("nothing of it is loaded without the variables", async () => {
    const loaded = (file: string) =>
      new Set(readFileSync(file, "utf8").match(/node_modules\/(@opentelemetry\/[\w-]+|express)\//g));
    const plainFile = join(folder, "plain");
    const plain = await startInfermill(SETTINGS, {
      NODE_OPTIONS: `--require ${LIST_MODULES}`,
      MODULES_FILE: plainFile,
      // Asked for, and then not.
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
      OTEL_SDK_DISABLED: "true",
    });
    const headers = { traceparent: traceparent(newTraceId()), Prefer: "wait=30" };
    const url = `${plain.url}/v1/models/Scripted/predictions?webhook=${encodeURIComponent(receiver.url)}`;
    const { body } = await send("POST", url, {}, headers);
    const delivered = await until(
      () => receiver.received.find(({ event }) => event.data.id === body.id),
      "its webhook",
    );
    expect(delivered.headers["traceparent"]).toBeUndefined();
    await plain.stop();
    // prom-client loads the api of OpenTelemetry for itself, and nothing else of it.
    expect([...loaded(plainFile)].toSorted()).toEqual([
      "node_modules/@opentelemetry/api/",
      "node_modules/express/",
    ]);
    // The same look at a process that traces finds it.
    await infermill.stop();
    expect(loaded(modulesFile)).toContain("node_modules/@opentelemetry/sdk-trace-base/");
  });

  test("a collector that is away costs a line in the log, and neither predictions nor the end", async () => {
    const running = await startInfermill(SETTINGS, {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${await freePort()}`,
      OTEL_EXPORTER_OTLP_TIMEOUT: "1000",
      OTEL_BSP_SCHEDULE_DELAY: "100",
    });
    expect((await submit(running.url, "Scripted", {})).status).toBe("succeeded");
    await running.printed(/traces: /, 20_000);
    const before = Date.now();
    await running.stop();
    expect(Date.now() - before).toBeLessThan(15_000);
  });

  test("what can't be sent is refused at the start", async () => {
    const file = join(folder, "infermill.json");
    writeFileSync(file, JSON.stringify({ port: 0, ...SETTINGS }));
    const api = runInfermill(["api", "--config", file], {
      env: { OTEL_TRACES_EXPORTER: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" },
    });
    await api.printed(
      /OTEL_EXPORTER_OTLP_PROTOCOL: must be http\/protobuf or http\/json.*4318.*, got "grpc"/,
    );
    expect((await api.exited).code).toBe(2);
  });
});
