/**
 * What Redis means when it refuses a command. This is the one place that reads its error texts: whoever talks to Redis
 * gets an error with the true reason and what to do about it.
 */
import {
  InfermillError,
  QueueStorageFullError,
  RedisRefusedError,
  RedisUnavailableError,
} from "../errors.ts";

/** A refusal inside a script begins in the middle of the text: "ERR Error running script …: -OOM command not allowed". */
const REFUSALS: readonly [pattern: RegExp, reason: string][] = [
  [/\bREADONLY\b/, "it is a read-only replica (a failover under way, or redis_url names a replica)"],
  [/\bMISCONF\b/, "it can't write its data to disk; free space on its machine, its log says more"],
  [/\bLOADING\b/, "it is still loading its data"],
  [/\bMASTERDOWN\b/, "it is a replica that has lost its master"],
  [/\bCLUSTERDOWN\b/, "its cluster is down"],
  [/\bNOREPLICAS\b/, "it has fewer replicas than its min-replicas-to-write"],
  [/\bTRYAGAIN\b/, "its cluster is moving keys"],
  [
    /\b(MOVED|ASK) \d+ |\bCROSSSLOT\b|keys in request don't hash to the same slot/,
    "it is a node of a Redis Cluster",
  ],
  [/\bNOPERM\b|user executing the script can't/, "its ACL forbids the command to this user"],
  [
    /\bWRONGPASS\b|ERR invalid password|AUTH <password> called without/,
    "user name or password of redis_url are wrong",
  ],
  [/\bNOAUTH\b/, "it wants a password, and redis_url has none"],
  [/^BUSY\b/, "a script blocks it"],
  [/max number of clients reached/, "it has no connection left (maxclients)"],
  [
    /unknown command|unknown subcommand/i,
    "it lacks a command that the queue needs; it must be version 6.2 or newer",
  ],
];
const OUT_OF_MEMORY = /\bOOM command not allowed/;
const CONNECTION_FAULT =
  /Stream isn't writeable|Connection is closed|Command timed out|max retries per request|ECONN|ENOENT|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN/i;

/**
 * The error that a fault of Redis is for a client: where it is away, full, or refuses. Undefined for every other error.
 * @param consequence what it means for what was asked for
 */
export function redisFaultOf(thrown: unknown, consequence = "try again"): RedisUnavailableError | undefined {
  if (thrown instanceof RedisUnavailableError) return thrown;
  if (!(thrown instanceof Error) || thrown instanceof InfermillError) return undefined;
  const text = textOf(thrown);
  if (OUT_OF_MEMORY.test(text))
    return new QueueStorageFullError(
      `Redis has reached its maxmemory; ${consequence} when predictions have ended`,
      {
        cause: thrown,
      },
    );
  const reason = refusalOf(thrown);
  if (reason !== undefined)
    return new RedisRefusedError(`Redis refuses commands: ${reason} (${firstLine(text)}); ${consequence}`, {
      cause: thrown,
    });
  if (CONNECTION_FAULT.test(text || thrown.name))
    return new RedisUnavailableError(`Redis can't be reached just now; ${consequence}`, { cause: thrown });
  return undefined;
}

/** Whether a connection can't succeed before somebody changes its user name or password. */
export function isWrongLogin(error: Error): boolean {
  return /\bWRONGPASS\b|\bNOAUTH\b|ERR invalid password|AUTH <password> called without/.test(textOf(error));
}

function refusalOf(error: Error): string | undefined {
  const text = textOf(error);
  // ioredis names the errors that Redis replies with; a loader's own text may well hold one of these words.
  if (error.name !== "ReplyError" && !/^-?[A-Z]{4,} /.test(text)) return undefined;
  return REFUSALS.find(([pattern]) => pattern.test(text))?.[1];
}

/** Of a transaction that was discarded, the error of the command that was refused. */
function textOf(error: Error): string {
  const [first] = (error as { previousErrors?: Error[] }).previousErrors ?? [];
  return first?.message ?? error.message;
}

function firstLine(text: string): string {
  const line = text.split("\n", 1)[0]!;
  return line.length > 160 ? `${line.slice(0, 160)}…` : line;
}
