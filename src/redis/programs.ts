/** Programs on the PATH, and what the Redis server is called there. */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

/** Names under which the server is packaged; both speak the same protocol and take the same options. */
export const SERVER_NAMES = ["redis-server", "valkey-server"] as const;

/** The first executable file of this name in the folders of PATH. */
export async function findOnPath(name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const folder of (env.PATH ?? "").split(delimiter).filter(Boolean)) {
    const file = join(folder, name);
    try {
      await access(file, constants.X_OK);
      if ((await stat(file)).isFile()) return file;
    } catch {
      // Not there or not for us: the next folder may have it.
    }
  }
  return undefined;
}

/** Runs `--version`, which also proves that the program's libraries are there. */
export async function readVersion(command: string): Promise<string> {
  const { stdout } = await promisify(execFile)(command, ["--version"], { timeout: 10_000 });
  const version = /\bv=(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (!version)
    throw new Error(`${command} --version should tell v=<version>, got ${JSON.stringify(stdout)}`);
  return version;
}
