/** A Redis server as the rest of infermill knows it, wherever it comes from. */

/** A Redis to use until `close()`. */
export interface RedisServer {
  /** As `redis_url` of the configuration. */
  readonly url: string;
  /** For people: "REDIS_URL", "redis-server 7.0.15 on the PATH (/usr/bin/redis-server)". */
  readonly source: string;
  /** "7.0.15", or "unknown" where the server hides it. */
  readonly version: string;
  /** What a named server's settings mean for durability, a sentence each; empty where all is well. */
  readonly warnings: readonly string[];
  /** Stops an embedded server that no other infermill uses; leaves every other one alone. */
  close(): Promise<void>;
}

/** The part of a pino logger that is used here. */
export interface RedisLog {
  info(line: string): void;
  warn(line: string): void;
}
