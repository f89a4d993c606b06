/**
 * The HTTP client of the bench, in a process of its own. Messages: `{ url, file, concurrency, seconds }` uploads the
 * picture over and over, each upload waiting for its result, and answers results per second.
 */
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";

const agent = new Agent({ keepAlive: true });

export function post(url: string, type: string, body: Buffer): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Type": type, "Content-Length": body.length, Prefer: "wait=60" };
    const sent = request(url, { method: "POST", agent, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("end", () => resolve({ status: answer.statusCode!, text: Buffer.concat(chunks).toString() }));
      answer.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

async function run(url: string, file: string, concurrency: number, seconds: number): Promise<number> {
  const picture = readFileSync(file);
  const startedAt = performance.now();
  let done = 0;
  const client = async () => {
    while (performance.now() - startedAt < seconds * 1000) {
      const { status, text } = await post(url, "image/jpeg", picture);
      if (status !== 200 || !text.includes('"status":"succeeded"')) throw new Error(`${status}: ${text}`);
      done++;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, client));
  return done / ((performance.now() - startedAt) / 1000);
}

if (process.send) {
  process.on(
    "message",
    async (message: { url: string; file: string; concurrency: number; seconds: number }) => {
      process.send!({ rate: await run(message.url, message.file, message.concurrency, message.seconds) });
    },
  );
  process.on("disconnect", () => process.exit(0));
}
