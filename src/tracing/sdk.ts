/** The SDK of OpenTelemetry, as its standard environment variables ask for it. Only `startTracing` loads this. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { setGlobalErrorHandler, W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtobufExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ConsoleSpanExporter,
  type SpanExporter,
} from "@opentelemetry/sdk-trace-base";
import type { Logger } from "pino";
import { ConfigError } from "../errors.ts";
import { version } from "../version.ts";
import type { OpenedSdk } from "./openedSdk.ts";

/** What the end of a process waits for the last spans. */
const CLOSE_LIMIT_MS = 3000;

export function openSdk(process: string, env: NodeJS.ProcessEnv, log: Logger): OpenedSdk {
  const exporter = createExporter(env);
  const warn = (message: string) => log.warn(`traces: ${message}`);
  api.diag.setLogger(
    { error: warn, warn, info: () => {}, debug: () => {}, verbose: () => {} },
    { logLevel: api.DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  setGlobalErrorHandler((error) =>
    warn(typeof error === "string" ? error : (error.message ?? error.name ?? "unknown fault")),
  );
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const own = resourceFromAttributes({
    "service.name": `infermill-${process}`,
    "service.namespace": "infermill",
    "service.version": version,
    "service.instance.id": randomUUID(),
    "host.name": hostname(),
    "process.pid": globalThis.process.pid,
  });
  const provider = new BasicTracerProvider({
    // What the environment names outweighs the rest: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
    resource: defaultResource()
      .merge(own)
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  return {
    api,
    tracer: provider.getTracer("infermill", version),
    // Without baggage: what a client sends along must not reach the receivers of webhooks.
    propagator: new W3CTraceContextPropagator(),
    close: () =>
      Promise.race([provider.shutdown(), sleep(CLOSE_LIMIT_MS, undefined, { ref: false })]).catch(() => {}),
  };
}

function createExporter(env: NodeJS.ProcessEnv): SpanExporter {
  const kind = env["OTEL_TRACES_EXPORTER"]?.trim() || "otlp";
  if (kind === "console") return new ConsoleSpanExporter();
  if (kind !== "otlp") throw unknownSetting("OTEL_TRACES_EXPORTER", "otlp, console or none", kind);
  const name = env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]
    ? "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    : "OTEL_EXPORTER_OTLP_PROTOCOL";
  const protocol = env[name]?.trim() || "http/protobuf";
  if (protocol === "http/protobuf") return new ProtobufExporter();
  if (protocol === "http/json") return new JsonExporter();
  throw unknownSetting(name, "http/protobuf or http/json, which collectors take on port 4318", protocol);
}

function unknownSetting(name: string, expected: string, got: string): ConfigError {
  return new ConfigError([
    { source: name, key: "", problem: `must be ${expected}, got ${JSON.stringify(got)}` },
  ]);
}
