/** A collector of OpenTelemetry for tests: takes OTLP over HTTP as JSON, and keeps the spans. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";

export interface ReceivedSpan {
  /** `service.name` of its process. */
  service: string;
  name: string;
  kind: "internal" | "server" | "client" | "producer" | "consumer";
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  attributes: Record<string, unknown>;
  links: string[];
  hasFailed: boolean;
  startMs: number;
  endMs: number;
}

export interface OtlpReceiver {
  /** For OTEL_EXPORTER_OTLP_ENDPOINT. */
  endpoint: string;
  spans: ReceivedSpan[];
  /** Attributes of the processes that sent spans. */
  resources: Record<string, unknown>[];
  close(): Promise<void>;
}

/** As OTLP writes them, as far as they are read here. */
interface Value {
  stringValue?: string;
  intValue?: number | string;
  doubleValue?: number;
  boolValue?: boolean;
}
type Attribute = { key: string; value: Value };
interface ExportRequest {
  resourceSpans: {
    resource: { attributes: Attribute[] };
    scopeSpans: {
      spans: {
        name: string;
        kind: number;
        traceId: string;
        spanId: string;
        parentSpanId?: string;
        attributes: Attribute[];
        links?: { spanId: string }[];
        status: { code?: number };
        startTimeUnixNano: string;
        endTimeUnixNano: string;
      }[];
    }[];
  }[];
}

const KINDS = ["internal", "internal", "server", "client", "producer", "consumer"] as const;
const FAILED = 2;

export async function startOtlpReceiver(): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = [];
  const resources: Record<string, unknown>[] = [];
  const server = createServer(async (req, res) => {
    if (req.url !== "/v1/traces" || req.headers["content-type"] !== "application/json") {
      res.writeHead(400).end();
      return;
    }
    for (const { resource, scopeSpans } of ((await json(req)) as ExportRequest).resourceSpans) {
      const facts = valuesOf(resource.attributes);
      resources.push(facts);
      for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
        spans.push({
          service: String(facts["service.name"]),
          name: span.name,
          kind: KINDS[span.kind]!,
          traceId: span.traceId,
          spanId: span.spanId,
          parentSpanId: span.parentSpanId || undefined,
          attributes: valuesOf(span.attributes),
          links: (span.links ?? []).map(({ spanId }) => spanId),
          hasFailed: span.status.code === FAILED,
          startMs: Number(span.startTimeUnixNano) / 1e6,
          endMs: Number(span.endTimeUnixNano) / 1e6,
        });
      }
    }
    res.setHeader("Content-Type", "application/json").end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    resources,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function valuesOf(attributes: readonly Attribute[]): Record<string, unknown> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => [
      key,
      value.stringValue ?? value.doubleValue ?? value.boolValue ?? Number(value.intValue),
    ]),
  );
}
