/**
 * Finds a Redis server program on this machine: on the PATH, or in the
 * distribution's own packages, or nowhere, with an error that says how to install one.
 */
import { basename } from "node:path";
import { RedisUnavailableError } from "../errors.ts";
import { isRecentEnough, OLDEST_REDIS_VERSION } from "./check.ts";
import { unpackDistributionRedis } from "./distributionPackages.ts";
import { findOnPath, readVersion, SERVER_NAMES } from "./programs.ts";

/** A server program that runs here and is new enough. */
export interface RedisProgram {
  command: string;
  /** "7.0.15" */
  version: string;
  /** For people: which program, which version, where from. */
  source: string;
}

/**
 * @throws RedisUnavailableError with the reason why each place gave none.
 */
export async function findRedisProgram(options: {
  env: NodeJS.ProcessEnv;
  onProgress?: (line: string) => void;
}): Promise<RedisProgram> {
  const { env, onProgress = () => {} } = options;
  const reasons: string[] = [];

  for (const name of SERVER_NAMES) {
    const command = await findOnPath(name, env);
    if (!command) continue;
    const version = await readVersion(command).catch((error: Error) => error);
    if (version instanceof Error) reasons.push(`${command} doesn't run: ${version.message.trim()}`);
    else if (!isRecentEnough(version))
      reasons.push(`${command} is version ${version}, expected ${OLDEST_REDIS_VERSION} or newer`);
    else return { command, version, source: `${name} ${version} on the PATH (${command})` };
  }
  if (reasons.length === 0) reasons.push(`neither ${SERVER_NAMES.join(" nor ")} is on the PATH`);

  try {
    const { command, distribution, folder } = await unpackDistributionRedis({ env, onProgress });
    const version = await readVersion(command);
    const source = `${basename(command)} ${version} from the packages of ${distribution}, unpacked in ${withTilde(folder, env)}`;
    return { command, version, source };
  } catch (error) {
    reasons.push(`the distribution's packages gave none: ${(error as Error).message.trim()}`);
    throw noneFound(reasons, error);
  }
}

function withTilde(path: string, env: NodeJS.ProcessEnv): string {
  return env.HOME && path.startsWith(`${env.HOME}/`) ? `~${path.slice(env.HOME.length)}` : path;
}

function noneFound(reasons: string[], cause: unknown): RedisUnavailableError {
  const lines = [
    "No Redis was found:",
    ...reasons.map((reason) => `  - ${reason.replaceAll("\n", "\n    ")}`),
    "Install one:",
    "  Debian, Ubuntu  sudo apt-get install redis-server",
    "  Fedora          sudo dnf install valkey",
    "  macOS           brew install redis",
    "  Docker          docker run -d -p 127.0.0.1:6379:6379 -v infermill-redis:/data redis:8 redis-server --appendonly yes",
    "                  and set REDIS_URL=redis://127.0.0.1:6379",
    `or set REDIS_URL (redis_url in the configuration) to a Redis ${OLDEST_REDIS_VERSION} or newer that runs already.`,
  ];
  return new RedisUnavailableError(lines.join("\n"), { cause });
}
