/**
 * Processes that the bench starts: seen through /proc (elsewhere than on Linux CPU and memory are 0), and stopped with
 * all that they started.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { openSync, closeSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const GRACE_MS = 10_000;

interface Sight {
  pid: number;
  parent: number;
  cpuSeconds: number;
  residentBytes: number;
}

/** Starts a process whose output goes to a log file. */
export function startProcess(
  command: string,
  args: readonly string[],
  options: { env: Record<string, string>; cwd: string; log: string },
): ChildProcess {
  const log = openSync(options.log, "a");
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  return child;
}

/** Ends processes and everything below them, with SIGKILL where SIGTERM doesn't do. */
export async function stopProcesses(children: readonly ChildProcess[]): Promise<void> {
  const roots = children.flatMap(({ pid }) => pid ?? []);
  const pids = new Set(below(roots).map(({ pid }) => pid));
  resume(roots);
  for (const child of children) child.kill("SIGTERM");
  const deadline = Date.now() + GRACE_MS;
  while (below([...pids]).length > 0 && Date.now() < deadline) await sleep(50);
  for (const { pid } of below([...pids])) signal(pid, "SIGKILL");
}

/** Kills whatever this process has started, and what that has started. */
export function killDescendants(): void {
  for (const { pid } of below([process.pid])) if (pid !== process.pid) signal(pid, "SIGKILL");
}

/** These processes and all below them that are there. */
function below(roots: readonly number[]): Sight[] {
  const all = lookAtAll();
  const wanted = new Set(roots);
  for (let size = 0; size < wanted.size;) {
    size = wanted.size;
    for (const { pid, parent } of all) if (wanted.has(parent)) wanted.add(pid);
  }
  return all.filter(({ pid }) => wanted.has(pid));
}

function lookAtAll(): Sight[] {
  try {
    return readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? lookAt(Number(name)) : []));
  } catch {
    return [];
  }
}

function lookAt(pid: number): Sight[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name before ")" may hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    if (fields[0] === "Z") return [];
    return [
      {
        pid,
        parent: Number(fields[1]),
        cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
        residentBytes: Number(fields[21]) * PAGE_BYTES,
      },
    ];
  } catch {
    return [];
  }
}

/** CPU time so far of processes and all below them. */
export function cpuSeconds(roots: readonly number[]): number {
  return below(roots).reduce((sum, each) => sum + each.cpuSeconds, 0);
}

/** Memory of processes and all below them: their own pages, and a share of those that several have. */
export function memoryBytes(roots: readonly number[]): number {
  return below(roots).reduce(
    (sum, { pid, residentBytes }) => sum + (proportionalBytes(pid) ?? residentBytes),
    0,
  );
}

/** The same of each process, with its command line. */
export function memoryOfEach(roots: readonly number[]): { command: string; bytes: number }[] {
  return below(roots).map(({ pid, residentBytes }) => ({
    command: commandOf(pid),
    bytes: proportionalBytes(pid) ?? residentBytes,
  }));
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}

function proportionalBytes(pid: number): number | undefined {
  try {
    return 1024 * Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]);
  } catch {
    return undefined;
  }
}

/** CPU time that the whole machine has spent so far; time stolen from it counts, what is niced doesn't: it yields. */
export function machineSeconds(): number {
  try {
    const [user, , system, , , irq, softirq, steal] = readFileSync("/proc/stat", "utf8")
      .split("\n")[0]!
      .trim()
      .split(/\s+/)
      .slice(1)
      .map(Number);
    return (user! + system! + irq! + softirq! + steal!) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}

export function pause(roots: readonly number[]): void {
  for (const { pid } of below(roots)) signal(pid, "SIGSTOP");
}

export function resume(roots: readonly number[]): void {
  for (const { pid } of below(roots)) signal(pid, "SIGCONT");
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It is gone already.
  }
}
