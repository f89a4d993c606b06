/** A file host on a free port of this machine, with ranges, ETags, redirects, and the faults that a test asks for. */
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What goes wrong with one request. */
export interface Fault {
  /** Answers this instead of the file. */
  status?: number;
  headers?: Record<string, string>;
  /** Destroys the connection after so many bytes of the body. */
  cutAfter?: number;
  /** Sends nothing more after so many bytes, and leaves the connection open. */
  silentAfter?: number;
  /** Sends ten pieces with so many milliseconds between them. */
  dripMs?: number;
}

export interface ServedFile {
  bytes?: Buffer;
  etag?: string;
  headers?: Record<string, string>;
  /** Answers 200 and the whole file whatever part is asked for. */
  ignoresRanges?: boolean;
  redirect?: string;
  /** Faults of the first requests, one each. */
  faults?: Fault[];
  /** Awaited before each answer. */
  gate?: Promise<unknown>;
}

export interface FileServer {
  port: number;
  /** By path and query, as they travel. */
  files: Record<string, ServedFile>;
  requests: { path: string; host: string; headers: IncomingHttpHeaders }[];
  close(): Promise<void>;
}

export async function startFileServer(): Promise<FileServer> {
  const files: FileServer["files"] = {};
  const requests: FileServer["requests"] = [];
  const server = createServer((request, response) => {
    const path = request.url!;
    requests.push({ path, host: request.headers.host!, headers: request.headers });
    void answer(files[path], request.headers, response);
  });
  // Without a host it listens on IPv4 and IPv6, so that 127.0.0.1 and localhost both lead here.
  server.listen(0);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    files,
    requests,
    async close() {
      server.closeAllConnections();
      if (!server.listening) return;
      server.close();
      await once(server, "close");
    },
  };
}

async function answer(
  file: ServedFile | undefined,
  asked: IncomingHttpHeaders,
  response: ServerResponse,
): Promise<void> {
  await file?.gate;
  const fault = file?.faults?.shift();
  if (!file) response.writeHead(404).end();
  else if (file.redirect) response.writeHead(302, { ...file.headers, Location: file.redirect }).end();
  else if (fault?.status) response.writeHead(fault.status, fault.headers).end("no");
  else sendFile(file, asked, response, fault);
}

function sendFile(
  file: ServedFile,
  asked: IncomingHttpHeaders,
  response: ServerResponse,
  fault: Fault = {},
): void {
  const { bytes = Buffer.alloc(0), etag } = file;
  const range = /^bytes=(\d+)-$/.exec(asked.range ?? "");
  const isFresh = asked["if-range"] === undefined || asked["if-range"] === etag;
  const start = range && isFresh && !file.ignoresRanges ? Number(range[1]) : 0;
  const headers = { ...(etag && { ETag: etag }), ...file.headers };
  if (start > 0 && start >= bytes.length) {
    response.writeHead(416, { ...headers, "Content-Range": `bytes */${bytes.length}` }).end();
    return;
  }
  const body = bytes.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    "Content-Length": body.length,
    ...(start > 0 && { "Content-Range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` }),
    ...headers,
  });
  const { cutAfter, silentAfter, dripMs } = fault;
  if (cutAfter !== undefined) {
    // Destroyed at once, the connection would take with it what the client hasn't read yet.
    response.write(body.subarray(0, cutAfter), () => setTimeout(() => response.destroy(), 50));
  } else if (silentAfter !== undefined) response.write(body.subarray(0, silentAfter));
  else if (dripMs !== undefined) void drip(body, response, dripMs);
  else response.end(body);
}

async function drip(body: Buffer, response: ServerResponse, everyMs: number): Promise<void> {
  const size = Math.ceil(body.length / 10);
  for (let start = 0; start < body.length; start += size) {
    response.write(body.subarray(start, start + size));
    await sleep(everyMs);
  }
  response.end();
}
