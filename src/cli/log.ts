/** The log of a process: readable lines on a terminal, JSON lines elsewhere, always on stderr. */
import pino, { type Logger, type LoggerOptions } from "pino";
import { createRepeats, kindOf } from "../core/repeats.ts";
import { isSupervised } from "./supervisor.ts";

const MAX_OF_A_KIND = 50;

/** Loaded for people only. */
const pretty = process.stderr.isTTY ? (await import("pino-pretty")).default : undefined;

export function createLog(name: string, level: string): Logger {
  const stderr = pino.destination(2);
  // A closed terminal ends no process before it has stopped in order.
  stderr.on("error", () => {});
  const options = {
    name,
    level,
    timestamp: pino.stdTimeFunctions.isoTime,
    hooks: { logMethod: limitRepeats() },
  };
  if (!pretty) return pino(options, stderr);
  return pino(
    options,
    pretty({ destination: stderr, ignore: "pid,hostname", translateTime: "SYS:HH:MM:ss", singleLine: true }),
  );
}

/** Of each kind of warning or error some are written in a minute, so that no fault fills the disk with its lines. */
function limitRepeats(): NonNullable<LoggerOptions["hooks"]>["logMethod"] {
  const repeats = createRepeats(MAX_OF_A_KIND);
  return function (args, method, level) {
    const line = args.find((arg) => typeof arg === "string") ?? "";
    const sumUp = (more: string) => method.apply(this, [`${line} ${more}`]);
    if (level < pino.levels.values["warn"]! || repeats.allow(`${level} ${kindOf(line)}`, sumUp))
      method.apply(this, args);
  };
}

/** Prints what the configuration warns of. Under `infermill start` the supervisor has told it already. */
export function printWarning(line: string): void {
  if (!isSupervised) console.error(`infermill: warning: ${line}`);
}
