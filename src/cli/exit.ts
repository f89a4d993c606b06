/** How commands end: exit codes, faults as text, signals. */
import { inspect } from "node:util";
import type { Logger } from "pino";
import { ConfigError, InfermillError, ModelNotFoundError } from "../errors.ts";
import { isSupervised, ROUTINE_LEVEL } from "./supervisor.ts";

export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_INTERRUPTED = 130;

/** Longer than any process takes to stop in order. */
const ORPHAN_LIMIT_MS = 45_000;

/** The command line asks for something that there isn't. */
export class UsageError extends InfermillError {
  override readonly code = "wrong_usage";
  override readonly title = "Wrong usage";
}

/** Prints why a command failed and sets the exit code. Faults of the configuration are a matter of usage. */
export function exitWith(error: unknown): void {
  if (error instanceof ConfigError) {
    const { faults } = error;
    console.error(
      `infermill: the configuration has ${faults.length === 1 ? "a fault" : `${faults.length} faults`}:`,
    );
    for (const line of error.message.split("\n")) console.error(`  ${line}`);
    process.exitCode = EXIT_USAGE;
    return;
  }
  console.error(`infermill: ${describe(error)}`);
  process.exitCode =
    error instanceof UsageError || error instanceof ModelNotFoundError ? EXIT_USAGE : EXIT_FAILED;
}

/** A sentence, not a stack, except where somebody asks for it. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (["debug", "trace"].includes(process.env["LOG_LEVEL"] ?? "")) return inspect(error);
  if (error instanceof InfermillError) return error.message;
  // The name of a TypeError says that it is a fault of the program.
  const text = error.name === "Error" ? error.message : `${error.name}: ${error.message}`;
  return `${text}\n(LOG_LEVEL=debug shows where it came from)`;
}

/**
 * Runs `stop` at the first SIGINT, SIGTERM or SIGHUP, or when the supervising process has gone. A second SIGINT runs `stopAtOnce`,
 * which waits for no prediction, and ends the process; a third ends it at once.
 */
export function onStopSignal(log: Logger, stop: () => Promise<void>, stopAtOnce: () => Promise<void>): void {
  let isStopping = false;
  const stopOnce = (reason: string) => {
    if (isStopping) {
      if (reason === "SIGINT") stopHurriedly();
      return;
    }
    isStopping = true;
    log[ROUTINE_LEVEL](`stopping (${reason}): accepting no more, finishing what runs`);
    stop().then(
      () => {
        log[ROUTINE_LEVEL]("stopped");
        process.exit();
      },
      (error) => {
        exitWith(error);
        process.exit();
      },
    );
  };
  const stopHurriedly = () => {
    if (process.exitCode === EXIT_INTERRUPTED) process.exit();
    process.exitCode = EXIT_INTERRUPTED;
    void stopAtOnce().finally(() => process.exit());
  };
  // Ctrl-C and a closed terminal reach the whole process group; below a supervisor it is the one who stops everything in order.
  process.on("SIGINT", () => isSupervised || stopOnce("SIGINT"));
  process.on("SIGHUP", () => isSupervised || stopOnce("SIGHUP"));
  process.on("SIGTERM", () => stopOnce("SIGTERM"));
  surviveClosedTerminal();
  if (!isSupervised) return;
  process.on("disconnect", () => {
    stopOnce("the supervisor's end");
    // Redis may have gone with it, and stopping in order would wait for that for ever.
    setTimeout(() => process.exit(EXIT_FAILED), ORPHAN_LIMIT_MS).unref();
  });
}

/** What is written after the terminal was closed is lost; it must not end the process before it has stopped in order. */
export function surviveClosedTerminal(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EIO" && error.code !== "EPIPE") throw error;
    });
  }
}

/** Tells the supervisor, if there is one, that this process does its work now. */
export function announceReady(details: Record<string, unknown> = {}): void {
  if (isSupervised && process.connected) process.send!({ type: "ready", ...details });
}
