import type * as api from "@opentelemetry/api";

/** What traces need of OpenTelemetry, once it is loaded. */
export interface OpenedSdk {
  readonly api: typeof api;
  readonly tracer: api.Tracer;
  readonly propagator: api.TextMapPropagator;
  /** Sends what is left, for some seconds at most. */
  close(): Promise<void>;
}
