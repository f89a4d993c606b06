/**
 * Runs around every test file: one that leaves a process or a temporary file
 * behind fails. A Redis of the tests is both, so that its keys can't outlive it.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll } from "vitest";

/** In the environment of every process that this file starts, and of those that they start. */
const MARK = "INFERMILL_TEST_FILE";
/** What ends may take so long to be gone. */
const GRACE_MS = 5000;
/** Caches of tools, which no test can know of. */
const CACHES = /^(tsx-\d+|node-compile-cache|jiti|v8-compile-cache.*)$/;

const folder = mkdtempSync(join(tmpdir(), "it-"));
process.env["TMPDIR"] = folder;
process.env[MARK] = folder;

// Registered first, and so the last to run.
afterAll(async () => {
  const problems: string[] = [];
  const deadline = Date.now() + GRACE_MS;
  while (processesOfFile().length > 0 && Date.now() < deadline) await sleep(50);
  const processes = processesOfFile();
  for (const { pid, command } of processes) {
    problems.push(`process ${pid}: ${command}`);
    process.kill(pid, "SIGKILL");
  }
  const files = readdirSync(folder).filter((name) => !CACHES.test(name));
  for (const name of files) problems.push(`file ${join("$TMPDIR", name)}`);
  rmSync(folder, { recursive: true, force: true });
  if (problems.length > 0) throw new Error(`this test file leaves behind:\n${problems.join("\n")}`);
});

function processesOfFile(): { pid: number; command: string }[] {
  if (!existsSync("/proc/self/environ")) return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, "utf8").includes(`${MARK}=${folder}\0`)) return [];
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        // Without a command line it has ended, and only waits to be noticed.
        return command === "" ? [] : [{ pid: Number(pid), command }];
      } catch {
        return [];
      }
    });
}
