/** A private, real Redis for a test file: embedded, in a folder of its own, gone after `close()`. */
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { provideRedis, type RedisServer } from "../../src/redis/provideRedis.ts";

/** The tests' own environment: no REDIS_URL, and a cache that outlives them, so that Redis is downloaded once. */
export const testRedisEnv: NodeJS.ProcessEnv = {
  ...process.env,
  REDIS_URL: "",
  XDG_CACHE_HOME: fileURLToPath(new URL("../../node_modules/.cache/infermill-tests", import.meta.url)),
};

/** Why no Redis can run here, or undefined; for `describe.skipIf`. */
export const whyNoRedis = ["redis-server", "valkey-server", "apt-get"].some(isOnPath)
  ? undefined
  : "needs redis-server, valkey-server or apt-get on the PATH";

/** Starts an empty server; takes less than 300 ms once Redis is in the cache. */
export async function startTestRedis(): Promise<RedisServer> {
  const dataDir = await mkdtemp(join(tmpdir(), "infermill-redis-"));
  const server = await provideRedis({ dataDir, env: testRedisEnv });
  return {
    ...server,
    close: async () => {
      await server.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

export function isOnPath(program: string): boolean {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
