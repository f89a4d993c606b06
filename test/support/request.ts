/** Requests as browsers send them, with headers that fetch sets by itself or forbids: Host, Origin, Cookie, Sec-Fetch-Site. */
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import type { Json } from "./api.ts";

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  /** The text as JSON. */
  readonly body: Json;
}

export function request(
  method: string,
  url: string,
  headers: Record<string, string> = {},
  body?: string,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest(url, { method, headers, agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({
          status: answer.statusCode!,
          headers: answer.headers,
          text,
          get body() {
            return JSON.parse(text);
          },
        });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}
