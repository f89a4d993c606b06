/** The log of a process: readable lines on a terminal, JSON lines elsewhere, always on stderr. */
import pino, { type Logger } from "pino";
import pretty from "pino-pretty";
import { isSupervised } from "./supervisor.ts";

export function createLog(name: string, level: string): Logger {
  const stderr = pino.destination(2);
  // A closed terminal ends no process before it has stopped in order.
  stderr.on("error", () => {});
  const options = { name, level, timestamp: pino.stdTimeFunctions.isoTime };
  if (!process.stderr.isTTY) return pino(options, stderr);
  return pino(
    options,
    pretty({ destination: stderr, ignore: "pid,hostname", translateTime: "SYS:HH:MM:ss" }),
  );
}

/** Prints what the configuration warns of. Under `infermill start` the supervisor has told it already. */
export function printWarning(line: string): void {
  if (!isSupervised) console.error(`infermill: warning: ${line}`);
}
