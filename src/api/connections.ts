/**
 * How many connections the api holds. Beyond the limit new ones are still taken for a moment, so that /health answers
 * whoever asks; every other request on them gets 503. Without that, the process would run out of file descriptors, and
 * the system would reset probes like all others.
 */
import { readFileSync } from "node:fs";
import type { Server } from "node:http";
import type { Socket } from "node:net";
import type { RequestHandler } from "express";
import { TooManyConnectionsError } from "./problems.ts";

/** For Redis, files of uploads, the log and what Node itself needs. */
const OWN_DESCRIPTORS = 64;
const MAX_CONNECTIONS = 10_000;
/** Taken beyond the limit; what comes then is dropped. */
const MAX_EXCESS = 64;
/** An excess connection that has sent no request by then goes. */
const EXCESS_LIMIT_MS = 2000;

/** Of the server that is limited: how many it may hold, where the configuration doesn't say. */
export function defaultMaxConnections(): number {
  const descriptors = readDescriptorLimit();
  // Each large upload holds a file, too.
  return Math.max(8, Math.min(MAX_CONNECTIONS, Math.floor((descriptors - OWN_DESCRIPTORS - MAX_EXCESS) / 2)));
}

/** Linux tells; elsewhere what most systems allow is taken. */
function readDescriptorLimit(): number {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return limit === undefined ? Infinity : Number(limit);
  } catch {
    return 1024;
  }
}

const excess = new WeakSet<Socket>();

export function limitConnections(server: Server, max: number): void {
  server.maxConnections = max + MAX_EXCESS;
  let count = 0;
  server.on("connection", (socket: Socket) => {
    count++;
    socket.once("close", () => count--);
    if (count <= max) return;
    excess.add(socket);
    const limit = setTimeout(() => socket.destroy(), EXCESS_LIMIT_MS);
    socket.once("close", () => clearTimeout(limit));
  });
}

/** Answers on connections beyond the limit, and closes them. */
export function refuseExcess(): RequestHandler {
  return (req, res, next) => {
    if (!excess.has(req.socket)) return next();
    res.set("Connection", "close");
    if (req.path.startsWith("/health/")) return next();
    throw new TooManyConnectionsError(
      "the api holds as many connections as it may (max_connections); close idle ones, or try again",
    );
  };
}
