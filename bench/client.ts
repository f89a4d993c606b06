/**
 * HTTP requests of the bench, and its load client where the machine has no wrk: a process of its own. Messages: a `Load`
 * sends its file over and over on so many connections, and is answered with its figures.
 */
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";

const agent = new Agent({ keepAlive: true });

/** What is sent, and for how long. An answer is 200 and holds the text `succeeded`. */
export interface Load {
  url: string;
  file: string;
  headers: Record<string, string>;
  succeeded: string;
  connections: number;
  seconds: number;
}

/** Latencies and the client's own CPU time for each request in milliseconds. */
export interface LoadFigures {
  /** Answers a second. */
  rate: number;
  p50: number;
  p95: number;
  p99: number;
  errors: number;
  requests: number;
  clientCpuMs: number;
}

export function send(
  method: "GET" | "POST",
  url: string,
  body: Buffer = Buffer.alloc(0),
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const all = { "Content-Length": body.length, ...headers };
    const sent = request(url, { method, agent, headers: all }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", () => resolve({ status: answer.statusCode!, text: Buffer.concat(chunks).toString() }));
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

/** Posts and waits for the result. */
export function post(
  url: string,
  type: string,
  body: Buffer,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return send("POST", url, body, { "Content-Type": type, Prefer: "wait=60", ...headers });
}

export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((percent / 100) * sorted.length))]!;
}

async function run({ url, file, headers, succeeded, connections, seconds }: Load): Promise<LoadFigures> {
  const body = readFileSync(file);
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const latencies: number[] = [];
  let errors = 0;
  const connection = async () => {
    while (performance.now() - startedAt < seconds * 1000) {
      const sentAt = performance.now();
      const { status, text } = await send("POST", url, body, headers);
      if (status !== 200 || !text.includes(succeeded)) errors++;
      else latencies.push(performance.now() - sentAt);
    }
  };
  await Promise.all(Array.from({ length: connections }, connection));
  const { user, system } = process.cpuUsage(cpuBefore);
  const requests = latencies.length + errors;
  return {
    rate: latencies.length / ((performance.now() - startedAt) / 1000),
    p50: percentile(latencies, 50),
    p95: percentile(latencies, 95),
    p99: percentile(latencies, 99),
    errors,
    requests,
    clientCpuMs: (user + system) / 1000 / requests,
  };
}

if (process.send) {
  process.on("message", async (load: Load) => process.send!(await run(load)));
  process.on("disconnect", () => process.exit(0));
}
