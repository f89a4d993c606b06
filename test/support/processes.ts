/** What runs below a process, by its command line. */
import { execFileSync } from "node:child_process";

/** Process ids of all descendants. */
export function processesBelow(pid: number): number[] {
  const table = execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" });
  const children = new Map<number, number[]>();
  for (const line of table.trim().split("\n")) {
    const [child, parent] = line.trim().split(/\s+/).map(Number);
    children.set(parent!, [...(children.get(parent!) ?? []), child!]);
  }
  const below = (parent: number): number[] =>
    (children.get(parent) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(pid);
}

export function commandOf(pid: number): string {
  try {
    return execFileSync("ps", ["-o", "args=", "-p", String(pid)], { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
}

/** The descendant whose command line matches. */
export function processNamed(ancestor: number, pattern: RegExp): number {
  const pid = processesBelow(ancestor).find((each) => pattern.test(commandOf(each)));
  if (pid === undefined) throw new Error(`no process below ${ancestor} is called ${String(pattern)}`);
  return pid;
}
