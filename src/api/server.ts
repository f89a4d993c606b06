/** The api as a running server: opened, listening, and closed in order. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "pino";
import { openBulkRuns } from "../bulk/runs.ts";
import { notifyBulkRunEnded } from "../bulk/webhook.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError } from "../errors.ts";
import { openPredictions } from "../queue/predictions.ts";
import type { Protocol } from "./api.ts";
import { createApp } from "./app.ts";

const IDLE_CHECK_MS = 50;
/** Longer than load balancers keep an idle connection (60 s), or they would send a request on one that just closed. */
const KEEP_ALIVE_MS = 65_000;

export interface RunningApi {
  readonly url: string;
  /** Accepts no more, ends the waits, lets the other requests finish for up to `limitMs`. */
  close(limitMs: number): Promise<void>;
}

export async function startApi(options: {
  config: Config;
  redisUrl: string;
  log: Logger;
  protocols: readonly Protocol[];
}): Promise<RunningApi> {
  const { config, redisUrl, log, protocols } = options;
  const predictions = await openPredictions(config, redisUrl);
  const bulk = await openBulkRuns(config, redisUrl, notifyBulkRunEnded(predictions.deliveries));
  const closeQueues = async () => {
    await bulk.close();
    await predictions.close();
  };
  const closing = new AbortController();
  const server = createServer(
    createApp({ config, predictions, bulk, protocols, log, closing: closing.signal }),
  );
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.headersTimeout = KEEP_ALIVE_MS + 1000;
  try {
    await listen(server, config);
  } catch (error) {
    await closeQueues();
    throw error;
  }
  return {
    url: urlOf(server, config.host),
    async close(limitMs) {
      const closed = once(server, "close");
      server.close();
      closing.abort();
      // A connection that is kept alive turns idle when its request is done, which nobody tells.
      const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
      const limit = setTimeout(() => server.closeAllConnections(), limitMs);
      await closed;
      clearInterval(idle);
      clearTimeout(limit);
      await closeQueues();
    },
  };
}

async function listen(server: Server, { host, port, file }: Config): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, "listening");
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      code === "EADDRINUSE" ? "something listens there already; stop it or choose another port" : message;
    throw new ConfigError([
      { source: file, key: "port", problem: `can't listen on ${host}:${port}: ${reason} (PORT, HOST)` },
    ]);
  }
}

/** A URL that works on this machine, for an address that stands for every one too. */
function urlOf(server: Server, host: string): string {
  const { port } = server.address() as AddressInfo;
  const name = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  return `http://${name.includes(":") ? `[${name}]` : name}:${port}`;
}
