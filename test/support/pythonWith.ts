/** Virtual environments of Python for tests, made once for each list of packages and kept in node_modules/.cache. */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const CACHE = fileURLToPath(new URL("../../node_modules/.cache", import.meta.url));
const run = promisify(execFile);

/** What the tests of the protocols' clients need; `.ci/run` installs it, too. */
export const CLIENT_PACKAGES = ["tritonclient[http,grpc]>=2.50,<3", "openai>=1.60,<4"];

/** Why there is no Python, for `describe.skipIf`; never a reason in CI. */
export const whyNoPython =
  process.env["CI"] === "true" || hasVenv() ? undefined : "needs python3 with venv on the PATH";

function hasVenv(): boolean {
  try {
    execFileSync("python3", ["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))"], {
      stdio: "pipe",
    });
    return true;
  } catch {
    return false;
  }
}

/** The interpreter of an environment that has these packages, as pip writes them; the first time it is made. */
export async function pythonWith(requirements: readonly string[]): Promise<string> {
  const hash = createHash("sha256").update(requirements.join("\n")).digest("hex").slice(0, 12);
  const folder = join(CACHE, `infermill-python-${hash}`);
  const python = join(folder, "bin", "python");
  if (existsSync(python)) return python;
  await mkdir(CACHE, { recursive: true });
  // It gets its name when it is complete: another test file may make the same one.
  const making = await mkdtemp(`${folder}-`);
  try {
    await run("python3", ["-m", "venv", making]);
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...requirements];
    await run(join(making, "bin", "python"), pip, { timeout: 300_000 });
    await rename(making, folder);
  } catch (error) {
    await rm(making, { recursive: true, force: true });
    if (!existsSync(python)) throw error;
  }
  return python;
}
