/** One attempt to deliver an event, and what becomes of the delivery after it. */
import type { IncomingMessage } from "node:http";
import { BlockedAddressError, type Egress } from "../egress/egress.ts";
import type { WebhookEvent } from "../queue/deliveries.ts";
import { failSpan, inSpan, traceHeaders, type Carrier, type SpanOptions } from "../tracing/tracing.ts";
import { signatureHeaders } from "./signature.ts";
import { formatJson } from "../core/json.ts";

/** Of an answer's body nobody needs more than a few words for the log. */
const MAX_BODY_BYTES = 8 * 1024;
const MAX_CHARACTERS = 200;
/** The status line has decided already: a body that comes slowly is not waited for. */
const BODY_LIMIT_MS = 1000;
const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

export interface AttemptResult {
  /** `refused`: no further attempt can help; `gone`: nor can any other delivery to this URL. */
  outcome: "delivered" | "failed" | "refused" | "gone";
  /** HTTP status; null where there was no answer. */
  status: number | null;
  error: string | null;
  /** From Retry-After. */
  retryAfterMs?: number | undefined;
}

export interface AttemptOptions {
  egress: Egress;
  url: string;
  id: string;
  event: WebhookEvent;
  secrets: readonly string[];
  timeoutMs: number;
  userAgent: string;
  /** Attempts that were made before this one. */
  attempts: number;
  /** The trace that the delivery belongs to. */
  trace: Carrier;
}

/** Never throws: whatever goes wrong is a result. */
export function attemptDelivery(options: AttemptOptions): Promise<AttemptResult> {
  return inSpan("POST", spanOf(options), async (span) => {
    const result = await attempt(options);
    if (result.status !== null) span?.setAttribute("http.response.status_code", result.status);
    if (result.outcome !== "delivered")
      failSpan(span, String(result.status ?? "no_answer"), result.error ?? "");
    return result;
  });
}

/** Without the path and the query of the URL, which may be secrets. */
function spanOf({ url, id, attempts, trace }: AttemptOptions): SpanOptions {
  const { hostname, port, protocol } = new URL(url);
  return {
    kind: "CLIENT",
    from: trace,
    attributes: {
      "http.request.method": "POST",
      "server.address": hostname,
      "server.port": Number(port) || (protocol === "https:" ? 443 : 80),
      "url.scheme": protocol.slice(0, -1),
      "messaging.message.id": id,
      ...(attempts > 0 && { "http.request.resend_count": attempts }),
    },
  };
}

async function attempt(options: AttemptOptions): Promise<AttemptResult> {
  const { egress, url, id, event, secrets, timeoutMs, userAgent } = options;
  const body = formatJson(event);
  let answer: IncomingMessage;
  try {
    answer = await egress.request(new URL(url), {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "User-Agent": userAgent,
        ...signatureHeaders(secrets, id, new Date(), body),
        ...traceHeaders(),
      },
      body,
      timeoutMs,
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const isBlocked = error instanceof BlockedAddressError;
    const reason = plainWords(message || code || "no answer");
    return { outcome: isBlocked ? "refused" : "failed", status: null, error: reason };
  }
  const status = answer.statusCode!;
  const text = await readBeginning(answer);
  if (status >= 200 && status < 300) return { outcome: "delivered", status, error: null };
  const error = describeRefusal(status, answer, text);
  if (status === 410) return { outcome: "gone", status, error };
  const retryAfterMs = status === 429 || status === 503 ? readRetryAfter(answer) : undefined;
  return { outcome: "failed", status, error, retryAfterMs };
}

async function readBeginning(answer: IncomingMessage): Promise<string> {
  const limit = setTimeout(() => answer.destroy(), BODY_LIMIT_MS);
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= MAX_BODY_BYTES) break;
    }
  } catch {
    // What came until then is all there is.
  } finally {
    clearTimeout(limit);
    answer.destroy();
  }
  return Buffer.concat(chunks).subarray(0, MAX_BODY_BYTES).toString("utf8");
}

function describeRefusal(status: number, answer: IncomingMessage, text: string): string {
  if (status >= 300 && status < 400)
    return `answered ${status}: redirects are not followed, name the final URL`;
  const words = plainWords(text);
  return `answered ${status} ${plainWords(answer.statusMessage ?? "")}`.trim() + (words ? `: ${words}` : "");
}

/** What a receiver said: control characters would garble a terminal or a log. */
function plainWords(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\s]+/gu, " ")
    .trim()
    .slice(0, MAX_CHARACTERS);
}

/** Seconds, or a date. */
function readRetryAfter({ headers }: IncomingMessage): number | undefined {
  const text = headers["retry-after"]?.trim();
  if (!text) return undefined;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_RETRY_AFTER_MS);
}
