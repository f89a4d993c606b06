/**
 * The HTTP client of the bench, in a process of its own. Messages: `{ url, file, type, headers, succeeded, concurrency,
 * seconds }` sends the file over and over, each time waiting for its result, and answers results per second. An answer
 * holds the text `succeeded`.
 */
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";

const agent = new Agent({ keepAlive: true });

/** What is sent, and what its answer holds. */
export interface Upload {
  url: string;
  file: string;
  type: string;
  headers?: Record<string, string>;
  succeeded: string;
  concurrency: number;
  seconds: number;
}

export function post(
  url: string,
  type: string,
  body: Buffer,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const all = { "Content-Type": type, "Content-Length": body.length, Prefer: "wait=60", ...headers };
    const sent = request(url, { method: "POST", agent, headers: all }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", () => resolve({ status: answer.statusCode!, text: Buffer.concat(chunks).toString() }));
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

async function run({ url, file, type, headers, succeeded, concurrency, seconds }: Upload): Promise<number> {
  const body = readFileSync(file);
  const startedAt = performance.now();
  let done = 0;
  const client = async () => {
    while (performance.now() - startedAt < seconds * 1000) {
      const { status, text } = await post(url, type, body, headers);
      if (status !== 200 || !text.includes(succeeded)) throw new Error(`${status}: ${text}`);
      done++;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, client));
  return done / ((performance.now() - startedAt) / 1000);
}

if (process.send) {
  process.on("message", async (upload: Upload) => process.send!({ rate: await run(upload) }));
  process.on("disconnect", () => process.exit(0));
}
