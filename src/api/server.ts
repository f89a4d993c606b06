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
import type { Listener, Protocol } from "./api.ts";
import { createApi, createApp } from "./app.ts";
import { defaultMaxConnections, limitConnections } from "./connections.ts";

const IDLE_CHECK_MS = 50;
/** Longer than load balancers keep an idle connection (60 s), or they would send a request on one that just closed. */
const KEEP_ALIVE_MS = 65_000;

export interface RunningApi {
  readonly url: string;
  /** Of what its protocols listen on beside HTTP. */
  readonly urls: readonly string[];
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
  const api = createApi({ config, predictions, bulk, protocols, log, closing: closing.signal });
  const server = createServer(createApp(api, protocols));
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.headersTimeout = KEEP_ALIVE_MS + 1000;
  limitConnections(server, config.max_connections ?? defaultMaxConnections());
  const listeners: Listener[] = [];
  const closeListeners = (limitMs: number) => Promise.all(listeners.map((each) => each.close(limitMs)));
  try {
    for (const protocol of protocols) {
      const listener = await protocol.listen?.(api);
      if (listener) listeners.push(listener);
    }
    await listen(server, config);
  } catch (error) {
    await closeListeners(0);
    await closeQueues();
    throw error;
  }
  return {
    url: urlOf(config.host, (server.address() as AddressInfo).port),
    urls: listeners.map(({ url }) => url),
    async close(limitMs) {
      const closed = once(server, "close");
      server.close();
      closing.abort();
      // A connection that is kept alive turns idle when its request is done, which nobody tells.
      const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
      const limit = setTimeout(() => server.closeAllConnections(), limitMs);
      await Promise.all([closed, closeListeners(limitMs)]);
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
export function urlOf(host: string, port: number, scheme = "http"): string {
  const name = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  return `${scheme}://${name.includes(":") ? `[${name}]` : name}:${port}`;
}
