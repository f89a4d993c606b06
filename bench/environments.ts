/**
 * Environments of Python for the bench, made once below node_modules/.cache (`npm ci` removes them) from a file of
 * requirements with pinned versions. Where one can't be made, the error says why.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { say } from "./setting.ts";

const run = promisify(execFile);
const CACHE = fileURLToPath(new URL("../node_modules/.cache/infermill-bench", import.meta.url));
const INSTALL_TIMEOUT_MS = 900_000;

export interface Environment {
  python: string;
  /** Name and version of each package that its requirements name. */
  packages: Record<string, string>;
}

export interface EnvironmentOptions {
  /** A virtual environment that is there already, to be used in place of one made here. */
  existing?: string | undefined;
  /** Which Python it needs. Default: 3.11 or later. */
  accepts?: { versions: string; test: (version: readonly number[]) => boolean };
}

const ANY = {
  versions: "3.11 or later",
  test: ([major, minor]: readonly number[]) => major === 3 && minor! >= 11,
};

/** @throws Error that says why there is none: no fitting Python, no registry, a package without a wheel. */
export async function openEnvironment(
  requirementsFile: string,
  { existing, accepts = ANY }: EnvironmentOptions = {},
): Promise<Environment> {
  const requirements = readFileSync(requirementsFile, "utf8");
  const folder = existing ?? join(CACHE, /([^/\\]+)\.txt$/.exec(requirementsFile)![1]!);
  const python = join(folder, "bin", "python");
  const madeFrom = join(folder, "made-from");
  const isMade = existsSync(madeFrom) && readFileSync(madeFrom, "utf8") === requirements;
  if (existing === undefined && !isMade) {
    const base = await findPython(accepts);
    say(`making ${folder}`);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(CACHE, { recursive: true });
    await tool(base, ["-m", "venv", folder]);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
    await tool(python, [...pip, "-r", requirementsFile]);
    writeFileSync(madeFrom, requirements);
  }
  const names = [...requirements.matchAll(/^[\w-]+/gm)].map(([name]) => name);
  return { python, packages: await versionsOf(python, names) };
}

async function versionsOf(python: string, names: string[]): Promise<Record<string, string>> {
  const code =
    "import json, platform, sys; from importlib.metadata import version\n" +
    "print(json.dumps({'Python': platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))";
  return JSON.parse(await tool(python, ["-c", code, ...names])) as Record<string, string>;
}

async function findPython({ versions, test }: NonNullable<EnvironmentOptions["accepts"]>): Promise<string> {
  const folders = new Set([...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin", "/usr/local/bin"]);
  for (const name of ["python3", "python3.11", "python3.12", "python3.13"])
    for (const folder of folders) {
      const python = join(folder, name);
      if (!existsSync(python)) continue;
      const version = await tool(python, ["-c", "import sys; print(*sys.version_info[:3])"]).catch(() => "");
      if (test(version.trim().split(" ").map(Number))) return python;
    }
  throw new Error(`there is no Python ${versions}`);
}

async function tool(command: string, args: string[]): Promise<string> {
  try {
    const { stdout } = await run(command, args, { timeout: INSTALL_TIMEOUT_MS });
    return stdout;
  } catch (error) {
    const { stderr = "", message } = error as Error & { stderr?: string };
    throw new Error(stderr.trim().split("\n").at(-1) || message, { cause: error });
  }
}
