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

const READ_ONLY = "it is a read-only replica (a failover under way, or redis_url names a replica)";

/** The second is what a command that waits for a job gets when its master becomes a replica. */
const READ_ONLY_REPLY = /\bREADONLY\b|^UNBLOCKED .*instance state changed/;

/** A refusal inside a script begins in the middle of the text: "ERR Error running script …: -OOM command not allowed". */
const REFUSALS: readonly [pattern: RegExp, reason: string][] = [
  [READ_ONLY_REPLY, READ_ONLY],
  [/\bMISCONF\b/, "it can't write its data to disk; free space on its machine, its log says more"],
  [/\bLOADING\b/, "it is still loading its data"],
  [/\bMASTERDOWN\b/, "it is a replica that has lost its master"],
  [
    /\bCLUSTERDOWN\b/,
    "its cluster is down: some hash slots have no node (a failover under way, or a master without a replica)",
  ],
  [/\bNOREPLICAS\b/, "it has fewer replicas than its min-replicas-to-write"],
  [/\bTRYAGAIN\b/, "its cluster is moving the hash slot of these keys to another node"],
  [
    /\b(MOVED|ASK) \d+ |\bCROSSSLOT\b|keys in request don't hash to the same slot|should belong to the same slot/,
    "it is a node of a Redis Cluster, and redis_url must name it as one (redis+cluster://host:port)",
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
const REDIRECTED = /^Too many Cluster redirections\. Last error: \w+: /;
const OUT_OF_MEMORY = /\bOOM command not allowed/;
const NOT_SENT = /Stream isn't writeable/;
const CONNECTION_FAULT =
  /Stream isn't writeable|Connection is closed|aborted due to connection close|Command timed out|max retries per request|Cluster isn't ready|Cluster is ended|None of startup nodes|Failed to refresh slots cache|ECONN|ENOENT|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN/i;

/**
 * The error that a fault of Redis is for a client: where it is away, full, or refuses. Undefined for every other error.
 * @param consequence what it means for what was asked for
 */
export function redisFaultOf(thrown: unknown, consequence = "try again"): RedisUnavailableError | undefined {
  if (thrown instanceof RedisUnavailableError) return thrown;
  if (!(thrown instanceof Error) || thrown instanceof InfermillError) return undefined;
  const text = textOf(thrown);
  if (isRedirected(thrown) && !/\bTRYAGAIN\b/.test(text))
    return new RedisUnavailableError(
      `a node of the Redis Cluster can't be reached just now; ${consequence}`,
      {
        cause: thrown,
      },
    );
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
  if (NOT_SENT.test(text) && Date.now() < readOnlyUntil)
    return new RedisRefusedError(`Redis refuses commands: ${READ_ONLY}; ${consequence}`, { cause: thrown });
  if (CONNECTION_FAULT.test(text || thrown.name))
    return new RedisUnavailableError(`Redis can't be reached just now; ${consequence}`, { cause: thrown });
  return undefined;
}

/**
 * What to do where a connection can't succeed before somebody changes something: its login, its certificates. Undefined
 * where waiting may help.
 */
export function connectionFaultOf(error: Error): string | undefined {
  const text = textOf(error);
  return CONNECTION_ADVICE.find(([pattern]) => pattern.test(text))?.[1];
}

const CONNECTION_ADVICE: readonly [pattern: RegExp, advice: string][] = [
  // With the login of a Sentinel that is refused, all other Sentinels were tried in vain.
  [
    /Last error: .*(WRONGPASS|NOAUTH|ERR invalid password)/,
    "correct sentinel_username and sentinel_password in REDIS_URL or redis_url",
  ],
  [/cluster support disabled/, "it is a single Redis: name it as redis://host:port, or rediss:// with TLS"],
  [/unknown command .?cluster\b/i, "it is no node of a Redis Cluster (a Sentinel?)"],
  [/\bNOPERM\b.*\bcluster\b/i, "allow the user +cluster, by which the nodes of a Redis Cluster are found"],
  [
    /\bWRONGPASS\b|\bNOAUTH\b|ERR invalid password|AUTH <password> called without/,
    "correct user name and password in REDIS_URL or redis_url",
  ],
  [
    /self.signed certificate|unable to (get|verify)|certificate (signature|chain)/i,
    "name the authority that signed its certificate in redis_tls.ca",
  ],
  [
    /does not match certificate's altnames/,
    "redis_url must name the server as its certificate does, or redis_tls.servername have that name",
  ],
  [/certificate (has expired|is not yet valid)/, "renew the certificate of Redis, and look at the clocks"],
  [
    /alert (certificate required|bad certificate|unknown ca|handshake failure|certificate expired|certificate unknown)|certificate required/i,
    "Redis wants a certificate of this client that it knows: redis_tls.cert and redis_tls.key",
  ],
  [
    /wrong version number|packet length too long/,
    "it doesn't speak TLS on this port; use redis:// instead of rediss://, or its tls-port",
  ],
];

/** How long what fails on a connection counts as refused, after Redis said that it is a read-only replica. */
const READONLY_MEMORY_MS = 2000;
let readOnlyUntil = 0;

/** Whether Redis refuses to write as it isn't the master, or not any more. */
export function isReadOnly(error: Error): boolean {
  return READ_ONLY_REPLY.test(textOf(error));
}

/** Connections to it are cut now, to look for the master; what can't be sent meanwhile fails for that reason. */
export function noteReadOnly(): void {
  readOnlyUntil = Date.now() + READONLY_MEMORY_MS;
}

/** Whether it was sent to one node of a cluster after the other in vain: each may have run it before its connection broke. */
export function isRedirected({ message }: Error): boolean {
  return REDIRECTED.test(message);
}

function refusalOf(error: Error): string | undefined {
  const text = textOf(error);
  // ioredis names the errors that Redis replies with; a loader's own text may well hold one of these words.
  if (error.name !== "ReplyError" && !/^-?[A-Z]{4,} |^All (the )?keys in /.test(text)) return undefined;
  return REFUSALS.find(([pattern]) => pattern.test(text))?.[1];
}

/**
 * Of a transaction that was discarded, the error of the command that was refused; of a command that was sent to one node
 * of a cluster after the other, the last one's.
 */
function textOf(error: Error): string {
  const [first] = (error as { previousErrors?: Error[] }).previousErrors ?? [];
  return (first?.message ?? error.message).replace(REDIRECTED, "");
}

function firstLine(text: string): string {
  const line = text.split("\n", 1)[0]!;
  return line.length > 160 ? `${line.slice(0, 160)}…` : line;
}
