/**
 * Traces: what this process does as spans of OpenTelemetry, and how the context of one travels to the next process, in
 * headers and in jobs. The SDK is loaded where the environment asks for traces, and only then; else every function here
 * costs a look at a variable.
 */
import type { Attributes, Context, Link, Span, TimeInput } from "@opentelemetry/api";
import type { Logger } from "pino";
import type { OpenedSdk } from "./openedSdk.ts";

export type { Attributes, Span } from "@opentelemetry/api";

/** Headers as they came, or what `traceHeaders` put into a job. */
export type Carrier = Readonly<Record<string, string | string[] | undefined>>;

export interface SpanOptions {
  kind?: "SERVER" | "CLIENT" | "PRODUCER" | "CONSUMER";
  attributes?: Attributes;
  /** What another process sent along; the span continues its trace. Default: the span that is active here. */
  from?: Carrier;
  /** The span that it is a part of. Default: as `from`. */
  parent?: Span;
  /** Spans that it belongs to as well. */
  links?: readonly Span[];
  startTime?: TimeInput;
}

/** As BullMQ's own telemetry writes it into a job's options. */
export interface JobTelemetry {
  telemetry?: { metadata: string };
}

let sdk: OpenedSdk | undefined;

/** What a look at the environment costs is all that a process without traces pays. */
export function isAskedFor(env: NodeJS.ProcessEnv): boolean {
  const { OTEL_SDK_DISABLED: disabled = "", OTEL_TRACES_EXPORTER: exporter = "" } = env;
  if (disabled.trim().toLowerCase() === "true" || exporter.trim() === "none") return false;
  const endpoint = env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] || env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  return exporter.trim() !== "" || Boolean(endpoint?.trim());
}

/**
 * Starts traces where the environment asks for them.
 * @param process "api", "worker" or "coordinator"
 * @returns what sends the last spans
 * @throws ConfigError where it asks for what there isn't
 */
export async function startTracing(process: string, log: Logger): Promise<{ close(): Promise<void> }> {
  if (!isAskedFor(globalThis.process.env)) return { close: async () => {} };
  const { openSdk } = await import("./sdk.ts");
  const opened = openSdk(process, globalThis.process.env, log);
  sdk = opened;
  return {
    async close() {
      sdk = undefined;
      await opened.close();
    },
  };
}

export function isTracing(): boolean {
  return sdk !== undefined;
}

/** A span that its caller ends; undefined where traces are off. */
export function startSpan(name: string, options: SpanOptions = {}): Span | undefined {
  if (!sdk) return undefined;
  const { kind = "INTERNAL", attributes = {}, links = [], startTime } = options;
  return sdk.tracer.startSpan(
    name,
    {
      kind: sdk.api.SpanKind[kind],
      attributes,
      links: links.map(linkTo),
      ...(startTime !== undefined && { startTime }),
    },
    contextOf(sdk, options),
  );
}

/** Runs something so that the spans that it starts are parts of this one. */
export function within<T>(span: Span, work: () => T): T {
  if (!sdk) return work();
  const { api } = sdk;
  return api.context.with(api.trace.setSpan(api.context.active(), span), work);
}

/**
 * Runs something in a span of its own.
 * @param codeOf what an error is to be known by; undefined where it is none
 */
export async function inSpan<T>(
  name: string,
  options: SpanOptions,
  work: (span?: Span) => Promise<T>,
  codeOf: (error: unknown) => string | undefined = codeOfError,
): Promise<T> {
  const span = startSpan(name, options);
  if (!span) return work();
  try {
    return await within(span, () => work(span));
  } catch (error) {
    const code = codeOf(error);
    if (code !== undefined) failSpan(span, code, (error as Error).message);
    throw error;
  } finally {
    span.end();
  }
}

export function failSpan(span: Span | undefined, code: string, message?: string): void {
  if (!span || !sdk) return;
  span.setAttribute("error.type", code);
  span.setStatus({ code: sdk.api.SpanStatusCode.ERROR, ...(message !== undefined && { message }) });
}

/** What carries the active span to another process, as W3C Trace Context; empty where there is none. */
export function traceHeaders(): Record<string, string> {
  const carrier: Record<string, string> = {};
  if (sdk) sdk.propagator.inject(sdk.api.context.active(), carrier, sdk.api.defaultTextMapSetter);
  return carrier;
}

/** The same as options of a BullMQ job. */
export function jobTelemetry(): JobTelemetry {
  if (!sdk) return {};
  const carrier = traceHeaders();
  return "traceparent" in carrier ? { telemetry: { metadata: JSON.stringify(carrier) } } : {};
}

/** What a job carries. */
export function carrierOf({ opts }: { opts: { telemetry?: { metadata?: string } } }): Carrier {
  const { metadata } = opts.telemetry ?? {};
  if (!sdk || metadata === undefined) return {};
  try {
    return JSON.parse(metadata) as Carrier;
  } catch {
    return {};
  }
}

export function linkTo(span: Span): Link {
  return { context: span.spanContext() };
}

function contextOf({ api, propagator }: OpenedSdk, { from, parent }: SpanOptions): Context {
  if (parent) return api.trace.setSpan(api.ROOT_CONTEXT, parent);
  if (from) return propagator.extract(api.ROOT_CONTEXT, from, api.defaultTextMapGetter);
  return api.context.active();
}

function codeOfError(error: unknown): string {
  const { code, name } = error as { code?: unknown; name?: string };
  return typeof code === "string" ? code : (name ?? "Error");
}
