/** A proxy that serves an api below a path, as nginx does with `location /infermill/`. */
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

export interface TestProxy {
  /** With the path. */
  url: string;
  close(): Promise<void>;
}

export async function startProxy(
  target: string,
  path: string,
  options: {
    /** Whether the path is taken off what goes to the api. */
    strips: boolean;
    headers?: Record<string, string>;
  },
): Promise<TestProxy> {
  const { hostname, port } = new URL(target);
  const server = createServer((req, res) => {
    const url = req.url ?? "";
    if (url !== path && !url.startsWith(`${path}/`)) {
      res.writeHead(404).end("not below the path");
      return;
    }
    const inner = options.strips ? url.slice(path.length) || "/" : url;
    const sent = request(
      {
        hostname,
        port,
        method: req.method,
        path: inner,
        headers: { ...req.headers, ...options.headers },
        agent: false,
      },
      (answer) => {
        res.writeHead(answer.statusCode!, answer.rawHeaders);
        answer.pipe(res);
      },
    );
    sent.on("error", () => res.destroy());
    req.pipe(sent);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
