/** A receiver of webhooks for tests: keeps what came and answers as it is told. */
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";
import type { Json } from "./api.ts";

export const SECRET = `whsec_${Buffer.alloc(32, "a").toString("base64")}`;

export interface Received {
  at: number;
  id: string;
  headers: IncomingHttpHeaders;
  /** What the standard library made of it: verified. */
  event: Json;
}

export interface Receiver {
  url: string;
  received: Received[];
  close(): Promise<void>;
}

/** @param respond default: 200 and nothing */
export async function startReceiver(
  respond: (res: ServerResponse, received: Received, count: number) => void = (res) => res.end(),
  options: { port?: number; secret?: string } = {},
): Promise<Receiver> {
  const received: Received[] = [];
  const server = createServer(async (req, res) => {
    const at = Date.now();
    const body = await text(req);
    const headers = req.headers as Record<string, string>;
    try {
      const event: Json = new Webhook(options.secret ?? SECRET).verify(body, headers);
      received.push({ at, id: headers["webhook-id"]!, headers, event });
      respond(res, received.at(-1)!, received.length);
    } catch (error) {
      res.writeHead(500).end(String(error));
    }
  });
  server.listen(options.port ?? 0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    received,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
