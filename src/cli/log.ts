/** The log of a process: readable lines on a terminal, JSON lines elsewhere, always on stderr. */
import pino, { type Logger } from "pino";
import pretty from "pino-pretty";
import { isSupervised } from "./supervisor.ts";

export function createLog(name: string, level: string): Logger {
  if (!process.stderr.isTTY) return pino({ name, level }, pino.destination(2));
  return pino(
    { name, level },
    pretty({ destination: 2, sync: true, ignore: "pid,hostname", translateTime: "HH:MM:ss" }),
  );
}

/** Prints what the configuration warns of. Under `infermill start` the supervisor has told it already. */
export function printWarning(line: string): void {
  if (!isSupervised) console.error(`infermill: warning: ${line}`);
}
